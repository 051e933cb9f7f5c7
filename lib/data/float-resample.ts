/** Bicubic resizing of float pictures as torch's `interpolate` does it, for scorers whose authors resized tensors rather than Pillow pictures: HPSv2. The two
 *  differ: nothing is rounded to 8 bits, and what overshoots black or white is kept. Source: pytorch `aten/src/ATen/native/UpSample.h`. */

import { ConfigError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";

/** One channel after another: [channels, height, width]. */
export interface FloatImage {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: Float32Array;
}

/** `antialias`: the filter grows with the reduction, and is Keys' with a = -1/2 (torchvision 0.17 on); without, four points with a = -3/4, however much is reduced. */
export function resizeBicubic(image: FloatImage, width: number, height: number, { antialias }: { readonly antialias: boolean }): FloatImage {
  for (const [option, value] of [
    ["width", width],
    ["height", height],
  ] as const)
    if (!Number.isSafeInteger(value) || value < 1 || value > 1 << 24) throw new ConfigError("resizeBicubic", option, "a whole number in 1 .. 2^24", value);
  const taps = (from: number, to: number): readonly Tap[] => (antialias ? antialiasedTaps(from, to) : plainTaps(from, to));
  const wide = width === image.width ? image : alongRows(image, taps(image.width, width));
  return height === image.height ? wide : alongColumns(wide, taps(image.height, height));
}

/** The same along one axis as a matrix [length, from], rows from `start` on of all `to`: what resizes, and crops, inside a graph. Throws ConfigError. */
export function resizeMatrix(
  from: number,
  to: number,
  { antialias, start = 0, length = to }: { readonly antialias: boolean; readonly start?: number; readonly length?: number },
): HostTensor {
  for (const [option, value, least] of [
    ["from", from, 1],
    ["to", to, 1],
    ["length", length, 1],
    ["start", start, 0],
  ] as const)
    if (!Number.isSafeInteger(value) || value < least || value > 1 << 15)
      throw new ConfigError("resizeMatrix", option, `a whole number in ${least} .. 32768`, value);
  if (start + length > to) throw new ConfigError("resizeMatrix", "start + length", `at most ${to}`, start + length);
  const matrix = new Float64Array(length * from);
  const taps = antialias ? antialiasedTaps(from, to) : plainTaps(from, to);
  for (let i = 0; i < length; i++) {
    const { at, weights } = taps[start + i]!;
    for (const [k, x] of at.entries()) matrix[i * from + x]! += weights[k]!;
  }
  return hostTensor("f64", [length, from], matrix);
}

/** What one output is made of: places, and their weights, which add up to 1. */
interface Tap {
  readonly at: readonly number[];
  readonly weights: readonly number[];
}

function keys(x: number, a: number): number {
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

function plainTaps(from: number, to: number): Tap[] {
  return Array.from({ length: to }, (_, i) => {
    const center = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(center) - 1;
    const places = [0, 1, 2, 3].map(k => first + k);
    return { at: places.map(x => Math.min(from - 1, Math.max(0, x))), weights: places.map(x => keys(x - center, -0.75)) };
  });
}

function antialiasedTaps(from: number, to: number): Tap[] {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - 2 * stretch + 0.5));
    const high = Math.min(from, Math.trunc(center + 2 * stretch + 0.5));
    const at = Array.from({ length: high - low }, (_, k) => low + k);
    const weights = at.map(x => keys((x - center + 0.5) / stretch, -0.5));
    const total = weights.reduce((a, b) => a + b, 0);
    return { at, weights: weights.map(w => w / total) };
  });
}

function alongRows({ width, height, channels, data }: FloatImage, taps: readonly Tap[]): FloatImage {
  const out = new Float32Array(channels * height * taps.length);
  for (let row = 0; row < channels * height; row++)
    for (const [i, { at, weights }] of taps.entries()) {
      let sum = 0;
      for (let k = 0; k < at.length; k++) sum += data[row * width + at[k]!]! * weights[k]!;
      out[row * taps.length + i] = sum;
    }
  return { width: taps.length, height, channels, data: out };
}

function alongColumns({ width, height, channels, data }: FloatImage, taps: readonly Tap[]): FloatImage {
  const out = new Float32Array(channels * taps.length * width);
  const sums = new Float64Array(width); // a row at once: the source is read in order
  for (let c = 0; c < channels; c++)
    for (const [i, { at, weights }] of taps.entries()) {
      sums.fill(0);
      for (const [k, y] of at.entries()) for (let x = 0; x < width; x++) sums[x]! += data[(c * height + y) * width + x]! * weights[k]!;
      out.set(sums, (c * taps.length + i) * width);
    }
  return { width, height: taps.length, channels, data: out };
}
