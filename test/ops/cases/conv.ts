/** Convolutions. */

import { conv2d } from "../../../lib/graph/ops/conv.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import type { OpCase } from "../case.js";

interface Conv {
  readonly x: readonly [batch: number, height: number, width: number, channels: number];
  readonly weight: readonly [channels: number, height: number, width: number];
  readonly stride?: number;
  /** top, bottom, left, right */
  readonly padding?: number | readonly [number, number, number, number];
  readonly bias?: false;
}

const convs: readonly Conv[] = [
  { x: [1, 1, 1, 1], weight: [1, 1, 1] },
  { x: [2, 9, 7, 5], weight: [6, 3, 3], padding: 1 },
  { x: [1, 8, 8, 4], weight: [32, 3, 3], padding: 1 }, // conv_in
  { x: [1, 8, 8, 32], weight: [4, 3, 3], padding: 1 }, // conv_out
  { x: [3, 5, 11, 7], weight: [13, 1, 1] },
  { x: [1, 6, 6, 64], weight: [16, 1, 1], bias: false },
  { x: [2, 10, 8, 8], weight: [8, 3, 3], stride: 2, padding: 1 }, // the UNet's downsampler
  { x: [1, 9, 13, 6], weight: [6, 3, 3], stride: 2, padding: 1 },
  { x: [2, 8, 10, 8], weight: [8, 3, 3], stride: 2, padding: [0, 1, 0, 1] }, // the VAE's
  { x: [1, 11, 7, 3], weight: [5, 3, 3], stride: 2, padding: [0, 1, 0, 1], bias: false },
  { x: [2, 28, 28, 3], weight: [10, 14, 14], stride: 14, bias: false }, // patches of a ViT
  { x: [1, 3, 3, 33], weight: [31, 3, 3], padding: 1 },
  { x: [1, 1, 1, 16], weight: [16, 3, 3], padding: 1 }, // mostly padding
  { x: [1, 2, 9, 5], weight: [4, 5, 5], padding: 2 },
  { x: [1, 6, 7, 3], weight: [5, 2, 4], stride: 3, padding: [2, 0, 1, 3] },
  { x: [1, 5, 5, 2], weight: [3, 1, 1], stride: 2 },
  { x: [5, 6, 6, 1], weight: [1, 3, 3], padding: 1 },
  { x: [1, 7, 5, 40], weight: [48, 3, 3], padding: 1 },
  { x: [1, 5, 6, 64], weight: [16, 3, 3], padding: 1 }, // products of several blocks of the inner length
  { x: [2, 20, 21, 3], weight: [4, 3, 3], padding: 1 }, // and of the pixels
];

export const convCases = convs.map(({ x, weight: [channels, kh, kw], stride = 1, padding = 0, bias = true }): OpCase => {
  const sides = typeof padding === "number" ? ([padding, padding, padding, padding] as const) : padding;
  const weight = [channels, kh, kw, x[3]];
  return {
    name: `conv2d [${x}] with [${weight}] stride ${stride} padding [${sides}]${bias ? " and bias" : ""}`,
    inputs: [{ shape: x }, { shape: weight }, ...(bias ? [{ shape: [channels] }] : [])],
    build: ([map, w, b]) => [conv2d(map!, w!, b, { stride, padding })],
    reference: ([map, w, b]) => [convolved(map!, w!, b, stride, sides)],
    roundings: 16,
    terms: Math.max(kh * kw * x[3], x[0] * x[1] * x[2], channels * kh * kw) * 2,
  };
});

export function convolved(x: Nd, w: Nd, bias: Nd | undefined, stride: number, [top, bottom, left, right]: readonly [number, number, number, number]): Nd {
  const [batch = 0, height = 0, width = 0, inner = 0] = x.shape;
  const [outer = 0, kh = 0, kw = 0] = w.shape;
  const down = Math.floor((height + top + bottom - kh) / stride) + 1;
  const across = Math.floor((width + left + right - kw) / stride) + 1;
  const pixel = (b: number, y: number, c: number, i: number): number => (y >= 0 && y < height && c >= 0 && c < width ? get(x, b, y, c, i) : 0);
  return nd([batch, down, across, outer], (b, y, c, o) => {
    const products = total([kh, kw, inner], (ky, kx, i) => pixel(b, y * stride + ky - top, c * stride + kx - left, i) * get(w, o, ky, kx, i));
    return products + (bias ? bias.data[o]! : 0);
  });
}
