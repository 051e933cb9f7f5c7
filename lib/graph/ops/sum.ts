/** Sum and broadcast: each is the other's gradient. */

import { defineOp } from "../op.js";
import { sameShape, type Tensor } from "../tensor.js";
import { check, checkAxis, checkFloats, show } from "./check.js";
import { reshape } from "./shape.js";

/** Sum over `axes`, which stay as length 1; without axes over everything -> [1]. Accumulated in double in a fixed order, rounded once. */
export function sum(x: Tensor, axes?: readonly number[]): Tensor {
  if (!axes) return reshape(sum(x, [...x.shape.keys()]), [1]);
  const over = reducedAxes("sum", x, axes);
  return over.length === 0 ? x : sumOp({ axes: over }, x)[0];
}
const sumOp = defineOp({
  name: "sum",
  infer({ axes }: { axes: readonly number[] }, x: Tensor) {
    checkFloats("sum", { x });
    return [{ dtype: x.dtype, shape: x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n)) }];
  },
  batchwise: ({ axes }) => (axes.includes(0) ? undefined : [0]),
  vjp: ({ inputs: [x], grads: [dy] }) => [broadcast(dy, x.shape)],
});

/** x repeated along its axes of length 1 (and along axes that it lacks in front) to `shape`. */
export function broadcast(x: Tensor, shape: readonly number[]): Tensor {
  const missing = shape.length - x.shape.length;
  const aligned = missing > 0 ? reshape(x, [...Array<number>(missing).fill(1), ...x.shape]) : x;
  return sameShape(aligned.shape, shape) ? aligned : broadcastOp({ shape }, aligned)[0];
}
const broadcastOp = defineOp({
  name: "broadcast",
  infer({ shape }: { shape: readonly number[] }, x: Tensor) {
    const fits = x.shape.length === shape.length && x.shape.every((n, axis) => n === shape[axis] || n === 1);
    check("broadcast", fits, `${show(x)} does not broadcast to [${shape}]`);
    return [{ dtype: x.dtype, shape }];
  },
  batchwise: () => [0],
  vjp: ({ inputs: [x], grads: [dy] }) => [sumTo(dy, x.shape)],
});

/** x summed down to `shape`: the gradient of broadcasting `shape` to x's. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const missing = x.shape.length - shape.length;
  const fits = missing >= 0 && shape.every((n, axis) => n === 1 || n === x.shape[axis + missing]);
  check("sumTo", fits, `[${shape}] does not broadcast to ${show(x)}`);
  const axes = [...x.shape.keys()].filter(axis => x.shape[axis] !== (axis < missing ? 1 : shape[axis - missing]));
  return reshape(sum(x, axes), shape);
}

/** Axes counted from the front, in order, without those of length 1: there is nothing to reduce. */
export function reducedAxes(op: string, x: Tensor, axes: readonly number[]): number[] {
  const over = new Set(axes.map(axis => checkAxis(op, x, axis)));
  check(op, over.size === axes.length, `expected each axis once, received [${axes}]`);
  return [...over].filter(axis => x.shape[axis] !== 1).sort((a, b) => a - b);
}
