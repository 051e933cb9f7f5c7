/** A CLIP that rewards share: pictures and texts as unit vectors on the host, each computed once. Several rewards of one backbone, and TextNorm's many prompts of
 *  one picture, cost one pass of each tower. */

import type { Image } from "../data/image.js";
import { type ClipImageOptions, clipImages } from "../data/preprocess.js";
import type { TokenBatch } from "../data/tokenizer.js";
import { ConfigError } from "../errors.js";
import type { Clip } from "../models/clip-model.js";
import { convert, type HostTensor } from "../util/host-tensor.js";
import { inBatches } from "./batches.js";
import { type Feature, type ImageCache, TextCache, through } from "./feature-cache.js";
import { pixelsOf } from "./pixels.js";
import type { RewardOptions } from "./reward.js";

export interface ClipBackbone {
  readonly clip: Clip;
  imageFeatures(images: readonly Image[], options?: RewardOptions): Promise<readonly Feature[]>;
  textFeatures(prompts: readonly string[], options?: RewardOptions): Promise<readonly Feature[]>;
}

export interface ClipBackboneOptions {
  /** Text to ids: a ClipTokenizer. Prompts that are too long are cut, as every released scorer does. */
  readonly tokenizer: { encode(texts: readonly string[], options?: { readonly maxLength?: number }): TokenBatch };
  /** Pictures to standardised pixels [B, 3, S, S]; by default clipImages at the model's size. */
  readonly preprocess?: (images: readonly Image[]) => HostTensor;
  readonly preprocessing?: Omit<ClipImageOptions, "size">;
  /** Pictures, and texts, of one run of the model: 16 by default. */
  readonly batchSize?: number;
  /** Texts whose vectors are kept: 2^14 by default, 0 for none. */
  readonly cachedTexts?: number;
}

export function clipBackbone(clip: Clip, { tokenizer, preprocess, preprocessing = {}, batchSize = 16, cachedTexts }: ClipBackboneOptions): ClipBackbone {
  if (!(Number.isSafeInteger(batchSize) && batchSize >= 1)) throw new ConfigError("clipBackbone", "batchSize", "a whole number >= 1", batchSize);
  const texts = new TextCache(cachedTexts);
  const pictures: ImageCache = new WeakMap();
  const { imageSize: size } = clip.config.vision;
  const pixels = preprocess ?? ((images: readonly Image[]) => clipImages(images, { ...preprocessing, size }));
  const { positions: maxLength } = clip.config.text;
  return {
    clip,
    imageFeatures: (images, { signal } = {}) =>
      through(
        images,
        image => pictures.get(image),
        missing =>
          inBatches(missing, { batchSize, signal }, async batch =>
            rowsOf((await clip.encodeImage(await pixelsOf(batch, pixels, signal), control(signal))).imageEmbeds),
          ),
        (image, feature) => pictures.set(image, feature),
      ),
    textFeatures: (prompts, { signal } = {}) =>
      through(
        prompts,
        prompt => texts.get(prompt),
        missing =>
          inBatches(missing, { batchSize, signal }, async batch =>
            rowsOf(await clip.encodeText({ inputIds: tokenizer.encode(batch, { maxLength }).ids }, control(signal))),
          ),
        (prompt, feature) => texts.set(prompt, feature),
      ),
  };
}

function control(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal ? { signal } : {};
}

/** Rows of a matrix in f64. */
export function rowsOf(matrix: HostTensor): Feature[] {
  const [rows = 0, width = 0] = matrix.shape;
  const data = convert(matrix, "f64").data as Float64Array;
  return Array.from({ length: rows }, (_, r) => data.slice(r * width, (r + 1) * width));
}

export function dotOf(a: Feature, b: Feature): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}
