/** Low-rank adaptation: W x becomes W x + scaling * B (A x) with A [rank, K] and B [N, rank] trained and W frozen. Hu et al. 2021, arXiv:2106.09685.
 *  The adapter owns A and B in a store of its own; the layers ask it whether it adapts them. Names, scaling and initial values follow peft.
 *  Of DoRA (Liu et al. 2024, arXiv:2402.09353), W becomes m (W + scaling B A) / |W + scaling B A|, norms taken over each row: what files hold is applied. */

import { ConfigError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { conv2d as conv2dOp } from "../graph/ops/conv.js";
import { add, cast, div, mul, scale, sqrt, square, sub } from "../graph/ops/elementwise.js";
import { linear as linearOp, matmul } from "../graph/ops/matmul.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape, stopGradient } from "../graph/ops/shape.js";
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
  /** Rank and alpha of the modules that have others than the above: files of several ranks. */
  readonly modules?: ReadonlyMap<string, { readonly rank: number; readonly alpha: number }>;
  /** Modules that have a magnitude (DoRA). Such an adapter is for generating. */
  readonly magnitudes?: ReadonlySet<string>;
}

/** What layers ask: one adapter, or several added up. */
export interface Adapter {
  readonly stores: readonly ParameterStore[];
  adapts(module: string): boolean;
  /** What is added to the layer's result on x; `weight` is the layer's own. */
  linear(x: Tensor, module: string, weight: Tensor): Tensor;
  conv2d(x: Tensor, module: string, weight: Tensor, options: ConvolutionShape): Tensor;
}

/** What the diffusers training examples and peft adapt in a UNet. */
export const attentionProjections = ["to_q", "to_k", "to_v", "to_out.0"] as const;

export class LoraAdapter implements Adapter {
  readonly rank: number;
  readonly alpha: number;
  readonly rankStabilized: boolean;
  readonly targets: readonly string[];
  readonly strength: number;
  readonly modules: NonNullable<LoraOptions["modules"]>;
  readonly magnitudes: ReadonlySet<string>;
  readonly stores: readonly ParameterStore[];

  /** `store` holds `<module>.lora.down.weight` (A) and `<module>.lora.up.weight` (B) of every module that a model builds under this adapter. */
  constructor(
    readonly store: ParameterStore,
    { rank, alpha = rank, rankStabilized = false, targets = attentionProjections, strength = 1, modules = new Map(), magnitudes = new Set() }: LoraOptions,
  ) {
    for (const each of [{ rank, alpha }, ...modules.values()]) {
      if (!Number.isSafeInteger(each.rank) || each.rank < 1) throw new ConfigError("lora", "rank", "a whole number >= 1", each.rank);
      if (!(each.alpha > 0 && each.alpha < Infinity)) throw new ConfigError("lora", "alpha", "a finite number > 0", each.alpha);
    }
    if (!Number.isFinite(strength)) throw new ConfigError("lora", "strength", "a finite number", strength);
    if (targets.length === 0) throw new ConfigError("lora", "targets", "at least one module name", targets);
    this.rank = rank;
    this.alpha = alpha;
    this.rankStabilized = rankStabilized;
    this.targets = targets;
    this.strength = strength;
    this.modules = modules;
    this.magnitudes = magnitudes;
    this.stores = [store];
  }

  /** The same adapter, on the same memory, at another strength. */
  withStrength(strength: number): LoraAdapter {
    const { rank, alpha, rankStabilized, targets, modules, magnitudes } = this;
    return new LoraAdapter(this.store, { rank, alpha, rankStabilized, targets, modules, magnitudes, strength });
  }

  /** The factor before B A, without the strength, of a module that has no rank of its own. */
  get scaling(): number {
    return this.#scalingOf(this);
  }

  /** Rank and alpha of one module. */
  sizeOf(module: string): { readonly rank: number; readonly alpha: number } {
    return this.modules.get(module) ?? this;
  }

  #scalingOf({ rank, alpha }: { readonly rank: number; readonly alpha: number }): number {
    return alpha / (this.rankStabilized ? Math.sqrt(rank) : rank);
  }

  #factor(module: string): number {
    return this.strength * this.#scalingOf(this.sizeOf(module));
  }

  /** Whether the layer of this name is adapted. */
  adapts(module: string): boolean {
    return this.targets.some(target => module === target || module.endsWith(`.${target}`));
  }

  /** strength * scaling * B (A x): x [.., K], weight [N, K] -> [.., N]. */
  linear(x: Tensor, module: string, weight: Tensor): Tensor {
    const [features = 0, inputs = 0] = weight.shape;
    const { rank } = this.sizeOf(module);
    const down = this.store.tensor(downName(module), [rank, inputs], { init: { bound: 1 / Math.sqrt(inputs) } });
    const up = this.store.tensor(upName(module), [features, rank], { init: { value: 0 } });
    if (this.#magnitude(module, features)) return linearOp(x, cast(this.weightChange(module, weight), x.dtype));
    return linearOp(scale(linearOp(x, down), this.#factor(module)), up); // the factor is applied where the tensor is narrowest
  }

  /** The same of a convolution: A has its kernel, stride and padding, B is 1 x 1. x [B, H, W, I] -> [B, H', W', channels]. */
  conv2d(x: Tensor, module: string, weight: Tensor, { stride, padding, dtype }: ConvolutionShape): Tensor {
    const [channels = 0, height = 0, width = 0, inputs = 0] = weight.shape;
    const { rank } = this.sizeOf(module);
    const init = { bound: 1 / Math.sqrt(inputs * height * width) };
    const down = this.store.tensor(downName(module), [rank, height, width, inputs], { layout: "oihw", init });
    const up = this.store.tensor(upName(module), [channels, 1, 1, rank], { layout: "oihw", init: { value: 0 } });
    if (this.#magnitude(module, channels)) return conv2dOp(x, cast(this.weightChange(module, weight), x.dtype), undefined, { stride, padding, dtype });
    return conv2dOp(scale(conv2dOp(x, down, undefined, { stride, padding }), this.#factor(module)), up, undefined, { dtype });
  }

  /** Declares m [N] of a module that has one. */
  #magnitude(module: string, features: number): boolean {
    if (!this.magnitudes.has(module)) return false;
    this.store.tensor(magnitudeName(module), [features], { init: { value: 1 } });
    return true;
  }

  /** W' - W, where W' is the weight with the adapter in it: shaped like `weight` [N, ..], of a module whose tensors are declared, in f32 or f64. */
  weightChange(module: string, weight: Tensor): Tensor {
    const dtype = wide(weight.dtype);
    const matrix = (name: string): Tensor => {
      const kept = cast(this.store.kept(name), dtype);
      return reshape(kept, [kept.shape[0]!, -1]);
    };
    const product = reshape(scale(matmul(matrix(upName(module)), matrix(downName(module))), this.#factor(module)), weight.shape);
    if (!this.magnitudes.has(module)) return product;
    const own = cast(weight, dtype);
    const moved = add(own, product);
    const norm = stopGradient(sqrt(sum(square(moved), [...weight.shape.keys()].slice(1)))); // [N, 1, ..]; a constant to the gradient: section 4.3 there
    const magnitude = reshape(cast(this.store.kept(magnitudeName(module)), dtype), norm.shape);
    return sub(mul(moved, div(magnitude, norm)), own);
  }
}

/** Several adapters at once: each adds its own to the layer's result. Of DoRA each change is that of the weight without the others. */
export class LoraStack implements Adapter {
  readonly stores: readonly ParameterStore[];

  constructor(readonly adapters: readonly LoraAdapter[]) {
    this.stores = adapters.flatMap(adapter => adapter.stores);
  }

  adapts(module: string): boolean {
    return this.adapters.some(adapter => adapter.adapts(module));
  }

  linear(x: Tensor, module: string, weight: Tensor): Tensor {
    return this.#total(module, adapter => adapter.linear(x, module, weight));
  }

  conv2d(x: Tensor, module: string, weight: Tensor, options: ConvolutionShape): Tensor {
    return this.#total(module, adapter => adapter.conv2d(x, module, weight, options));
  }

  #total(module: string, change: (adapter: LoraAdapter) => Tensor): Tensor {
    return this.adapters
      .filter(adapter => adapter.adapts(module))
      .map(change)
      .reduce((a, b) => add(a, b));
  }
}

export interface ConvolutionShape {
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

export function magnitudeName(module: string): string {
  return `${module}.lora_magnitude_vector`;
}
