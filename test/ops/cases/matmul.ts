/** Matrix products and linear layers. */

import { linear, matmul } from "../../../lib/graph/ops/matmul.js";
import { get, nd, total } from "../../support/nd.js";
import type { OpCase } from "../case.js";

/** [leading axes, m, k, n]: one element, odd, tails of every blocking, long inner, thin and wide. */
const products: readonly (readonly [readonly number[], number, number, number])[] = [
  [[], 1, 1, 1],
  [[], 3, 5, 7],
  [[2, 3], 4, 9, 5],
  [[], 1, 77, 40],
  [[3], 17, 1, 33],
  [[], 40, 300, 1],
  [[1], 65, 40, 49],
  [[], 13, 600, 21], // an inner length of several blocks
];

const matmulCases = products.flatMap(([lead, m, k, n]) =>
  [0, 1, 2, 3].map((bits): OpCase => {
    const [transposeA, transposeB] = [(bits & 1) !== 0, (bits & 2) !== 0];
    return {
      name: `matmul [${[...lead, m, k]}] [${[...lead, k, n]}]${transposeA ? " A^T" : ""}${transposeB ? " B^T" : ""}`,
      inputs: [{ shape: [...lead, ...(transposeA ? [k, m] : [m, k])] }, { shape: [...lead, ...(transposeB ? [n, k] : [k, n])] }],
      build: ([a, b]) => [matmul(a!, b!, { transposeA, transposeB })],
      reference: ([a, b]) => [
        nd([...lead, m, n], (...index) => {
          const [i, j] = index.slice(-2) as [number, number];
          const at = index.slice(0, -2);
          return total([k], q => (transposeA ? get(a!, ...at, q, i) : get(a!, ...at, i, q)) * (transposeB ? get(b!, ...at, j, q) : get(b!, ...at, q, j)));
        }),
      ],
      terms: Math.max(m, k, n),
    };
  }),
);

/** [rows.., K, N]. */
const layers: readonly (readonly [readonly number[], number, number])[] = [
  [[1], 1, 1],
  [[3], 11, 7],
  [[2, 9], 40, 33],
  [[1, 77], 64, 48],
  [[2, 3, 5], 8, 96],
  [[1], 320, 128],
  [[130], 17, 65],
  [[20], 600, 30],
  [[700], 8, 16],
];

const linearCases = layers.flatMap(([rows, inner, outer]) =>
  [false, true].map(
    (bias): OpCase => ({
      name: `linear [${[...rows, inner]}] to ${outer}${bias ? " with bias" : ""}`,
      inputs: [{ shape: [...rows, inner] }, { shape: [outer, inner] }, ...(bias ? [{ shape: [outer] }] : [])],
      build: ([x, w, b]) => [linear(x!, w!, b)],
      reference: ([x, w, b]) => [
        nd([...rows, outer], (...index) => {
          const at = index.slice(0, -1);
          const o = index.at(-1)!;
          return (b ? b.data[o]! : 0) + total([inner], i => get(x!, ...at, i) * get(w!, o, i));
        }),
      ],
      roundings: 16,
      terms: Math.max(inner, outer, ...rows) * 2,
    }),
  ),
);

export const productCases: readonly OpCase[] = [...matmulCases, ...linearCases];
