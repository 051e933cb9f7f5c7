/** Pictures as HPSv2's code prepares them: to floats first, then bicubic, the centre square, standardised. Pixels that overshoot [0, 1] are kept, as they were in training. */

import { type FloatImage, resizeBicubic } from "../data/float-resample.js";
import { type Image, toRgb } from "../data/image.js";
import { clipMean, clipStd } from "../data/preprocess.js";
import { ConfigError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";

export interface HpsImageOptions {
  /** Side of the square that the model sees; 224 by default. */
  readonly size?: number;
  /** torchvision resized tensors without it before 0.17, which published scores were made with, and with it since. True by default. */
  readonly antialias?: boolean;
}

/** f32 [B, 3, size, size]. Alpha is dropped: HPSv2's own code breaks on four channels. Throws ConfigError for an option out of range. */
export function hpsImages(images: readonly Image[], { size = 224, antialias = true }: HpsImageOptions = {}): HostTensor {
  if (!Number.isSafeInteger(size) || size < 1 || size > 1 << 15) throw new ConfigError("hpsImages", "size", "a whole number in 1 .. 32768", size);
  const plane = size * size;
  const out = new Float32Array(images.length * 3 * plane);
  for (const [b, image] of images.entries()) {
    const { width, height } = image;
    const long = Math.trunc((size * Math.max(width, height)) / Math.min(width, height));
    const [w, h] = width <= height ? [size, long] : [long, size];
    const scaled = resizeBicubic(floats(toRgb(image)), w, h, { antialias });
    const [left, top] = [halfEven(w - size), halfEven(h - size)];
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < size; y++)
        for (let x = 0; x < size; x++) out[(b * 3 + c) * plane + y * size + x] = (scaled.data[(c * h + top + y) * w + left + x]! - clipMean[c]!) / clipStd[c]!;
  }
  return hostTensor("f32", [images.length, 3, size, size], out);
}

/** [3, H, W] in [0, 1]. */
function floats({ width, height, data }: Image): FloatImage {
  const plane = width * height;
  const out = new Float32Array(3 * plane);
  for (let p = 0; p < plane; p++) for (let c = 0; c < 3; c++) out[c * plane + p] = data[3 * p + c]! / 255;
  return { width, height, channels: 3, data: out };
}

/** n / 2, a half to the even side: torchvision's centre. */
function halfEven(n: number): number {
  const half = n >> 1;
  return n % 2 === 1 && half % 2 === 1 ? half + 1 : half;
}
