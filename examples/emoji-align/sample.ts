/** Pictures from a model: DDIM, 20 steps, guidance 2. Sample i depends on (seed, i, prompt i) and the weights alone, so two models can be compared picture by picture. */

import type { Image } from "../../lib/data/image.js";
import { Sampler } from "../../lib/diffusion/sampler.js";
import { ddim } from "../../lib/schedulers/ddim.js";
import { conditionOf, type EmojiModel } from "./model.js";
import { toImages } from "./pixels.js";

const largestBatch = 32;
const steps = 20;
const guidanceScale = 2;

export interface PictureOptions {
  readonly prompts: readonly string[];
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
  /** Told the number of pictures that are ready. */
  onProgress?(done: number, of: number): void;
}

/** One picture per prompt, of the model's weights as they stand. */
export async function samplePictures(model: EmojiModel, { prompts, seed, signal, onProgress }: PictureOptions): Promise<Image[]> {
  const { session, denoiser, store, schedule, vocabulary } = model;
  const sampler = new Sampler({ session, denoiser, store, schedule });
  const scheduler = ddim(); // the clean estimate is not clamped: at high noise that would pull every picture's mean towards grey, and so its style towards lines
  const pictures: Image[] = [];
  const batch = Math.min(largestBatch, prompts.length);
  const uncondition = conditionOf(vocabulary, Array(batch).fill(""));
  for (let first = 0; first < prompts.length; first += batch) {
    const some = prompts.slice(first, first + batch);
    const full = [...some, ...Array(batch - some.length).fill("")]; // one program for every batch
    const condition = conditionOf(vocabulary, full);
    const x = await sampler.sample({ scheduler, steps, guidanceScale, condition, uncondition, seed, sampleOffset: first, ...(signal && { signal }) });
    pictures.push(...toImages(x).slice(0, some.length));
    onProgress?.(pictures.length, prompts.length);
  }
  return pictures;
}
