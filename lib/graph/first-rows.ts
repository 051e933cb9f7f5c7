/** The first rows of a batch: what ops flagged `batchwise` (op.ts) compute alone. */

import { pad, slice } from "./ops/shape.js";
import type { Attrs, Node, Tensor } from "./tensor.js";

/** The first `rows` rows of x, or all of it if it has no more than that or `rows` is undefined. */
export function firstRows(x: Tensor, rows: number | undefined): Tensor {
  return rows === undefined || x.shape[0]! <= rows ? x : slice(x, { axis: 0, start: 0, length: rows });
}

/** x with zero rows after it, `rows` in all. */
export function padRows(x: Tensor, rows: number | undefined): Tensor {
  return rows === undefined || x.shape[0] === rows ? x : pad(x, { axis: 0, before: 0, after: rows - x.shape[0]! });
}

/** The attributes of a batchwise op over its first `rows` rows. */
export function attrsOfRows(attrs: Attrs, rows: number): Attrs {
  return Array.isArray(attrs.shape) ? { ...attrs, shape: attrs.shape.with(0, rows) } : attrs;
}

/** How many first rows of each tensor follow from `sources`, as far as ops tell: 0, a number of them, or Infinity for any row. */
export function rowsFrom(nodes: readonly Node[], sources: Iterable<Tensor>): (tensor: Tensor) => number {
  const touched = new Map<Tensor, number>();
  for (const source of sources) touched.set(source, Number.POSITIVE_INFINITY);
  const rowsOf = (tensor: Tensor | undefined): number => (tensor && touched.get(tensor)) ?? 0;
  for (const node of nodes) {
    const rows = rowsReached(node, node.inputs.map(rowsOf));
    if (rows > 0) for (const y of node.outputs) touched.set(y, rows < y.shape[0]! ? rows : Number.POSITIVE_INFINITY);
  }
  return rowsOf;
}

/** Given the touched rows of the inputs, those of the outputs. */
function rowsReached({ op, attrs, inputs, outputs }: Node, touched: readonly number[]): number {
  if (touched.every(rows => rows === 0)) return 0;
  if (op.name === "add_leading") return Math.max(touched[0]!, Math.min(touched[1]!, inputs[1]!.shape[0]!));
  if (op.name === "slice" && attrs.axis === 0) return Math.max(0, touched[0]! - Number(attrs.start));
  const along = op.batchwise?.(attrs, ...inputs);
  const ownRows = (i: number): boolean => along?.includes(i) === true && inputs[i]!.shape[0] === outputs[0]!.shape[0];
  return Math.max(...touched.map((rows, i) => (rows === 0 || ownRows(i) ? rows : Number.POSITIVE_INFINITY)));
}

/** The inputs of a node that share its rows (op.ts), where it is one whose outputs have more than `rows` of them. */
export function batchInputs({ op, attrs, inputs, outputs }: Node, rows: number): readonly number[] | undefined {
  const all = outputs[0]?.shape[0] ?? 0;
  return all > rows && outputs.every(y => y.shape[0] === all) ? op.batchwise?.(attrs, ...inputs) : undefined;
}
