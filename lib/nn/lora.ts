/** Low-rank adaptation: W x becomes W x + scaling * B (A x) with A [rank, K] and B [N, rank] trained and W frozen. Hu et al. 2021, arXiv:2106.09685.
 *  The adapter owns A and B in a store of its own; the layers ask it whether it adapts them. Names, scaling and initial values follow peft. */

import { ConfigError } from "../errors.js";
import { conv2d as conv2dOp } from "../graph/ops/conv.js";
import { scale } from "../graph/ops/elementwise.js";
import { linear as linearOp } from "../graph/ops/matmul.js";
import type { DType, Tensor } from "../graph/tensor.js";
import type { ParameterStore } from "./params.js";

export interface LoraOptions {
  /** r > 0, the width of the bottleneck. */
  readonly rank: number;
  /** Numerator of the scaling alpha / rank; the rank by default, so that the scaling is 1. */
  readonly alpha?: number;
  /** Scaling alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732), which keeps large ranks from learning slower. */
  readonly rankStabilized?: boolean;
  /** Modules whose name is one of these or ends with "." and one of these. By default the four projections of every attention. */
  readonly targets?: readonly string[];
  /** Strength at which the adapter is applied, on top of the scaling: 1 in training, any number when generating. */
  readonly strength?: number;
}

/** What the diffusers training examples and peft adapt in a UNet. */
export const attentionProjections = ["to_q", "to_k", "to_v", "to_out.0"] as const;

export class LoraAdapter {
  readonly rank: number;
  readonly alpha: number;
  readonly rankStabilized: boolean;
  readonly targets: readonly string[];
  readonly strength: number;

  /** `store` holds `<module>.lora.down.weight` (A) and `<module>.lora.up.weight` (B) of every module that a model builds under this adapter. */
  constructor(
    readonly store: ParameterStore,
    { rank, alpha = rank, rankStabilized = false, targets = attentionProjections, strength = 1 }: LoraOptions,
  ) {
    if (!Number.isSafeInteger(rank) || rank < 1) throw new ConfigError("lora", "rank", "a whole number >= 1", rank);
    if (!(alpha > 0 && alpha < Infinity)) throw new ConfigError("lora", "alpha", "a finite number > 0", alpha);
    if (!Number.isFinite(strength)) throw new ConfigError("lora", "strength", "a finite number", strength);
    if (targets.length === 0) throw new ConfigError("lora", "targets", "at least one module name", targets);
    this.rank = rank;
    this.alpha = alpha;
    this.rankStabilized = rankStabilized;
    this.targets = targets;
    this.strength = strength;
  }

  /** The factor before B A, without the strength. */
  get scaling(): number {
    return this.alpha / (this.rankStabilized ? Math.sqrt(this.rank) : this.rank);
  }

  /** Whether the layer of this name is adapted. */
  adapts(module: string): boolean {
    return this.targets.some(target => module === target || module.endsWith(`.${target}`));
  }

  /** strength * scaling * B (A x): x [.., K] -> [.., features]. */
  linear(x: Tensor, module: string, features: number): Tensor {
    const inputs = x.shape.at(-1)!;
    const down = this.store.tensor(downName(module), [this.rank, inputs], { init: { bound: 1 / Math.sqrt(inputs) } });
    const up = this.store.tensor(upName(module), [features, this.rank], { init: { value: 0 } });
    return linearOp(this.#scaled(linearOp(x, down)), up);
  }

  /** The same of a convolution: A has its kernel, stride and padding, B is 1 x 1. x [B, H, W, I] -> [B, H', W', channels]. */
  conv2d(x: Tensor, module: string, options: ConvolutionShape): Tensor {
    const { channels, kernel, stride, padding, dtype } = options;
    const inputs = x.shape.at(-1)!;
    const init = { bound: 1 / Math.sqrt(inputs * kernel * kernel) };
    const down = this.store.tensor(downName(module), [this.rank, kernel, kernel, inputs], { layout: "oihw", init });
    const up = this.store.tensor(upName(module), [channels, 1, 1, this.rank], { layout: "oihw", init: { value: 0 } });
    return conv2dOp(this.#scaled(conv2dOp(x, down, undefined, { stride, padding })), up, undefined, { dtype });
  }

  /** The factor is applied where the tensor is narrowest. */
  #scaled(x: Tensor): Tensor {
    const factor = this.strength * this.scaling;
    return factor === 1 ? x : scale(x, factor);
  }
}

export interface ConvolutionShape {
  readonly channels: number;
  readonly kernel: number;
  readonly stride: number;
  readonly padding: number | readonly [number, number, number, number];
  /** Of the result. */
  readonly dtype: DType;
}

export function downName(module: string): string {
  return `${module}.lora.down.weight`;
}

export function upName(module: string): string {
  return `${module}.lora.up.weight`;
}
