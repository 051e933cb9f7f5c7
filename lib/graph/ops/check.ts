/** What op entries check before they infer, so that every message names what came and what was expected. */

import { ShapeError } from "../../errors.js";
import { currentGraph, type DType, numel, type TensorType } from "../tensor.js";

/** Attributes of an op that has none. */
export type NoAttrs = Record<never, never>;

export function isFloat(dtype: DType): boolean {
  return dtype === "f64" || dtype === "f32" || dtype === "bf16" || dtype === "f16";
}

/** What sums over tensors of this dtype are kept in: statistics, logits, gradients of parameters. f32 for bf16 and f16, else the dtype itself. */
export function wide(dtype: DType): DType {
  return dtype === "bf16" || dtype === "f16" ? "f32" : dtype;
}

/** "f32 [2,3]", as messages show a tensor. */
export function show(x: TensorType): string {
  return `${x.dtype} [${x.shape}]`;
}

/** Throws a ShapeError that names the op and its place in the model, unless `fits`. */
export function check(op: string, fits: boolean, detail: string): asserts fits {
  if (!fits) throw new ShapeError(op, detail, currentGraph().label || undefined);
}

/** Every given tensor is floating point, and all have one dtype. */
export function checkFloats(op: string, tensors: { readonly [name: string]: TensorType | undefined }): void {
  let first: readonly [string, TensorType] | undefined;
  for (const [name, x] of Object.entries(tensors)) {
    if (!x) continue;
    check(op, isFloat(x.dtype), `expected ${name} in floating point, received ${show(x)}`);
    first ??= [name, x];
    check(op, x.dtype === first[1].dtype, `expected one dtype, received ${first[0]} ${show(first[1])} and ${name} ${show(x)}; cast one of them`);
  }
}

/** As checkFloats, but vectors of parameters (bias, gamma, beta) may be f32 beside a bf16 x: there are few of them, and they are added in f32 anyway. */
export function checkBesideVectors(op: string, { x }: { readonly x: TensorType }, vectors: { readonly [name: string]: TensorType | undefined }): void {
  checkFloats(op, { x });
  for (const [name, v] of Object.entries(vectors)) if (v && v.dtype !== wide(x.dtype)) checkFloats(op, { x, [name]: v });
}

/** The dtype of a product of tensors like `x`: theirs, or the wider one in which it is summed. */
export function productType(op: string, x: TensorType, dtype: DType = x.dtype): DType {
  const fits = dtype === x.dtype || dtype === wide(x.dtype);
  check(op, fits, `expected a result in ${[...new Set([x.dtype, wide(x.dtype)])].join(" or ")} from operands in ${x.dtype}, received ${dtype}`);
  return dtype;
}

/** `x` has exactly this shape; null stands for any length. */
export function checkShape(op: string, name: string, x: TensorType, expected: readonly (number | null)[]): void {
  const fits = x.shape.length === expected.length && expected.every((n, i) => n === null || n === x.shape[i]);
  check(op, fits, `expected ${name} [${expected.map(n => n ?? "any").join(",")}], received ${show(x)}`);
}

/** `axis` counted from the front; -1 is the last one. */
export function checkAxis(op: string, x: TensorType, axis: number): number {
  const rank = x.shape.length;
  check(op, Number.isInteger(axis) && axis >= -rank && axis < rank, `expected an axis in [${-rank}, ${rank}), received ${axis} for ${show(x)}`);
  return axis < 0 ? axis + rank : axis;
}

/** A positive integer, such as a stride. */
export function checkCount(op: string, name: string, value: number): void {
  check(op, Number.isSafeInteger(value) && value >= 1, `expected ${name} to be a positive integer, received ${value}`);
}

/** For ops that mix the last axis of input 0: its rows are independent if there is another axis. */
export function besideLastAxis(x: TensorType): readonly number[] | undefined {
  return x.shape.length > 1 ? [0] : undefined;
}

/** The last dimension. */
export function width(x: TensorType): number {
  return x.shape.at(-1) ?? 1;
}

/** Product of all dimensions but the last: rows of the token matrix that x is. */
export function rows(x: TensorType): number {
  return numel(x.shape.slice(0, -1));
}
