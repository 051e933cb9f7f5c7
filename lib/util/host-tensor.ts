/** Tensors outside the native world: a typed array with a shape. What users give and get, and what files hold. */

import { ConfigError, ShapeError } from "../errors.js";
import type { DType, Layout } from "../graph/tensor.js";
import { fromBf16, fromF16, toBf16, toF16 } from "./half.js";

export type HostDType = DType | "i64";

/** By dtype: f16 and bf16 are bit patterns in a Uint16Array, i64 is a BigInt64Array. */
export type TypedArray = Float64Array | Float32Array | Uint16Array | Int32Array | Uint8Array | BigInt64Array;

export interface HostTensor {
  readonly dtype: HostDType;
  /** Outside axis order: maps are [B, C, H, W], conv weights [O, I, kh, kw]. */
  readonly shape: readonly number[];
  /** Dense, row-major. */
  readonly data: TypedArray;
}

const arrays = { f64: Float64Array, f32: Float32Array, bf16: Uint16Array, f16: Uint16Array, i32: Int32Array, u8: Uint8Array, i64: BigInt64Array } as const;

export const hostDtypeBytes: { readonly [K in HostDType]: number } = { f64: 8, f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1, i64: 8 };

/** A tensor over `data`, which is kept, not copied; zeros without it. Plain numbers are converted.
 *  @throws ShapeError if data has another length, ConfigError if it is not the array type of the dtype. */
export function hostTensor(dtype: HostDType, shape: readonly number[], data?: TypedArray | readonly number[]): HostTensor {
  if (shape.some(n => !Number.isSafeInteger(n) || n < 0)) throw new ShapeError("hostTensor", `[${shape}] is not a shape`);
  const size = shape.reduce((n, d) => n * d, 1);
  if (data !== undefined && data.length !== size) throw new ShapeError("hostTensor", `[${shape}] needs ${size} values, received ${data.length}`);
  if (data === undefined) return { dtype, shape: [...shape], data: new arrays[dtype](size) };
  if (!ArrayBuffer.isView(data)) return convert({ dtype: "f64", shape: [...shape], data: Float64Array.from(data) }, dtype);
  if (kind(data) !== arrays[dtype].name) throw new ConfigError("hostTensor", `the data of ${dtype}`, `a ${arrays[dtype].name}`, kind(data));
  return { dtype, shape: [...shape], data };
}

/** A tensor over the bytes of a whole buffer, which is kept, not copied. */
export function hostTensorFromBytes(dtype: HostDType, shape: readonly number[], bytes: ArrayBuffer): HostTensor {
  return hostTensor(dtype, shape, new arrays[dtype](bytes));
}

/** Name of a view's class; not instanceof, which fails across vm contexts. */
function kind(view: ArrayBufferView): string {
  return Object.prototype.toString.call(view).slice(8, -1);
}

/** The same values in another dtype; the tensor itself if it has that dtype. Floats are rounded to nearest, ties to even; towards integers they are
 *  truncated like PyTorch's `.to()`.
 *  @throws ConfigError if a value does not fit an integer dtype (NaN, infinity, out of range). */
export function convert(host: HostTensor, dtype: HostDType): HostTensor {
  if (host.dtype === dtype) return host;
  const data = new arrays[dtype](host.data.length);
  if (isDirect(host.dtype) && isFloat(dtype) && !isHalf(dtype)) (data as Float64Array).set(host.data as Float64Array);
  else copyConverted(host, dtype, data);
  return { dtype, shape: host.shape, data };
}

/** Elements are JavaScript numbers with the tensor's values: neither bit patterns nor bigints. */
function isDirect(dtype: HostDType): boolean {
  return !isHalf(dtype) && dtype !== "i64";
}

function isHalf(dtype: HostDType): boolean {
  return dtype === "bf16" || dtype === "f16";
}

function isFloat(dtype: HostDType): boolean {
  return dtype === "f64" || dtype === "f32" || isHalf(dtype);
}

function copyConverted(host: HostTensor, dtype: HostDType, data: TypedArray): void {
  const from = host.data as Float64Array;
  const to = data as Float64Array;
  const read = readers[host.dtype];
  const write = isFloat(host.dtype) || host.dtype === "i64" || dtype === "u8" ? writers[dtype] : (exact[dtype] ?? writers[dtype]);
  for (let i = 0; i < from.length; i++) to[i] = write(read(from[i]!));
}

type Scalar = number; // a bigint where the array is a BigInt64Array: TypeScript has no name for "element of this array"

const identity = (x: Scalar): Scalar => x;
const readers: { readonly [K in HostDType]: (x: Scalar) => number } = {
  f64: identity,
  f32: identity,
  bf16: fromBf16,
  f16: fromF16,
  i32: identity,
  u8: identity,
  i64: Number,
};
const writers: { readonly [K in HostDType]: (x: number) => Scalar } = {
  f64: identity,
  f32: identity,
  bf16: toBf16,
  f16: toF16,
  i32: x => truncated(x, "i32", -(2 ** 31), 2 ** 31 - 1),
  u8: x => truncated(x, "u8", 0, 255),
  i64: x => BigInt(truncated(x, "i64", -(2 ** 63), 2 ** 63 - 1024)) as unknown as number,
};
/** From i32 or u8, where nothing can be lost. */
const exact: { readonly [K in HostDType]?: (x: number) => Scalar } = { i32: identity, i64: x => BigInt(x) as unknown as number };

function truncated(x: number, dtype: HostDType, low: number, high: number): number {
  const n = Math.trunc(x);
  if (!(n >= low && n <= high)) throw new ConfigError("convert", "every value", `one that fits ${dtype}`, x);
  return n + 0; // -0 is no integer
}

/** The shape inside of a tensor that has `shape` outside. */
export function insideShape(shape: readonly number[], layout: Layout): number[] {
  return layout === "plain" ? [...shape] : rotate(shape, layout, [0, 2, 3, 1]);
}

/** The shape outside of a tensor that has `shape` inside. */
export function outsideShape(shape: readonly number[], layout: Layout): number[] {
  return layout === "plain" ? [...shape] : rotate(shape, layout, [0, 3, 1, 2]);
}

function rotate(shape: readonly number[], layout: Layout, order: readonly number[]): number[] {
  if (shape.length !== 4) throw new ShapeError("layout", `"${layout}" is for four axes, received [${shape}]`);
  return order.map(axis => shape[axis]!);
}

/** From outside to inside: "bchw" [B, C, H, W] -> [B, H, W, C], "oihw" [O, I, kh, kw] -> [O, kh, kw, I], "plain" as it is. */
export function toInside(host: HostTensor, layout: Layout): HostTensor {
  if (layout === "plain") return host;
  const shape = insideShape(host.shape, layout);
  const [outer, rows, height, width] = host.shape as [number, number, number, number];
  return { dtype: host.dtype, shape, data: transposed(host, outer, rows, height * width) };
}

/** From inside to outside, the inverse of toInside. */
export function toOutside(host: HostTensor, layout: Layout): HostTensor {
  if (layout === "plain") return host;
  const shape = outsideShape(host.shape, layout);
  const [outer, height, width, columns] = host.shape as [number, number, number, number];
  return { dtype: host.dtype, shape, data: transposed(host, outer, height * width, columns) };
}

/** [outer, rows, columns] -> [outer, columns, rows]. The same array if that moves nothing. Blocks keep both sides in cache. */
function transposed({ dtype, data }: HostTensor, outer: number, rows: number, columns: number): TypedArray {
  if (rows === 1 || columns === 1) return data;
  const block = 32;
  const from = data as Float32Array;
  const to = new arrays[dtype](data.length) as Float32Array;
  for (let start = 0; start < outer * rows * columns; start += rows * columns)
    for (let r0 = 0; r0 < rows; r0 += block)
      for (let c0 = 0; c0 < columns; c0 += block)
        for (let r = r0; r < Math.min(r0 + block, rows); r++)
          for (let c = c0; c < Math.min(c0 + block, columns); c++) to[start + c * rows + r] = from[start + r * columns + c]!;
  return to;
}
