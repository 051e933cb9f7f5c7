/** Feature columns for trees: float32 values replaced by their rank among the column's distinct values. Trees see order alone, so ranks are all they need,
 *  and integers sort faster than floats. */

import { DataError } from "../../errors.js";
import type { Steps } from "./steps.js";

export interface RankedColumn {
  /** Index into `values`, one per row. */
  readonly ranks: Int32Array;
  /** Distinct values, ascending. */
  readonly values: Float32Array;
  /** Row numbers, ascending by value; equal values in row order. */
  readonly order: Int32Array;
}

/** Throws DataError for a value beyond float32: scikit-learn's and xgboost's trees see features in that precision, and so do ours. */
export function rankColumn(subject: string, column: Float64Array, name: number): RankedColumn {
  const floats = new Float32Array(column.length);
  for (let i = 0; i < column.length; i++) {
    floats[i] = column[i]! + 0; // -0 becomes 0: the bits are sorted below
    if (!Number.isFinite(floats[i]!))
      throw new DataError(subject, `expected a number within the range of float32, received ${column[i]}`, { row: i, column: String(name) });
  }
  const { keys, order } = radixOrder(floats);
  const ranks = new Int32Array(column.length),
    values = new Float32Array(column.length);
  let count = 0;
  for (let i = 0; i < order.length; i++) {
    if (i === 0 || keys[i] !== keys[i - 1]) values[count++] = floats[order[i]!]!;
    ranks[order[i]!] = count - 1;
  }
  return { ranks, values: values.slice(0, count), order };
}

/** Of every column, pausing between them. */
export function* rankColumns(subject: string, columns: readonly Float64Array[]): Steps<RankedColumn[]> {
  const ranked: RankedColumn[] = [];
  for (const [f, column] of columns.entries()) {
    yield;
    ranked.push(rankColumn(subject, column, f));
  }
  return ranked;
}

/** Stable ascending order of finite floats, and their sorted keys: three counting passes over 11, 11 and 10 bits. */
function radixOrder(floats: Float32Array): { readonly keys: Uint32Array; readonly order: Int32Array } {
  const n = floats.length,
    bits = new Uint32Array(floats.buffer, floats.byteOffset, n);
  let [keys, spareKeys] = [new Uint32Array(n), new Uint32Array(n)],
    [order, spareOrder] = [new Int32Array(n), new Int32Array(n)];
  for (let i = 0; i < n; i++) {
    keys[i] = bits[i]! & 0x80000000 ? ~bits[i]! : bits[i]! | 0x80000000; // the order of floats as the order of integers
    order[i] = i;
  }
  const starts = new Int32Array(2049);
  for (const shift of [0, 11, 22]) {
    starts.fill(0);
    for (let i = 0; i < n; i++) starts[((keys[i]! >>> shift) & 2047) + 1]!++;
    for (let b = 0; b < 2048; b++) starts[b + 1]! += starts[b]!;
    for (let i = 0; i < n; i++) {
      const key = keys[i]!,
        at = starts[(key >>> shift) & 2047]!++;
      spareKeys[at] = key;
      spareOrder[at] = order[i]!;
    }
    [keys, spareKeys, order, spareOrder] = [spareKeys, keys, spareOrder, order];
  }
  return { keys, order };
}
