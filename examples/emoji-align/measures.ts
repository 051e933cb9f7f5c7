/** What is measured on pictures of held-out prompts, without any model: how colourful they are and whether they still show what was asked for. */

import type { Image } from "../../lib/data/image.js";
import type { Drawing } from "./drawings.js";

/** A picture counts as coloured when its pixels' channels differ by this much on average, values in [-1, 1]. */
export const colourThreshold = 0.25;
/** Differences in colourfulness below this are ties. */
export const winMargin = 0.02;
/** A picture shows its concept if one of the concept's own drawings is among this many nearest of all drawings. */
export const fidelityRank = 10;

/** Mean over the pixels of largest minus smallest channel, in [0, 2]: 0 for a grey picture. */
export function colourfulness({ width, height, data }: Image): number {
  let total = 0;
  for (let i = 0; i < data.length; i += 3) total += Math.max(data[i]!, data[i + 1]!, data[i + 2]!) - Math.min(data[i]!, data[i + 1]!, data[i + 2]!);
  return total / 127.5 / (width * height);
}

export function isColoured(image: Image): boolean {
  return colourfulness(image) > colourThreshold;
}

/** Compares pictures with all drawings after halving both, which forgives strokes that are off by a pixel. */
export class ConceptFidelity {
  readonly #drawings: readonly { readonly concept: number; readonly pixels: Float64Array }[];

  constructor(drawings: readonly Drawing[]) {
    this.#drawings = drawings.map(({ concept, image }) => ({ concept, pixels: halved(image) }));
  }

  /** Whether `image` shows `concept`: fewer than `fidelityRank` drawings are nearer (least squares) than the nearer of the concept's own two. */
  shows(image: Image, concept: number): boolean {
    const pixels = halved(image);
    const own: number[] = [];
    const others: number[] = [];
    for (const drawing of this.#drawings) (drawing.concept === concept ? own : others).push(squaredDistance(pixels, drawing.pixels));
    const nearest = Math.min(...own);
    return others.filter(distance => distance < nearest).length < fidelityRank;
  }
}

/** Means of 2 x 2 pixels. */
export function halved({ width, height, data }: Image): Float64Array {
  const out = new Float64Array(((width * height) / 4) * 3);
  const half = width / 2;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) {
        const at = ((y >> 1) * half + (x >> 1)) * 3 + c;
        out[at] = out[at]! + data[(y * width + x) * 3 + c]! / 4;
      }
  return out;
}

export function squaredDistance(a: Float64Array, b: Float64Array): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += (a[i]! - b[i]!) ** 2;
  return total;
}
