/** Layers of a UNet as kernels: products, convolution, norms, attention, gates, resizing. */

import { attention as attentionOp } from "../graph/ops/attention.js";
import { conv2d as conv2dOp } from "../graph/ops/conv.js";
import { gelu, quickGelu, silu } from "../graph/ops/elementwise.js";
import { geglu as gegluOp } from "../graph/ops/gate.js";
import { linear as linearOp, matmul as matmulOp } from "../graph/ops/matmul.js";
import { groupNorm as groupNormOp, layerNorm as layerNormOp, softmax as softmaxOp } from "../graph/ops/norm.js";
import { avgPool2d as avgPool2dOp, upsampleNearest as upsampleNearestOp } from "../graph/ops/resample.js";
import type { Kernel } from "./kernel.js";

const optional = { optional: true } as const;
const map = { layout: "bchw" } as const;

/** x [.., K], weight [N, K], bias? [N] -> y [.., N] = x weight^T + bias. */
export const linear: Kernel<"x" | "weight" | "bias", "y"> = {
  name: "linear",
  inputs: { x: {}, weight: {}, bias: optional },
  outputs: { y: "plain" },
  build: ({ x, weight, bias }) => ({ y: linearOp(x, weight, bias) }),
};

/** a [.., m, k] b [.., k, n] -> y [.., m, n], either transposed where the option says so; the same leading axes on both. */
export const matmul: Kernel<"a" | "b", "y", { readonly transposeA?: boolean; readonly transposeB?: boolean }> = {
  name: "matmul",
  inputs: { a: {}, b: {} },
  outputs: { y: "plain" },
  build: ({ a, b }, options) => ({ y: matmulOp(a, b, options) }),
};

/** x [B, I, H, W], weight [O, I, kh, kw], bias? [O] -> y [B, O, H', W']. `padding`: one number, or [top, bottom, left, right]; 0 by default. */
export const conv2d: Kernel<"x" | "weight" | "bias", "y", { readonly stride?: number; readonly padding?: number | readonly number[] }> = {
  name: "conv2d",
  inputs: { x: map, weight: { layout: "oihw" }, bias: optional },
  outputs: { y: "bchw" },
  build: ({ x, weight, bias }, options) => ({ y: conv2dOp(x, weight, bias, options) }),
};

/** x [B, C, H, W], gamma [C], beta [C] -> y, normalised over groups of C / groups channels (Wu & He 2018, arXiv:1803.08494), then SiLU if `silu`. */
export const groupNorm: Kernel<"x" | "gamma" | "beta", "y", { readonly groups: number; readonly eps?: number; readonly silu?: boolean }> = {
  name: "groupNorm",
  inputs: { x: map, gamma: {}, beta: {} },
  outputs: { y: "bchw" },
  build: ({ x, gamma, beta }, { groups, eps = 1e-5, silu = false }) => ({ y: groupNormOp(x, gamma, beta, { groups, eps, silu }) }),
};

/** x [.., C], gamma [C], beta [C] -> y, normalised over the last axis. */
export const layerNorm: Kernel<"x" | "gamma" | "beta", "y", { readonly eps?: number }> = {
  name: "layerNorm",
  inputs: { x: {}, gamma: {}, beta: {} },
  outputs: { y: "plain" },
  build: ({ x, gamma, beta }, { eps = 1e-5 }) => ({ y: layerNormOp(x, gamma, beta, { eps }) }),
};

/** Over the last axis. */
export const softmax: Kernel<"x", "y"> = {
  name: "softmax",
  inputs: { x: {} },
  outputs: { y: "plain" },
  build: ({ x }) => ({ y: softmaxOp(x) }),
};

/** q [B, N, heads * d], k and v [B, M, heads * d], mask? [B, 1, 1, M] added to the logits -> y [B, N, heads * d]; no N x M matrix is ever stored
 *  (Dao et al. 2022, arXiv:2205.14135). `scale` is d^(-1/2) by default; causal: token i sees tokens up to i. */
export const attention: Kernel<"q" | "k" | "v" | "mask", "y", { readonly heads: number; readonly causal?: boolean; readonly scale?: number }> = {
  name: "attention",
  inputs: { q: {}, k: {}, v: {}, mask: { optional: true, frozen: true } },
  outputs: { y: "plain" },
  build: ({ q, k, v, mask }, options) => ({ y: attentionOp(q, k, v, options, mask) }),
};

/** x [.., 2D] -> y [.., D] = x[:D] * gelu(x[D:]). Shazeer 2020, arXiv:2002.05202. */
export const geglu: Kernel<"x", "y"> = {
  name: "geglu",
  inputs: { x: {} },
  outputs: { y: "plain" },
  build: ({ x }) => ({ y: gegluOp(x) }),
};

const activations = { silu, gelu, quickGelu } as const;

/** SiLU, exact GELU or CLIP's quick GELU of every element. */
export const activation: Kernel<"x", "y", { readonly kind: keyof typeof activations }> = {
  name: "activation",
  inputs: { x: {} },
  outputs: { y: "plain" },
  build: ({ x }, { kind }) => ({ y: activations[kind](x) }),
};

/** x [B, C, H, W] -> y [B, C, height, width] by repetition. */
export const upsampleNearest: Kernel<"x", "y", { readonly height: number; readonly width: number }> = {
  name: "upsampleNearest",
  inputs: { x: map },
  outputs: { y: "bchw" },
  build: ({ x }, size) => ({ y: upsampleNearestOp(x, size) }),
};

/** Means of kernel x kernel windows, `stride` apart (the kernel's size by default). */
export const avgPool2d: Kernel<"x", "y", { readonly kernel: number; readonly stride?: number }> = {
  name: "avgPool2d",
  inputs: { x: map },
  outputs: { y: "bchw" },
  build: ({ x }, options) => ({ y: avgPool2dOp(x, options) }),
};
