/** The pictures of the demo: some 450 concepts, each drawn twice by the same designer (Fluent Emoji, MIT licence): in flat colour and as a black line drawing.
 *  Drawn from the SVGs of two npm packages, 16 x 16 pixels on white, and kept in a cache folder. */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import colourIcons from "@iconify-json/fluent-emoji-flat/icons.json";
import colourMetadata from "@iconify-json/fluent-emoji-flat/metadata.json";
import lineIcons from "@iconify-json/fluent-emoji-high-contrast/icons.json";
import lineMetadata from "@iconify-json/fluent-emoji-high-contrast/metadata.json";
import sharp from "sharp";
import { decodePng, encodePng, type Image } from "../../lib/data/image.js";

/** Width and height of every picture. */
export const side = 16;
const oversampling = 4;
/** Drawings under way together: sharp works in threads of its own. */
const atOnce = 16;
const categories = ["Animals & Nature", "Food & Drink", "Smileys & Emotion"] as const;

export const styles = ["colour", "line"] as const;
export type Style = (typeof styles)[number];

export interface Drawing {
  /** Index into `concepts`. */
  readonly concept: number;
  readonly style: Style;
  /** 16 x 16 RGB. */
  readonly image: Image;
}

export interface Drawings {
  /** Prompts: "red apple", "grinning cat". Sorted, so the order depends on the packages alone. */
  readonly concepts: readonly string[];
  /** Both drawings of every concept: concept c in colour at 2c, as lines at 2c + 1. */
  readonly drawings: readonly Drawing[];
}

/** Names that both sets have in the three categories, sorted. */
export function conceptNames(): string[] {
  const [colour, line] = [colourMetadata, lineMetadata].map(
    ({ categories: named }) => new Set(categories.flatMap(c => (named as Record<string, string[]>)[c] ?? [])),
  );
  return [...colour!].filter(name => line!.has(name) && name in colourIcons.icons && name in lineIcons.icons).sort();
}

/** All drawings, from the cache where it fits the installed packages, else drawn (some seconds) and cached. */
export async function loadDrawings({ cache }: { cache: string }): Promise<Drawings> {
  const names = conceptNames();
  const concepts = names.map(name => name.replaceAll("-", " "));
  const bodies = names.flatMap(name => [colourIcons.icons, lineIcons.icons].map(set => (set as Record<string, { body: string }>)[name]!.body));
  const key = createHash("sha256")
    .update(JSON.stringify([side, oversampling, bodies]))
    .digest("hex")
    .slice(0, 16);
  const file = join(cache, `drawings-${key}.png`);
  const strip = existsSync(file) ? decodePng(readFileSync(file), file) : await drawAll(bodies);
  if (!existsSync(file)) {
    mkdirSync(cache, { recursive: true });
    writeFileSync(`${file}.tmp-${process.pid}`, encodePng(strip));
    renameSync(`${file}.tmp-${process.pid}`, file);
  }
  const bytes = side * side * 3;
  const drawings = bodies.map((_, i): Drawing => {
    const image: Image = { width: side, height: side, channels: 3, data: strip.data.slice(i * bytes, (i + 1) * bytes) };
    return { concept: Math.floor(i / 2), style: styles[i % 2]!, image };
  });
  return { concepts, drawings };
}

/** One picture, `side` wide, with all drawings below each other. */
async function drawAll(bodies: readonly string[]): Promise<Image> {
  const data = new Uint8Array(bodies.length * side * side * 3);
  for (let first = 0; first < bodies.length; first += atOnce) {
    const some = await Promise.all(bodies.slice(first, first + atOnce).map(draw));
    for (const [i, pixels] of some.entries()) data.set(pixels, (first + i) * side * side * 3);
  }
  return { width: side, height: bodies.length * side, channels: 3, data };
}

/** Drawn `oversampling` times larger, each pixel the mean of its square: librsvg alone would lose thin lines at 16 pixels. */
async function draw(body: string): Promise<Uint8Array> {
  const large = side * oversampling;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${large}" height="${large}" viewBox="0 0 32 32" color="#000">${body}</svg>`;
  const pixels = await sharp(Buffer.from(svg)).flatten({ background: "#fff" }).toColourspace("srgb").removeAlpha().raw().toBuffer();
  const out = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < oversampling ** 2; k++)
          sum += pixels[((y * oversampling + Math.floor(k / oversampling)) * large + x * oversampling + (k % oversampling)) * 3 + c]!;
        out[(y * side + x) * 3 + c] = Math.round(sum / oversampling ** 2);
      }
  return out;
}
