/** The gated activation of transformer feed-forward blocks. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { besideLastAxis, check, checkFloats, type NoAttrs, show, width } from "./check.js";
import { gelu, mul } from "./elementwise.js";
import { split } from "./shape.js";

/** x [.., 2D] -> [.., D]: the first half times gelu (exact) of the second. Shazeer 2020, arXiv:2002.05202. */
export function geglu(x: Tensor): Tensor {
  return gegluOp({}, x)[0];
}
const gegluOp = defineOp({
  name: "geglu",
  infer(_: NoAttrs, x: Tensor) {
    checkFloats("geglu", { x });
    check("geglu", width(x) % 2 === 0, `expected an even last axis, received ${show(x)}`);
    return [typed(x.dtype, ...x.shape.slice(0, -1), width(x) / 2)];
  },
  batchwise: (_, x) => besideLastAxis(x),
  vjp: ({ inputs: [x], grads: [dy] }) => [gegluVjpOp({}, dy, x)[0]],
  decompose(_, x) {
    const [value, gate] = split(x, 2, -1);
    return [mul(value!, gelu(gate!))];
  },
});

const gegluVjpOp = defineOp({
  name: "geglu_vjp",
  inplace: 1, // x, the widest activation of a transformer block
  infer: (_: NoAttrs, _dy: Tensor, x: Tensor) => [x],
});
