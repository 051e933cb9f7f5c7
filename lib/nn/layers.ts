/** Layers with parameters: the op, and the names and shapes of its weight and bias as every PyTorch checkpoint has them.
 *  Initial values are PyTorch's: uniform within 1 / sqrt(fan in) for weights and biases, 1 and 0 for norms. */

import { conv2d as conv2dOp } from "../graph/ops/conv.js";
import { add } from "../graph/ops/elementwise.js";
import { addLeading } from "../graph/ops/leading.js";
import { linear as linearOp } from "../graph/ops/matmul.js";
import { groupNorm as groupNormOp, layerNorm as layerNormOp } from "../graph/ops/norm.js";
import { slice } from "../graph/ops/shape.js";
import type { DType, Tensor } from "../graph/tensor.js";
import type { Adapter } from "./lora.js";
import type { Params } from "./params.js";

export interface LinearOptions {
  readonly features: number;
  readonly bias?: boolean;
  /** Added to the result, before what an adapter adds: product and residual can then be one kernel. */
  readonly residual?: Tensor;
}

export interface Conv2dOptions {
  readonly channels: number;
  readonly kernel?: number;
  readonly stride?: number;
  /** One number for all sides, or [top, bottom, left, right]; by default what keeps the size at stride 1. */
  readonly padding?: number | readonly [number, number, number, number];
  readonly bias?: boolean;
  /** Of the result, where it is not that of x: f32 from bf16. */
  readonly dtype?: DType;
}

/** x [.., K] -> [.., features]. Parameters: weight [features, K], bias [features]. */
export function linear(x: Tensor, p: Params, { features, bias = true, residual }: LinearOptions): Tensor {
  return p.scope(() => {
    const inputs = x.shape.at(-1)!;
    const init = { bound: 1 / Math.sqrt(inputs) };
    const weight = p.tensor("weight", [features, inputs], { init });
    const y = linearOp(x, weight, bias ? p.tensor("bias", [features], { init }) : undefined);
    return adapted(residual ? add(y, residual) : y, x, p, (adapter, rows) => adapter.linear(rows, p.prefix, weight));
  });
}

/** x [B, H, W, I] -> [B, H', W', channels]. Parameters: weight [channels, I, kernel, kernel] in checkpoints, bias [channels]. */
export function conv2d(x: Tensor, p: Params, options: Conv2dOptions): Tensor {
  const { channels, kernel = 3, stride = 1, padding = (kernel - 1) >> 1, bias = true, dtype = x.dtype } = options;
  return p.scope(() => {
    const inputs = x.shape.at(-1)!;
    const init = { bound: 1 / Math.sqrt(inputs * kernel * kernel) };
    const weight = p.tensor("weight", [channels, kernel, kernel, inputs], { layout: "oihw", init });
    const y = conv2dOp(x, weight, bias ? p.tensor("bias", [channels], { init }) : undefined, { stride, padding, dtype });
    return adapted(y, x, p, (adapter, rows) => adapter.conv2d(rows, p.prefix, weight, { stride, padding, dtype }));
  });
}

/** The layer's result y on x, plus what the adapter makes of x, or of the rows of x that it is for. */
function adapted(y: Tensor, x: Tensor, { adapter, prefix, share }: Params, delta: (adapter: Adapter, x: Tensor) => Tensor): Tensor {
  if (!adapter?.adapts(prefix)) return y;
  if (share === 1) return add(y, delta(adapter, x));
  return addLeading(y, delta(adapter, slice(x, { axis: 0, start: 0, length: share * x.shape[0]! })));
}

/** Group normalisation of x [B, H, W, C] or [B, N, C], then SiLU if `silu`. Parameters: weight [C], bias [C]. */
export function groupNorm(x: Tensor, p: Params, { groups, eps, silu = false }: { groups: number; eps: number; silu?: boolean }): Tensor {
  return p.scope(() => groupNormOp(x, ...scaleAndShift(x, p), { groups, eps, silu }));
}

/** Layer normalisation of x [.., C] over its last axis. Parameters: weight [C], bias [C]. */
export function layerNorm(x: Tensor, p: Params, { eps = 1e-5 }: { eps?: number } = {}): Tensor {
  return p.scope(() => layerNormOp(x, ...scaleAndShift(x, p), { eps }));
}

function scaleAndShift(x: Tensor, p: Params): [Tensor, Tensor] {
  const channels = x.shape.at(-1)!;
  return [p.tensor("weight", [channels], { init: { value: 1 } }), p.tensor("bias", [channels], { init: { value: 0 } })];
}
