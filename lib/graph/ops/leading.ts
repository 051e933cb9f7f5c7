/** Work on the first rows of a batch: of two halves that share their weights, one carries an adapter. */

import { defineOp } from "../op.js";
import { sameShape, type Tensor } from "../tensor.js";
import { check, checkFloats, type NoAttrs, show } from "./check.js";
import { add } from "./elementwise.js";
import { concat, slice } from "./shape.js";

/** x [n, ..] with z [k, ..] added to its first k rows, k <= n. */
export function addLeading(x: Tensor, z: Tensor): Tensor {
  return addLeadingOp({}, x, z)[0];
}
const addLeadingOp = defineOp({
  name: "add_leading",
  fused: true,
  inplace: 0,
  infer(_: NoAttrs, x: Tensor, z: Tensor) {
    checkFloats("add_leading", { x, z });
    const fits = z.shape[0]! <= x.shape[0]! && sameShape(z.shape.slice(1), x.shape.slice(1));
    check("add_leading", fits, `expected at most as many rows of the same shape, received ${show(z)} for ${show(x)}`);
    return [x];
  },
  batchwise: () => [0, 1],
  vjp: ({ inputs: [, z], grads: [dy] }) => [dy, slice(dy, { axis: 0, start: 0, length: z.shape[0]! })],
  decompose(_, x, z) {
    const [rows, all] = [z.shape[0]!, x.shape[0]!];
    if (rows === all) return [add(x, z)];
    const rest = slice(x, { axis: 0, start: rows, length: all - rows });
    return [concat([add(slice(x, { axis: 0, start: 0, length: rows }), z), rest], 0)];
  },
});
