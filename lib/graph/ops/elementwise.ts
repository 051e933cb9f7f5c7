/** Elementwise ops. Binary ones broadcast as numpy does and take plain numbers too; dtypes never mix silently, `cast` is explicit.
 *  All but `cast` can be fused into one expression tape. */

import { defineOp } from "../op.js";
import { type DType, numel, type Tensor } from "../tensor.js";
import { check, checkFloats, isFloat, type NoAttrs, show } from "./check.js";
import { full } from "./leaf.js";
import { sum, sumTo } from "./sum.js";

export type Operand = Tensor | number;

/** a + b; i32 too. */
export const add = binary("add", dy => [dy, dy]);
/** a - b; i32 too. */
export const sub = binary("sub", dy => [dy, neg(dy)]);
/** a * b; i32 too. */
export const mul = binary("mul", (dy, a, b) => [mul(dy, b), mul(dy, a)]);
/** a / b. */
export const div = binary("div", (dy, _a, b, y) => [div(dy, b), neg(div(mul(dy, y), b))]);
/** The larger one; the gradient is shared where they are equal. */
export const maximum = binary("maximum", (dy, a, b) => shareByOrder(dy, a, b));
/** The smaller one; the gradient is shared where they are equal. */
export const minimum = binary("minimum", (dy, a, b) => shareByOrder(dy, b, a));
/** 1 where a > b, else 0; no gradient flows. */
export const greater = binary("greater", () => [null, null]);

/** a where condition != 0, else b; no gradient flows to the condition. */
export function select(condition: Tensor, a: Operand, b: Operand): Tensor {
  return selectOp({}, condition, asTensor(a, condition), asTensor(b, condition))[0];
}
const selectOp = defineOp({
  name: "select",
  tape: "select",
  infer(_: NoAttrs, condition: Tensor, a: Tensor, b: Tensor) {
    checkFloats("select", { condition, a, b });
    const branches = broadcastShapes("select", a, b);
    return [{ dtype: a.dtype, shape: broadcastShapes("select", condition, { dtype: a.dtype, shape: branches }) }];
  },
  batchwise: (_, ...operands) => ofFullRank(operands),
  vjp: ({ inputs: [condition, a, b], grads: [dy] }) => [null, sumTo(select(condition, dy, 0), a.shape), sumTo(select(condition, 0, dy), b.shape)],
});

/** -x. */
export const neg = unary("neg", dy => neg(dy));
/** e^x. */
export const exp = unary("exp", (dy, _x, y) => mul(dy, y));
/** ln x, x > 0. */
export const log = unary("log", (dy, x) => div(dy, x));
/** ln(1 + x), x > -1, exact for small x. */
export const log1p = unary("log1p", (dy, x) => div(dy, shift(x, 1)));
/** x^(1/2), x >= 0; the gradient is infinite at 0. */
export const sqrt = unary("sqrt", (dy, _x, y) => div(scale(dy, 0.5), y));
/** x^(-1/2), x > 0. */
export const rsqrt = unary("rsqrt", (dy, x, y) => div(scale(mul(dy, y), -0.5), x));
/** x^2. */
export const square = unary("square", (dy, x) => mul(dy, scale(x, 2)));
/** |x|, with gradient 0 at 0. */
export const abs = unary("abs", (dy, x) => mul(dy, sub(greater(x, 0), greater(0, x))));
/** 1 / (1 + e^-x). The gradient keeps its relative accuracy where y saturates: 1 - y is formed as sigmoid(-x). */
export const sigmoid = unary("sigmoid", (dy, x, y) => mul(dy, mul(y, sigmoid(neg(x)))));
/** ln(1 + e^x) without overflow. */
export const softplus = unary(
  "softplus",
  (dy, x) => mul(dy, sigmoid(x)),
  x => add(maximum(x, 0), log1p(exp(neg(abs(x))))),
);
/** Hyperbolic tangent. */
export const tanh = unary("tanh", (dy, _x, y) => mul(dy, affine(square(y), { scale: -1, shift: 1 })));
/** max(x, 0), with gradient 0 at 0. */
export const relu = unary("relu", (dy, x) => select(greater(x, 0), dy, 0));
/** sin x, in radians. */
export const sin = unary("sin", (dy, x) => mul(dy, cos(x)));
/** cos x, in radians. */
export const cos = unary("cos", (dy, x) => neg(mul(dy, sin(x))));
/** 1 / x. */
export const reciprocal = unary("reciprocal", (dy, _x, y) => neg(mul(dy, square(y))));

/** x * sigmoid(x), also called swish: Elfwing et al. 2018, arXiv:1702.03118. */
export const silu = activation("silu", x => mul(x, sigmoid(x)));
/** x * Phi(x) with the exact normal distribution function (erf): Hendrycks & Gimpel 2016, arXiv:1606.08415. */
export const gelu = activation("gelu");
/** The tanh approximation of gelu: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))). */
export const geluTanh = activation("gelu_tanh", x => {
  const angle = scale(add(x, scale(mul(x, square(x)), 0.044715)), Math.sqrt(2 / Math.PI));
  return mul(scale(x, 0.5), shift(tanh(angle), 1));
});
/** x * sigmoid(1.702 x): the activation of CLIP's ViT-L/14 text encoder. */
export const quickGelu = activation("quick_gelu", x => mul(x, sigmoid(scale(x, 1.702))));

/** scale * x + shift. */
export function affine(x: Tensor, attrs: { scale: number; shift: number }): Tensor {
  return affineOp(attrs, x)[0];
}
const affineOp = defineOp({
  name: "affine",
  tape: "affine",
  inplace: 0,
  infer({ scale, shift }: { scale: number; shift: number }, x: Tensor) {
    checkFloats("affine", { x });
    check("affine", Number.isFinite(scale) && Number.isFinite(shift), `expected finite numbers, received scale ${scale} and shift ${shift}`);
    return [x];
  },
  batchwise: () => [0],
  vjp: ({ attrs, grads: [dy] }) => [scale(dy, attrs.scale)],
});

/** factor * x. */
export function scale(x: Tensor, factor: number): Tensor {
  return factor === 1 ? x : affine(x, { scale: factor, shift: 0 });
}

/** x + amount. */
export function shift(x: Tensor, amount: number): Tensor {
  return amount === 0 ? x : affine(x, { scale: 1, shift: amount });
}

/** x limited to [min, max]; the gradient is 0 outside. */
export function clamp(x: Tensor, attrs: { min: number; max: number }): Tensor {
  return clampOp(attrs, x)[0];
}
const clampOp = defineOp({
  name: "clamp",
  tape: "clamp",
  inplace: 0,
  infer({ min, max }: { min: number; max: number }, x: Tensor) {
    checkFloats("clamp", { x });
    check("clamp", Number.isFinite(min) && Number.isFinite(max) && min <= max, `expected finite min <= max, received ${min} and ${max}`);
    return [x];
  },
  batchwise: () => [0],
  vjp: ({ attrs: { min, max }, inputs: [x], grads: [dy] }) => [select(add(greater(x, max), greater(min, x)), 0, dy)],
});

/** x in another dtype, rounded to nearest even, also to i32. Gradients are cast back; none flows through i32. */
export function cast(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : castOp({ dtype }, x)[0];
}
const castOp = defineOp({
  name: "cast",
  infer: ({ dtype }: { dtype: DType }, x: Tensor) => [{ dtype, shape: x.shape }],
  batchwise: () => [0],
  vjp: ({ attrs: { dtype }, inputs: [x], grads: [dy] }) => [isFloat(dtype) && isFloat(x.dtype) ? cast(dy, x.dtype) : null],
});

/** Arithmetic mean over `axes`, which stay as length 1; without axes over everything -> [1]. */
export function mean(x: Tensor, axes?: readonly number[]): Tensor {
  const total = sum(x, axes);
  return scale(total, numel(total.shape) / numel(x.shape));
}

type Pair = readonly [Tensor | null, Tensor | null];

function binary(name: string, rule: (dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => Pair): (a: Operand, b: Operand) => Tensor {
  const integers = name === "add" || name === "sub" || name === "mul";
  const op = defineOp({
    name,
    tape: name,
    inplace: 0,
    infer(_: NoAttrs, a: Tensor, b: Tensor) {
      if (!(integers && a.dtype === "i32" && b.dtype === "i32")) checkFloats(name, { a, b });
      return [{ dtype: a.dtype, shape: broadcastShapes(name, a, b) }];
    },
    batchwise: (_, ...operands) => ofFullRank(operands),
    vjp({ inputs: [a, b], outputs: [y], grads: [dy] }) {
      const [da, db] = rule(dy, a, b, y);
      return [da && sumTo(da, a.shape), db && sumTo(db, b.shape)];
    },
  });
  return (a, b) => {
    const like = typeof a === "number" ? b : a;
    check(name, typeof like !== "number", `expected at least one tensor, received ${a} and ${b}`);
    return op({}, asTensor(a, like), asTensor(b, like))[0];
  };
}

function unary(name: string, rule: (dy: Tensor, x: Tensor, y: Tensor) => Tensor, decompose?: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  const op = defineOp({
    name,
    tape: name,
    inplace: 0,
    infer(_: NoAttrs, x: Tensor) {
      checkFloats(name, { x });
      return [x];
    },
    batchwise: () => [0],
    vjp: ({ inputs: [x], outputs: [y], grads: [dy] }) => [rule(dy, x, y)],
    ...(decompose && { decompose: (_: NoAttrs, x: Tensor) => [decompose(x)] as const }),
  });
  return x => op({}, x)[0];
}

/** A unary op whose gradient is an op of its own, `<name>_vjp`: dy, x -> dx. */
function activation(name: string, decompose?: (x: Tensor) => Tensor): (x: Tensor) => Tensor {
  const vjp = `${name}_vjp`;
  const gradient = defineOp({
    name: vjp,
    tape: vjp,
    inplace: 0,
    infer(_: NoAttrs, dy: Tensor, x: Tensor) {
      checkFloats(vjp, { dy, x });
      return [x];
    },
  });
  return unary(name, (dy, x) => gradient({}, dy, x)[0], decompose);
}

/** The part of dy where a > b, and the part where a < b; where they are equal each gets half. */
function shareByOrder(dy: Tensor, a: Tensor, b: Tensor): [Tensor, Tensor] {
  const share = affine(sub(greater(a, b), greater(b, a)), { scale: 0.5, shift: 0.5 });
  return [mul(dy, share), mul(dy, affine(share, { scale: -1, shift: 1 }))];
}

function asTensor(value: Operand, like: Tensor): Tensor {
  return typeof value === "number" ? full(value, [1], like.dtype) : value;
}

/** Operands with the axes of the result; others repeat along its first one. */
function ofFullRank(operands: readonly Tensor[]): number[] {
  const rank = Math.max(...operands.map(x => x.shape.length));
  return [...operands.keys()].filter(i => operands[i]!.shape.length === rank);
}

/** The numpy rule: shapes aligned at their ends, lengths equal or 1. */
function broadcastShapes(op: string, a: Pick<Tensor, "dtype" | "shape">, b: Pick<Tensor, "dtype" | "shape">): number[] {
  const rank = Math.max(a.shape.length, b.shape.length);
  return Array.from({ length: rank }, (_, i) => {
    const m = a.shape[i - rank + a.shape.length] ?? 1;
    const n = b.shape[i - rank + b.shape.length] ?? 1;
    check(op, m === n || m === 1 || n === 1, `${show(a)} and ${show(b)} do not broadcast`);
    return Math.max(m, n);
  });
}
