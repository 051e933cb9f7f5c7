/** Reductions. `sum` and `broadcast` stand in sum.ts, below the elementwise ops whose gradients need them. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { checkFloats, type NoAttrs, wide, width } from "./check.js";
import { affine, cast, div, greater, mul, scale } from "./elementwise.js";
import { reshape } from "./shape.js";
import { broadcast, reducedAxes, sum } from "./sum.js";

export { broadcast, sum, sumTo } from "./sum.js";

/** Largest element over `axes`, which stay as length 1. The gradient is shared equally between elements that tie. */
export function max(x: Tensor, axes: readonly number[]): Tensor {
  const over = reducedAxes("max", x, axes);
  return over.length === 0 ? x : maxOp({ axes: over }, x)[0];
}
const maxOp = defineOp({
  name: "max",
  infer({ axes }: { axes: readonly number[] }, x: Tensor) {
    checkFloats("max", { x });
    return [{ dtype: x.dtype, shape: x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n)) }];
  },
  batchwise: ({ axes }) => (axes.includes(0) ? undefined : [0]),
  vjp({ attrs: { axes }, inputs: [x], outputs: [y], grads: [dy] }) {
    const largest = affine(greater(y, x), { scale: -1, shift: 1 });
    return [mul(largest, div(dy, sum(largest, axes)))];
  },
});

/** x [.., C] summed over all axes but the last -> [C], in f32 from bf16: the gradient of a bias. */
export function sumRows(x: Tensor): Tensor {
  return sumRowsOp({}, x)[0];
}
const sumRowsOp = defineOp({
  name: "sum_rows",
  infer(_: NoAttrs, x: Tensor) {
    checkFloats("sum_rows", { x });
    return [typed(wide(x.dtype), width(x))];
  },
  vjp: ({ inputs: [x], grads: [dy] }) => [broadcast(cast(dy, x.dtype), x.shape)],
  decompose: (_, x) => [reshape(sum(cast(x, wide(x.dtype)), [...x.shape.keys()].slice(0, -1)), [width(x)])],
});

/** The squared norm of all of x -> f64 [1], in double and in a fixed order. */
export function sumSquares(x: Tensor): Tensor {
  return sumSquaresOp({}, x)[0];
}
const sumSquaresOp = defineOp({
  name: "sum_squares",
  infer(_: NoAttrs, x: Tensor) {
    checkFloats("sum_squares", { x });
    return [typed("f64", 1)];
  },
  vjp: ({ inputs: [x], grads: [dy] }) => [mul(scale(x, 2), cast(dy, x.dtype))],
});
