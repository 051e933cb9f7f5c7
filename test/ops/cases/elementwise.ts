/** Elementwise ops: every unary function, broadcasting of the binary ones, i32, numbers as operands. */

import * as ops from "../../../lib/graph/ops/elementwise.js";
import type { Tensor } from "../../../lib/graph/tensor.js";
import { get, map, type Nd, nd } from "../../support/nd.js";
import type { Rng } from "../../support/rng.js";
import { awayFromZero, below, bit, type CaseInput, distinct, normal, type OpCase, oddShapes, positive, wide } from "../case.js";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const gelu = (x: number): number => (x / 2) * (1 + erf(x / Math.SQRT2));
const geluTanh = (x: number): number => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

type Unary = readonly [op: (x: Tensor) => Tensor, reference: (x: number) => number, values?: NonNullable<CaseInput["values"]>];

const unary: Readonly<Record<string, Unary>> = {
  neg: [ops.neg, x => -x],
  exp: [ops.exp, Math.exp],
  log: [ops.log, Math.log, positive],
  log1p: [ops.log1p, Math.log1p, positive],
  sqrt: [ops.sqrt, Math.sqrt, positive],
  rsqrt: [ops.rsqrt, x => 1 / Math.sqrt(x), positive],
  square: [ops.square, x => x * x],
  abs: [ops.abs, Math.abs, awayFromZero],
  sigmoid: [ops.sigmoid, sigmoid, wide],
  softplus: [ops.softplus, x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), wide],
  tanh: [ops.tanh, Math.tanh],
  relu: [ops.relu, x => Math.max(x, 0), awayFromZero],
  silu: [ops.silu, x => x * sigmoid(x), wide],
  gelu: [ops.gelu, gelu, wide],
  gelu_tanh: [ops.geluTanh, geluTanh, wide],
  quick_gelu: [ops.quickGelu, x => x * sigmoid(1.702 * x), wide],
  sin: [ops.sin, Math.sin, wide],
  cos: [ops.cos, Math.cos, wide],
  reciprocal: [ops.reciprocal, x => 1 / x, awayFromZero],
  affine: [x => ops.affine(x, { scale: -1.5, shift: 0.25 }), x => -1.5 * x + 0.25],
  clamp: [x => ops.clamp(x, { min: -1.2, max: 1.8 }), x => Math.min(1.8, Math.max(-1.2, x)), awayFromEdges],
  "sub from a number": [x => ops.sub(1, x), x => 1 - x],
  "div of a number": [x => ops.div(2, x), x => 2 / x, awayFromZero],
};

const unaryCases = Object.entries(unary).flatMap(([name, [op, reference, values = normal]]) =>
  oddShapes.map(
    (shape): OpCase => ({
      name: `${name} [${shape}]`,
      inputs: [{ shape, values }],
      build: ([x]) => [op(x!)],
      reference: ([x]) => [map(x!, reference)],
    }),
  ),
);

/** Shapes of a and b: equal, broadcast from either side or both, ranks that differ, a scalar, rows and columns of vector tails. */
const pairs: readonly (readonly [readonly number[], readonly number[]])[] = [
  [
    [2, 5, 7],
    [2, 5, 7],
  ],
  [[2, 5, 7], [7]],
  [
    [5, 1],
    [2, 5, 33],
  ],
  [
    [3, 1, 4],
    [1, 6, 1],
  ],
  [[2, 3, 4, 5], [1]],
  [[1], [19]],
  [
    [2, 1, 1, 40],
    [2, 5, 3, 40],
  ],
  [[1, 1], [1]],
];

interface Binary {
  readonly op: (a: Tensor, b: Tensor) => Tensor;
  readonly of: (a: number, b: number) => number;
  readonly a?: NonNullable<CaseInput["values"]>;
  readonly b?: NonNullable<CaseInput["values"]>;
  readonly frozen?: true;
}

// Operands of a maximum a quarter or more apart: a difference step must not change which one it is.
const halves = (random: Rng): number => Math.round(4 * random.normal()) / 2;
const quarters = (random: Rng): number => halves(random) + 0.25;

const binary: Readonly<Record<string, Binary>> = {
  add: { op: ops.add, of: (a, b) => a + b },
  sub: { op: ops.sub, of: (a, b) => a - b },
  mul: { op: ops.mul, of: (a, b) => a * b },
  div: { op: ops.div, of: (a, b) => a / b, b: awayFromZero },
  maximum: { op: ops.maximum, of: Math.max, a: halves, b: quarters },
  minimum: { op: ops.minimum, of: Math.min, a: halves, b: quarters },
  greater: { op: ops.greater, of: (a, b) => Number(a > b), a: halves, b: halves, frozen: true },
};

const binaryCases = Object.entries(binary).flatMap(([name, { op, of, frozen, ...values }]) =>
  pairs.map(
    ([a, b]): OpCase => ({
      name: `${name} [${a}] with [${b}]`,
      inputs: [
        { shape: a, values: values.a ?? normal, ...(frozen && { frozen }) },
        { shape: b, values: values.b ?? normal, ...(frozen && { frozen }) },
      ],
      build: ([x, y]) => [op(x!, y!)],
      reference: ([x, y]) => [broadcast(x!, y!, of)],
      roundings: 8, // sums of gradients over broadcast axes cancel
      terms: 120,
    }),
  ),
);

const integerCases = (["add", "sub", "mul"] as const).map(
  (name): OpCase => ({
    name: `${name} i32`,
    inputs: [
      { shape: [3, 5], dtype: "i32", values: below(1000), frozen: true },
      { shape: [5], dtype: "i32", values: below(1000), frozen: true },
    ],
    build: ([a, b]) => [binary[name]!.op(a!, b!)],
    reference: ([a, b]) => [broadcast(a!, b!, binary[name]!.of)],
  }),
);

const others: readonly OpCase[] = [
  {
    name: "maximum where equal",
    inputs: [{ shape: [40], values: distinct(40), frozen: true }],
    build: ([x]) => [ops.maximum(x!, x!)],
    reference: ([x]) => [x!],
  },
  {
    name: "select of broadcast branches",
    inputs: [{ shape: [2, 3, 7], values: bit, frozen: true }, { shape: [3, 1] }, { shape: [7] }],
    build: ([c, a, b]) => [ops.select(c!, a!, b!)],
    reference: ([c, a, b]) => [nd([2, 3, 7], (...i) => (get(c!, ...i) !== 0 ? get(a!, ...i) : get(b!, ...i)))],
    terms: 14,
  },
  {
    name: "select by a broadcast condition",
    inputs: [{ shape: [5, 1], values: bit, frozen: true }, { shape: [5, 33] }],
    build: ([c, a]) => [ops.select(c!, a!, -1)],
    reference: ([c, a]) => [nd([5, 33], (...i) => (get(c!, ...i) !== 0 ? get(a!, ...i) : -1))],
  },
  {
    name: "cast to f64 and back",
    inputs: [{ shape: [3, 21] }],
    build: ([x], dtype) => [ops.cast(ops.square(ops.cast(x!, "f64")), dtype)],
    reference: ([x]) => [map(x!, v => v * v)],
  },
  {
    name: "cast to i32 and back", // halves, both signs: to the even neighbour
    inputs: [{ shape: [40], values: distinct(40), frozen: true }],
    build: ([x], dtype) => [ops.cast(ops.cast(x!, "i32"), dtype)],
    reference: ([x]) => [map(x!, v => (Number.isInteger(v) ? v : 2 * Math.round(v / 2)))],
  },
  ...(["bf16", "f16"] as const).map(
    (dtype): OpCase => ({
      name: `cast to ${dtype} and back`, // 1e-6 .. 1e4: f16 is subnormal below 6e-5
      inputs: [{ shape: [7, 33], values: random => random.normal() * 10 ** (9 * random.uniform() - 5), frozen: true }],
      build: ([x], run) => [ops.cast(ops.cast(x!, dtype), run)],
      reference: ([x]) => [map(x!, v => (dtype === "bf16" ? toBits(v, 8, -126) : toBits(v, 11, -14)))],
    }),
  ),
  {
    name: "mean over axes",
    inputs: [{ shape: [3, 5, 7] }],
    build: ([x]) => [ops.mean(x!, [0, 2])],
    reference: ([x]) => [nd([1, 5, 1], (_, j) => sumOver(3, a => sumOver(7, b => get(x!, a, j, b))) / 21)],
    terms: 21,
  },
  {
    name: "mean of everything",
    inputs: [{ shape: [3, 5, 7], values: positive }],
    build: ([x]) => [ops.mean(x!)],
    reference: ([x]) => [nd([1], () => sumOver(105, i => x!.data[i]!) / 105)],
    terms: 105,
  },
  ...[
    [2, 3, 11],
    [2, 7, 333],
  ].map(
    // long enough for several registers of a tape, and for several of its blocks
    (shape): OpCase => ({
      name: `a chain of elementwise ops on [${shape}]`,
      inputs: [{ shape }, { shape: [shape[2]!], values: positive }, { shape: [2, 1, 1] }],
      build: ([x, y, z]) => [ops.mul(ops.tanh(ops.add(ops.mul(x!, y!), z!)), ops.sigmoid(ops.sub(x!, ops.log(y!)))), ops.square(ops.add(x!, z!))],
      reference: ([x, y, z]) => [
        nd(shape, (...i) => Math.tanh(get(x!, ...i) * get(y!, ...i) + get(z!, ...i)) * sigmoid(get(x!, ...i) - Math.log(get(y!, ...i)))),
        nd(shape, (...i) => (get(x!, ...i) + get(z!, ...i)) ** 2),
      ],
      roundings: 12,
      terms: 700,
    }),
  ),
];

const long = [1, 3, 3, 4099]; // several tasks of every kernel, the last one short

const longCases: readonly OpCase[] = [
  ...(["exp", "gelu", "affine"] as const).map((name): OpCase => {
    const [op, reference, values = normal] = unary[name]!;
    return { name: `${name} [${long}]`, inputs: [{ shape: long, values }], build: ([x]) => [op(x!)], reference: ([x]) => [map(x!, reference)] };
  }),
  ...[[1], [4099], [3, 1], long].map(
    (shape): OpCase => ({
      name: `mul [${long}] with [${shape}]`,
      inputs: [{ shape: long }, { shape }],
      build: ([a, b]) => [ops.mul(a!, b!)],
      reference: ([a, b]) => [broadcast(a!, b!, (x, y) => x * y)],
      roundings: 8,
      terms: 36891,
    }),
  ),
];

export const elementwiseCases: readonly OpCase[] = [...unaryCases, ...binaryCases, ...integerCases, ...longCases, ...others];

/** erf(x) = 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1 3 5 .. (2n+1)): all terms of one sign, nothing cancels. */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let total = 0;
  for (let n = 0; Math.abs(term) > 1e-18 * Math.abs(total); n++) {
    total += term;
    term *= (2 * x * x) / (2 * n + 3);
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}

function broadcast(a: Nd, b: Nd, f: (a: number, b: number) => number): Nd {
  const rank = Math.max(a.shape.length, b.shape.length);
  const length = (x: Nd, axis: number): number => x.shape[axis - rank + x.shape.length] ?? 1;
  const shape = Array.from({ length: rank }, (_, axis) => Math.max(length(a, axis), length(b, axis)));
  return nd(shape, (...i) => f(get(a, ...i), get(b, ...i)));
}

/** x rounded to a significand of `bits`, ties to even, for exponents from `smallest` on. */
function toBits(x: number, bits: number, smallest: number): number {
  const unit = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), smallest) - bits + 1);
  const down = Math.floor(x / unit);
  const rest = x / unit - down;
  return unit * (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down);
}

/** More than a difference step away from the edges of the clamp case. */
function awayFromEdges(random: Rng): number {
  const x = 2 * random.normal();
  return Math.min(Math.abs(x + 1.2), Math.abs(x - 1.8)) < 0.05 ? 0.5 : x;
}

function sumOver(n: number, term: (i: number) => number): number {
  return Array.from({ length: n }, (_, i) => term(i)).reduce((a, b) => a + b, 0);
}
