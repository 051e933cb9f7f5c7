/** Resizing of 8-bit pictures, every value as Pillow computes it (Resample.c): antialiased filters in two passes, rows first, the sums in fixed point with
 *  22 bits, each pass rounded to 8 bits. Reward models were made with these pictures, and other resizers move their scores in the third digit. */

import { ConfigError } from "../errors.js";
import type { Image } from "./image.js";

/** A filter is an even function that vanishes beyond its support, in pixels of the coarser of source and target. */
export interface ResampleFilter {
  readonly name: string;
  readonly support: number;
  weight(x: number): number;
}

export const bilinear: ResampleFilter = { name: "bilinear", support: 1, weight: x => Math.max(0, 1 - Math.abs(x)) };

/** Keys' cubic convolution (1981) with a = -1/2. */
export const bicubic: ResampleFilter = {
  name: "bicubic",
  support: 2,
  weight(x) {
    const a = -0.5;
    const d = Math.abs(x);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
  },
};

/** Lanczos with three lobes. */
export const lanczos: ResampleFilter = { name: "lanczos", support: 3, weight: x => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) };

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

const { imul } = Math; // 32-bit products stay out of floating point
/** A value of 8 bits times a coefficient, summed, must fit 32 bits with a sign: 22 are left. */
const precisionBits = 32 - 8 - 2;

/** `image` at width x height, each channel for itself: bring pictures with alpha to RGB first. It runs on this thread: 10 to 40 ms from a megapixel.
 *  An axis whose size stays is left alone. Throws ConfigError unless both sizes are whole numbers >= 1. */
export function resize(image: Image, width: number, height: number, filter: ResampleFilter): Image {
  for (const [option, value] of [
    ["width", width],
    ["height", height],
  ] as const)
    if (!Number.isSafeInteger(value) || value < 1 || value > 1 << 24) throw new ConfigError("resize", option, "a whole number in 1 .. 2^24", value);
  const wide = width === image.width ? image : alongRows(image, coefficients(image.width, width, filter));
  return height === image.height ? wide : alongColumns(wide, coefficients(image.height, height, filter));
}

/** Of each output: the first input, how many, and their weights in fixed point, which add up to 2^22 up to rounding. */
interface Coefficients {
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** Row i holds the weights of output i; rows have `stride` places. */
  readonly weights: Int32Array;
  readonly stride: number;
}

function coefficients(from: number, to: number, filter: ResampleFilter): Coefficients {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // antialiasing: the filter grows with the reduction
  const support = filter.support * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const [first, count, weights] = [new Int32Array(to), new Int32Array(to), new Int32Array(to * stride)];
  const row = new Float64Array(stride);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const n = Math.min(from, Math.trunc(center + support + 0.5)) - low;
    let sum = 0;
    for (let x = 0; x < n; x++) sum += row[x] = filter.weight((x + low - center + 0.5) * (1 / stretch));
    [first[i], count[i]] = [low, n];
    for (let x = 0; x < n; x++) weights[i * stride + x] = roundAway((sum === 0 ? row[x]! : row[x]! / sum) * 2 ** precisionBits);
  }
  return { first, count, weights, stride };
}

/** Half away from zero. */
function roundAway(x: number): number {
  return Math.trunc(x < 0 ? x - 0.5 : x + 0.5);
}

function alongRows({ width, height, channels, data }: Image, { first, count, weights, stride }: Coefficients): Image {
  const to = first.length;
  const out = new Uint8ClampedArray(to * height * channels);
  const half = 1 << (precisionBits - 1);
  for (let y = 0, o = 0; y < height; y++)
    for (let i = 0; i < to; i++, o += channels) {
      const start = (y * width + first[i]!) * channels;
      const end = i * stride + count[i]!;
      if (channels === 3) {
        let [r, g, b] = [half, half, half]; // together: each weight is read once
        for (let k = i * stride, at = start; k < end; k++, at += 3) {
          const weight = weights[k]!;
          r = (r + imul(data[at]!, weight)) | 0;
          g = (g + imul(data[at + 1]!, weight)) | 0;
          b = (b + imul(data[at + 2]!, weight)) | 0;
        }
        out[o] = r >> precisionBits;
        out[o + 1] = g >> precisionBits;
        out[o + 2] = b >> precisionBits;
        continue;
      }
      for (let c = 0; c < channels; c++) {
        let sum = half;
        for (let k = i * stride, at = start + c; k < end; k++, at += channels) sum = (sum + imul(data[at]!, weights[k]!)) | 0;
        out[o + c] = sum >> precisionBits;
      }
    }
  return { width: to, height, channels, data: new Uint8Array(out.buffer) };
}

function alongColumns({ width, channels, data }: Image, { first, count, weights, stride }: Coefficients): Image {
  const to = first.length;
  const rowSize = width * channels;
  const out = new Uint8ClampedArray(to * rowSize);
  const sums = new Int32Array(rowSize); // a row at once: the source is read in order
  for (let i = 0; i < to; i++) {
    sums.fill(1 << (precisionBits - 1));
    for (let k = 0; k < count[i]!; k++) {
      const weight = weights[i * stride + k]!;
      const from = (first[i]! + k) * rowSize;
      for (let x = 0; x < rowSize; x++) sums[x] = (sums[x]! + imul(data[from + x]!, weight)) | 0;
    }
    for (let x = 0; x < rowSize; x++) out[i * rowSize + x] = sums[x]! >> precisionBits;
  }
  return { width, height: to, channels, data: new Uint8Array(out.buffer) };
}
