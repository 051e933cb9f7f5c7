/** Preprocessing of pictures against Pillow, transformers, torchvision and diffusers: 8-bit values exactly, floats to a rounding. Sets: image-prep*. */

import fs from "node:fs";
import path from "node:path";
import { decodePng } from "../../lib/data/image.js";
import { clipImages, clipSquare, trainingImage, trainingSquare, vaeImages } from "../../lib/data/preprocess.js";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { expectSame } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";

type Case = { readonly image: string } & (
  | { readonly kind: "clip"; readonly size: number }
  | { readonly kind: "train"; readonly resolution: number }
  | { readonly kind: "vae"; readonly height: number; readonly width: number }
);

/** x / 255, minus, over: three float32 roundings of numbers below 4, in whatever order the library takes them. */
const rounding = 3 * 4 * 2 ** -24;

function expectWithin(actual: ArrayLike<number>, expected: ArrayLike<number>, bound: number, label: string): void {
  expect([label, actual.length]).toEqual([label, expected.length]);
  for (let i = 0; i < expected.length; i++)
    if (!(Math.abs(actual[i]! - expected[i]!) <= bound)) throw new Error(`${label}[${i}]: expected ${expected[i]}, received ${actual[i]}`);
}

describeSets("image-prep", folder => {
  const { cases } = JSON.parse(fs.readFileSync(path.join(folder, "cases.json"), "utf8")) as { cases: Case[] };
  const read = (name: string) => decodePng(fs.readFileSync(path.join(folder, "images", name)), name);
  let golden: SafetensorsFile;
  beforeAll(() => {
    golden = readSafetensors(path.join(folder, "prep.safetensors"));
  });
  afterAll(() => golden.close());
  const expected = (name: string) => golden.tensor(name).data as Float32Array;
  const label = (c: Case): string =>
    `${c.image.replace(/\.png$/, "")}.${c.kind === "clip" ? c.size : c.kind === "train" ? c.resolution : `${c.height}x${c.width}`}`;
  const of = <K extends Case["kind"]>(kind: K) => cases.filter((c): c is Extract<Case, { kind: K }> => c.kind === kind).map(c => [label(c), c] as const);

  test.each(of("clip"))("clip.%s", (name, { image, size }) => {
    expectSame(clipSquare(read(image), size).data, expected(`clip_u8.${name}`), name);
    expectWithin(clipImages(read(image), { size }).data as Float32Array, expected(`clip.${name}`), rounding, name);
  });

  test.each(of("train"))("train.%s", (name, { image, resolution }) => {
    expectSame(trainingSquare(read(image), { resolution }).image.data, expected(`train_u8.${name}`), name);
    expectWithin(trainingImage(read(image), { resolution }).pixels.data as Float32Array, expected(`train.${name}`), rounding, name);
  });

  test.each(of("vae"))("vae.%s", (name, { image, width, height }) => {
    expectWithin(vaeImages(read(image), { width, height }).data as Float32Array, expected(`vae.${name}`), rounding, name);
  });

  test("every golden is read", () => {
    const names = new Set(cases.flatMap(c => (c.kind === "vae" ? [`vae.${label(c)}`] : [`${c.kind}.${label(c)}`, `${c.kind}_u8.${label(c)}`])));
    expect([...golden.tensors.keys()].filter(name => !names.has(name))).toEqual([]);
  });
});
