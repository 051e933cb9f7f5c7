/** What a kernel of the public API is: named operands with a layout, and a function that builds its graph. Its gradient follows from the ops' own rules. */

import type { DType, Layout, Tensor } from "../graph/tensor.js";

/** An operand as callers see it: maps "bchw" are [B, C, H, W], conv weights "oihw" [O, I, kh, kw], all else "plain". */
export interface Operand {
  readonly layout?: Layout;
  readonly optional?: true;
  /** No gradient flows to it. */
  readonly frozen?: true;
}

// biome-ignore lint/complexity/noBannedTypes: options of a kernel that has none
export interface Kernel<In extends string = string, Out extends string = string, Options extends object = {}> {
  readonly name: string;
  readonly inputs: { readonly [K in In]: Operand };
  readonly outputs: { readonly [K in Out]: Layout };
  /** Inputs that the kernel overwrites; they must be tensors on the device. */
  readonly writes?: readonly In[];
  /** Per-call numbers by slot name: they are no part of the compiled program. */
  scalars?(options: Options): Readonly<Record<string, number>>;
  /** What of the options the program depends on; everything if not given. */
  shapeOf?(options: Options): unknown;
  build(x: { readonly [K in In]: Tensor }, options: Options): { readonly [K in Out]: Tensor };
}

/** Floating-point dtypes that kernels compute in. */
export type Float = "f64" | "f32" | "bf16";

export function isFloatDtype(dtype: DType): boolean {
  return dtype === "f64" || dtype === "f32" || dtype === "bf16" || dtype === "f16";
}
