/** Sums, maxima, broadcasts. */

import { broadcast, max, sum, sumRows, sumSquares, sumTo } from "../../../lib/graph/ops/reduce.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import { type CaseInput, distinct, type OpCase } from "../case.js";

/** x folded over `axes`, which stay as length 1. */
function folded(x: Nd, axes: readonly number[], start: number, fold: (a: number, b: number) => number): Nd {
  const over = x.shape.map((n, axis) => (axes.includes(axis) ? n : 1));
  return nd(
    x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n)),
    (...i) => {
      let value = start;
      total(over, (...j) => {
        value = fold(value, get(x, ...i.map((at, axis) => at + j[axis]!)));
        return 0;
      });
      return value;
    },
  );
}

const plus = (a: number, b: number): number => a + b;

/** Shape and reduced axes: first, middle, last, several, all, unit axes, a last axis with a vector tail, a long one. */
const reductions: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[5, 7], [1]],
  [[5, 7], [0]],
  [[2, 3, 4], [1]],
  [
    [2, 3, 4, 5],
    [0, 2],
  ],
  [
    [2, 3, 4, 5],
    [1, 3],
  ],
  [
    [3, 1, 33],
    [1, 2],
  ],
  [[1, 1], [0]],
  [
    [2, 3, 5],
    [0, 1, 2],
  ],
  [[4, 1000], [1]],
  [[1000, 3], [0]],
  [[2, 20000], [1]],
  [[300, 130], [0]],
];

const reduced = (name: string, op: typeof sum | typeof max, start: number, fold: (a: number, b: number) => number, spread: boolean): OpCase[] =>
  reductions.map(([shape, axes]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const input: CaseInput = spread ? { shape, values: distinct(count) } : { shape };
    return {
      name: `${name} of [${shape}] over [${axes}]`,
      inputs: [input],
      build: ([x]) => [op(x!, axes)],
      reference: ([x]) => [folded(x!, axes, start, fold)],
      terms: axes.reduce((n, axis) => n * shape[axis]!, 1),
    };
  });

const others: readonly OpCase[] = [
  {
    name: "sum of everything",
    inputs: [{ shape: [3, 4, 5] }],
    build: ([x]) => [sum(x!)],
    reference: ([x]) => [nd([1], () => x!.data.reduce(plus, 0))],
    terms: 60,
  },
  ...[
    [
      [1, 5, 1],
      [3, 5, 4],
    ] as const,
    [[7], [2, 3, 7]] as const,
    [[1], [33]] as const,
    [
      [2, 1, 3, 1],
      [2, 5, 3, 40],
    ] as const,
  ].map(
    ([from, to]): OpCase => ({
      name: `broadcast [${from}] to [${to}]`,
      inputs: [{ shape: from }],
      build: ([x]) => [broadcast(x!, to)],
      reference: ([x]) => [nd(to, (...i) => get(x!, ...i))],
      terms: to.reduce((a, b) => a * b, 1),
    }),
  ),
  {
    name: "sumTo of a lower rank",
    inputs: [{ shape: [2, 3, 4] }],
    build: ([x]) => [sumTo(x!, [3, 1])],
    reference: ([x]) => [nd([3, 1], j => total([2, 4], (i, k) => get(x!, i, j, k)))],
    terms: 8,
  },
  ...[
    [1, 7],
    [5, 1],
    [2, 3, 33],
    [3, 5, 7, 64],
    [300, 9],
    [150, 300],
  ].map(
    (shape): OpCase => ({
      name: `sum_rows of [${shape}]`,
      inputs: [{ shape }],
      build: ([x]) => [sumRows(x!)],
      reference: ([x]) => [nd([shape.at(-1)!], c => total(shape.slice(0, -1), (...i) => get(x!, ...i, c)))],
      terms: shape[0]!,
    }),
  ),
  ...[[1], [3, 7], [5, 1000], [40000]].map(
    (shape): OpCase => ({
      name: `sum_squares of [${shape}]`,
      inputs: [{ shape }],
      build: ([x]) => [sumSquares(x!)],
      reference: ([x]) => [nd([1], () => x!.data.reduce((s, v) => s + v * v, 0))],
      terms: shape.reduce((a, b) => a * b, 1),
    }),
  ),
];

export const reduceCases: readonly OpCase[] = [
  ...reduced("sum", sum, 0, plus, false),
  ...reduced("max", max, Number.NEGATIVE_INFINITY, Math.max, true),
  ...others,
];
