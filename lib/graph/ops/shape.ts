/** Ops that move elements without changing them. Where the bytes already lie as wanted, the op is a view and launches nothing. */

import { defineOp } from "../op.js";
import { dtypeBytes, numel, sameShape, type Tensor } from "../tensor.js";
import { check, checkAxis, type NoAttrs, show } from "./check.js";

/** The same elements, row-major, under another shape; one dimension may be -1 and is then worked out. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const known = shape.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const target = shape.map(d => (d === -1 ? numel(x.shape) / known : d));
  return sameShape(x.shape, target) ? x : reshapeOp({ shape: target }, x)[0];
}
const reshapeOp = defineOp({
  name: "reshape",
  infer({ shape }: { shape: readonly number[] }, x: Tensor) {
    check("reshape", numel(shape) === numel(x.shape) && shape.every(Number.isInteger), `${show(x)} does not fill [${shape}]`);
    return [{ dtype: x.dtype, shape }];
  },
  view: () => 0,
  batchwise: ({ shape }, x) => (shape[0] === x.shape[0] ? [0] : undefined),
  vjp: ({ inputs: [x], grads: [dy] }) => [reshape(dy, x.shape)],
});

/** The widest load of a kernel, in bytes. A view that began between two such places could not be read by kernels that load whole vectors, so it is copied. */
const vectorBytes = 16;

/** Elements start .. start + length - 1 along `axis`; a view where all dimensions before the axis are 1 and its first byte is where a vector may begin. */
export function slice(x: Tensor, { axis, start, length }: { axis: number; start: number; length: number }): Tensor {
  const at = checkAxis("slice", x, axis);
  return start === 0 && length === x.shape[at] ? x : sliceOp({ axis: at, start, length }, x)[0];
}
const sliceOp = defineOp({
  name: "slice",
  infer({ axis, start, length }: { axis: number; start: number; length: number }, x: Tensor) {
    const end = x.shape[axis]!;
    const fits = Number.isInteger(start) && Number.isInteger(length) && start >= 0 && length >= 1 && start + length <= end;
    check("slice", fits, `expected ${start} .. ${start + length} within axis ${axis} of ${show(x)}`);
    return [{ dtype: x.dtype, shape: x.shape.with(axis, length) }];
  },
  view({ axis, start }, x) {
    const offset = start * numel(x.shape.slice(axis + 1)) * dtypeBytes[x.dtype];
    return numel(x.shape.slice(0, axis)) === 1 && offset % vectorBytes === 0 ? offset : undefined;
  },
  batchwise: ({ axis }, x) => unlessFirst(axis, [x]),
  leads: ({ axis, start }) => axis === 0 && start === 0,
  vjp: ({ attrs: { axis, start, length }, inputs: [x], grads: [dy] }) => [pad(dy, { axis, before: start, after: x.shape[axis]! - start - length })],
});

/** Consecutive slices along `axis`: `parts` equal ones, or one of each given length. */
export function split(x: Tensor, parts: number | readonly number[], axis: number): Tensor[] {
  const at = checkAxis("split", x, axis);
  const total = x.shape[at]!;
  const lengths = typeof parts === "number" ? Array.from({ length: parts }, () => total / parts) : parts;
  const fits = lengths.length >= 1 && lengths.every(n => Number.isInteger(n) && n >= 1) && lengths.reduce((a, b) => a + b, 0) === total;
  check("split", fits, `axis ${at} of ${show(x)} does not split into ${typeof parts === "number" ? `${parts} parts` : `[${parts}]`}`);
  let start = 0;
  return lengths.map(length => {
    const part = slice(x, { axis: at, start, length });
    start += length;
    return part;
  });
}

/** Zeros before and after x along `axis`: what slice undoes. */
export function pad(x: Tensor, { axis, before, after }: { axis: number; before: number; after: number }): Tensor {
  const at = checkAxis("pad", x, axis);
  return before === 0 && after === 0 ? x : padOp({ axis: at, before, after }, x)[0];
}
const padOp = defineOp({
  name: "pad",
  infer({ axis, before, after }: { axis: number; before: number; after: number }, x: Tensor) {
    const fits = Number.isInteger(before) && Number.isInteger(after) && before >= 0 && after >= 0;
    check("pad", fits, `expected counts of zeros before and after, received ${before} and ${after}`);
    return [{ dtype: x.dtype, shape: x.shape.with(axis, before + x.shape[axis]! + after) }];
  },
  batchwise: ({ axis }, x) => unlessFirst(axis, [x]),
  vjp: ({ attrs: { axis, before }, inputs: [x], grads: [dy] }) => [slice(dy, { axis, start: before, length: x.shape[axis]! })],
});

/** Tensors joined along `axis`; all other dimensions agree. */
export function concat(xs: readonly Tensor[], axis: number): Tensor {
  const first = xs[0];
  check("concat", first !== undefined, "expected at least one tensor, received none");
  return xs.length === 1 ? first : concatOp({ axis: checkAxis("concat", first, axis) }, ...xs)[0];
}
const concatOp = defineOp({
  name: "concat",
  infer({ axis }: { axis: number }, ...xs: Tensor[]) {
    const first = xs[0]!;
    for (const x of xs) {
      const fits = x.dtype === first.dtype && x.shape.length === first.shape.length && x.shape.every((n, i) => i === axis || n === first.shape[i]);
      check("concat", fits, `expected dtype and all axes but ${axis} as in ${show(first)}, received ${show(x)}`);
    }
    const total = xs.reduce((n, x) => n + x.shape[axis]!, 0);
    return [{ dtype: first.dtype, shape: first.shape.with(axis, total) }];
  },
  batchwise: ({ axis }, ...xs) => unlessFirst(axis, xs),
  vjp({ attrs: { axis }, inputs, grads: [dy] }) {
    const lengths = inputs.map(x => x.shape[axis]!);
    return split(dy, lengths, axis);
  },
});

/** Axes reordered: axis i of the result is axis permutation[i] of x. A view where only axes of length 1 move. */
export function transpose(x: Tensor, permutation: readonly number[]): Tensor {
  return permutation.every((from, to) => from === to) && permutation.length === x.shape.length ? x : transposeOp({ permutation }, x)[0];
}
const transposeOp = defineOp({
  name: "transpose",
  infer({ permutation }: { permutation: readonly number[] }, x: Tensor) {
    const sorted = permutation.toSorted((a, b) => a - b);
    const fits = sameShape(sorted, [...x.shape.keys()]);
    check("transpose", fits, `expected a permutation of the ${x.shape.length} axes of ${show(x)}, received [${permutation}]`);
    return [{ dtype: x.dtype, shape: permutation.map(axis => x.shape[axis]!) }];
  },
  view({ permutation }, x) {
    const moved = permutation.filter(axis => x.shape[axis] !== 1);
    return moved.every((axis, i) => i === 0 || axis > moved[i - 1]!) ? 0 : undefined;
  },
  batchwise: ({ permutation }) => (permutation[0] === 0 ? [0] : undefined),
  vjp({ attrs: { permutation }, grads: [dy] }) {
    const inverse = permutation.map((_, axis) => permutation.indexOf(axis));
    return [transpose(dy, inverse)];
  },
});

/** x, through which no gradient flows. */
export function stopGradient(x: Tensor): Tensor {
  return stopGradientOp({}, x)[0];
}
const stopGradientOp = defineOp({
  name: "stop_gradient",
  infer: (_: NoAttrs, x: Tensor) => [x],
  view: () => 0,
  batchwise: () => [0],
  vjp: () => [null],
});

function unlessFirst(axis: number, xs: readonly Tensor[]): readonly number[] | undefined {
  return axis === 0 ? undefined : [...xs.keys()];
}
