/** Ops that move elements, and constants. */

import { add, neg, scale } from "../../../lib/graph/ops/elementwise.js";
import { constant, full } from "../../../lib/graph/ops/leaf.js";
import { concat, pad, reshape, slice, split, stopGradient, transpose } from "../../../lib/graph/ops/shape.js";
import { scalar } from "../../../lib/graph/scalars.js";
import { get, map, type Nd, nd } from "../../support/nd.js";
import type { OpCase } from "../case.js";

const sliced = (x: Nd, axis: number, start: number, length: number): Nd => nd(x.shape.with(axis, length), (...i) => get(x, ...i.with(axis, i[axis]! + start)));

const sliceCases = (
  [
    { shape: [5, 7], axis: 1, start: 2, length: 3 },
    { shape: [5, 7], axis: 0, start: 1, length: 3 }, // contiguous: a view at an odd byte offset
    { shape: [2, 3, 4, 5], axis: 2, start: 0, length: 1 },
    { shape: [2, 9, 33], axis: -1, start: 1, length: 32 },
    { shape: [1, 1, 6, 3], axis: 2, start: 5, length: 1 },
    { shape: [300, 301], axis: 1, start: 7, length: 250 }, // several tasks
  ] as const
).map(
  ({ shape, axis, start, length }): OpCase => ({
    name: `slice ${length} of axis ${axis} of [${shape}]`,
    inputs: [{ shape }],
    build: ([x]) => [neg(slice(x!, { axis, start, length }))], // neg: a view alone is no instruction
    reference: ([x]) => [map(sliced(x!, axis < 0 ? axis + shape.length : axis, start, length), v => -v)],
  }),
);

const padCases = (
  [
    { shape: [5, 7], axis: 1, before: 2, after: 0 },
    { shape: [5, 7], axis: 0, before: 0, after: 3 },
    { shape: [2, 3, 1, 5], axis: 2, before: 1, after: 1 },
    { shape: [1], axis: 0, before: 4, after: 2 },
    { shape: [300, 250], axis: 1, before: 1, after: 50 },
  ] as const
).map(
  ({ shape, axis, before, after }): OpCase => ({
    name: `pad axis ${axis} of [${shape}] by ${before} and ${after}`,
    inputs: [{ shape }],
    build: ([x]) => [pad(x!, { axis, before, after })],
    reference: ([x]) => {
      const n = x!.shape[axis]!;
      const inside = (i: readonly number[]): boolean => i[axis]! >= before && i[axis]! < before + n;
      return [nd(x!.shape.with(axis, before + n + after), (...i) => (inside(i) ? get(x!, ...i.with(axis, i[axis]! - before)) : 0))];
    },
  }),
);

const transposeCases = (
  [
    [
      [5, 7],
      [1, 0],
    ],
    [
      [2, 3, 4],
      [2, 0, 1],
    ],
    [
      [2, 9, 3, 8],
      [0, 2, 1, 3],
    ],
    [
      [1, 5, 1, 6],
      [2, 1, 0, 3],
    ], // only axes of length 1 move: a view
    [
      [33, 65],
      [1, 0],
    ],
    [
      [200, 401],
      [1, 0],
    ],
    [
      [2, 2, 3, 2, 2, 3],
      [5, 3, 1, 0, 2, 4],
    ],
  ] as const
).map(
  ([shape, permutation]): OpCase => ({
    name: `transpose [${shape}] by [${permutation}]`,
    inputs: [{ shape }],
    build: ([x]) => [neg(transpose(x!, permutation))],
    reference: ([x]) => [
      nd(
        permutation.map(axis => shape[axis]!),
        (...i) => -get(x!, ...shape.map((_, axis) => i[permutation.indexOf(axis as never)]!)),
      ),
    ],
  }),
);

const concatCases = (
  [
    [
      [
        [2, 3],
        [2, 5],
      ],
      1,
    ],
    [
      [
        [2, 3, 4],
        [1, 3, 4],
        [4, 3, 4],
      ],
      0,
    ],
    [
      [
        [2, 3, 1, 7],
        [2, 3, 1, 33],
        [2, 3, 1, 8],
      ],
      3,
    ],
  ] as const
).map(
  ([shapes, axis]): OpCase => ({
    name: `concat ${shapes.length} along axis ${axis}`,
    inputs: shapes.map(shape => ({ shape })),
    build: xs => [concat(xs, axis)],
    reference(xs) {
      const lengths = xs.map(x => x.shape[axis]!);
      return [
        nd(
          xs[0]!.shape.with(
            axis,
            lengths.reduce((a, b) => a + b, 0),
          ),
          (...i) => {
            let at = i[axis]!;
            let k = 0;
            while (at >= lengths[k]!) at -= lengths[k++]!;
            return get(xs[k]!, ...i.with(axis, at));
          },
        ),
      ];
    },
  }),
);

const others: readonly OpCase[] = [
  {
    name: "reshape",
    inputs: [{ shape: [2, 6, 5] }],
    build: ([x]) => [neg(reshape(x!, [-1, 15]))],
    reference: ([x]) => [{ shape: [4, 15], data: x!.data.map(v => -v) }],
  },
  {
    name: "reshape of rows",
    inputs: [{ shape: [3, 2, 5] }],
    build: ([x]) => [neg(reshape(x!, [3, 10]))],
    reference: ([x]) => [{ shape: [3, 10], data: x!.data.map(v => -v) }],
  },
  {
    name: "split and swap",
    inputs: [{ shape: [3, 10] }],
    build: ([x]) => {
      const [a, b, c] = split(x!, [2, 7, 1], 1);
      return [concat([c!, b!, a!], 1), ...split(x!, 2, 1).map(neg)];
    },
    reference: ([x]) => [
      nd([3, 10], (i, j) => get(x!, i, j === 0 ? 9 : j < 8 ? j + 1 : j - 8)),
      nd([3, 5], (i, j) => -get(x!, i, j)),
      nd([3, 5], (i, j) => -get(x!, i, j + 5)),
    ],
  },
  {
    name: "stop_gradient",
    inputs: [{ shape: [3, 4], frozen: true }],
    build: ([x]) => [scale(stopGradient(x!), 2)],
    reference: ([x]) => [map(x!, v => 2 * v)],
  },
  {
    name: "constant",
    inputs: [{ shape: [2, 3] }],
    build: ([x], dtype) => [add(x!, constant([0.5, -1, 3], [3], dtype)), constant([4, -5, 6, 7], [2, 2], "i32")],
    reference: ([x]) => [nd([2, 3], (i, j) => get(x!, i, j) + [0.5, -1, 3][j]!), nd([2, 2], (i, j) => [4, -5, 6, 7][2 * i + j]!)],
  },
  {
    name: "full",
    inputs: [{ shape: [2, 3] }],
    build: ([x], dtype) => [add(x!, full(0.75, [2, 3], dtype)), full(-3, [5], "i32")],
    reference: ([x]) => [map(x!, v => v + 0.75), nd([5], () => -3)],
  },
  {
    name: "scalar",
    inputs: [{ shape: [2, 3] }],
    scalars: { first: 0.5, second: -1.25 },
    build: ([x], dtype) => [add(add(x!, scalar("second", dtype)), scalar("first", dtype))],
    reference: ([x]) => [map(x!, v => v - 0.75)],
  },
];

export const shapeCases: readonly OpCase[] = [...sliceCases, ...padCases, ...transposeCases, ...concatCases, ...others];
