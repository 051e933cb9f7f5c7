/** Group and layer normalisation, softmax, l2-normalise, geglu. */

import { geglu } from "../../../lib/graph/ops/gate.js";
import { groupNorm, l2Normalize, layerNorm, softmax } from "../../../lib/graph/ops/norm.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import { type OpCase, oddShapes, wide } from "../case.js";
import { erf } from "./elementwise.js";

interface Grouped {
  readonly shape: readonly number[];
  readonly groups: number;
  readonly eps?: number;
  /** Added to every element: the mean a two-pass variance must survive. */
  readonly mean?: number;
}

const grouped: readonly Grouped[] = [
  { shape: [2, 5, 7, 32], groups: 32 },
  { shape: [1, 4, 4, 64], groups: 32, eps: 1e-6 },
  { shape: [3, 3, 5, 12], groups: 4 },
  { shape: [2, 1, 9, 40], groups: 8 },
  { shape: [1, 1, 2, 8], groups: 1 },
  { shape: [2, 2, 2, 15], groups: 5 },
  { shape: [2, 6, 12], groups: 3 }, // tokens
  { shape: [1, 8, 8, 6], groups: 2, mean: 30 },
  { shape: [2, 33, 32, 48], groups: 8 }, // several chunks a sample
];

const groupNormCases = grouped.flatMap(({ shape, groups, eps = 1e-5, mean = 0 }) =>
  [false, true].map(
    (silu): OpCase => ({
      name: `group_norm [${shape}] in ${groups}${silu ? " with silu" : ""}${mean ? ` around ${mean}` : ""}`,
      inputs: [{ shape, values: random => random.normal() + mean }, { shape: [shape.at(-1)!] }, { shape: [shape.at(-1)!] }],
      build: ([x, gamma, beta]) => [groupNorm(x!, gamma!, beta!, { groups, eps, silu })],
      reference: ([x, gamma, beta]) => [groupNormalised(x!, gamma!, beta!, groups, eps, silu)],
      roundings: 8 + 4 * mean, // x - mean keeps the rounding of x
      terms: shape.reduce((a, b) => a * b, 1),
    }),
  ),
);

export function groupNormalised(x: Nd, gamma: Nd, beta: Nd, groups: number, eps: number, silu: boolean): Nd {
  const batch = x.shape[0]!;
  const pixels = x.shape.slice(1, -1);
  const channels = x.shape.at(-1)!;
  const size = channels / groups;
  const count = pixels.reduce((a, b) => a * b, 1) * size;
  const overGroup = (b: number, g: number, f: (v: number) => number): number =>
    total([...pixels, size], (...i) => f(get(x, b, ...i.slice(0, -1), g * size + i.at(-1)!))) / count;
  const mean = nd([batch, groups], (b, g) => overGroup(b, g, v => v));
  const rstd = nd([batch, groups], (b, g) => 1 / Math.sqrt(overGroup(b, g, v => (v - get(mean, b, g)) ** 2) + eps));
  return nd(x.shape, (...i) => {
    const c = i.at(-1)!;
    const g = Math.floor(c / size);
    const v = (get(x, ...i) - get(mean, i[0]!, g)) * get(rstd, i[0]!, g) * gamma.data[c]! + beta.data[c]!;
    return silu ? v / (1 + Math.exp(-v)) : v;
  });
}

const layerNormCases = [
  [3, 5, 24],
  [2, 77, 40],
  [1, 7],
  [4, 2, 1, 33],
  [1, 3, 768],
  [5, 3],
  [60, 700],
].map(
  (shape): OpCase => ({
    name: `layer_norm [${shape}]`,
    inputs: [{ shape }, { shape: [shape.at(-1)!] }, { shape: [shape.at(-1)!] }],
    build: ([x, gamma, beta]) => [layerNorm(x!, gamma!, beta!, { eps: 1e-5 })],
    reference: ([x, gamma, beta]) => [layerNormalised(x!, gamma!, beta!, 1e-5)],
    roundings: 8,
    terms: shape.at(-1)!,
  }),
);

export function layerNormalised(x: Nd, gamma: Nd, beta: Nd, eps: number): Nd {
  const width = x.shape.at(-1)!;
  const overRow = (f: (v: number, row: number[]) => number): Nd =>
    nd([...x.shape.slice(0, -1), 1], (...i) => total([width], c => f(get(x, ...i.with(-1, c)), i)) / width);
  const mean = overRow(v => v);
  const variance = overRow((v, row) => (v - get(mean, ...row)) ** 2);
  const normalised = nd(x.shape, (...i) => (get(x, ...i) - get(mean, ...i)) / Math.sqrt(get(variance, ...i) + eps));
  return nd(x.shape, (...i) => get(normalised, ...i) * gamma.data[i.at(-1)!]! + beta.data[i.at(-1)!]!);
}

const softmaxCases = [...oddShapes, [3, 4, 21], [2, 1000], [9, 1500]].map(
  (shape): OpCase => ({
    name: `softmax [${shape}]`,
    inputs: [{ shape, values: wide }],
    build: ([x]) => [softmax(x!)],
    reference: ([x]) => [softmaxOf(x!)],
    roundings: 30, // e^x turns the rounding of x near 20 into twenty of its own
    terms: shape.at(-1)!,
  }),
);

export function softmaxOf(x: Nd): Nd {
  const width = x.shape.at(-1)!;
  const largest = nd([...x.shape.slice(0, -1), 1], (...i) => Math.max(...Array.from({ length: width }, (_, c) => get(x, ...i.with(-1, c)))));
  const power = nd(x.shape, (...i) => Math.exp(get(x, ...i) - get(largest, ...i)));
  const sum = nd(largest.shape, (...i) => total([width], c => get(power, ...i.with(-1, c))));
  return nd(x.shape, (...i) => get(power, ...i) / get(sum, ...i));
}

const gegluCases = [
  [1, 2],
  [2, 7, 48],
  [3, 33, 18],
  [2, 5, 130],
].map(
  (shape): OpCase => ({
    name: `geglu [${shape}]`,
    inputs: [{ shape, values: wide }],
    build: ([x]) => [geglu(x!)],
    reference: ([x]) => {
      const half = shape.at(-1)! / 2;
      return [
        nd([...shape.slice(0, -1), half], (...i) => {
          const gate = get(x!, ...i.with(-1, i.at(-1)! + half));
          return get(x!, ...i) * (gate / 2) * (1 + erf(gate / Math.SQRT2));
        }),
      ];
    },
  }),
);

const l2Case: OpCase = {
  name: "l2_normalize",
  inputs: [{ shape: [4, 19] }],
  build: ([x]) => [l2Normalize(x!)],
  reference: ([x]) => [nd([4, 19], (i, j) => get(x!, i, j) / Math.sqrt(total([19], k => get(x!, i, k) ** 2)))],
  roundings: 12,
  terms: 19,
};

export const normCases: readonly OpCase[] = [...groupNormCases, ...layerNormCases, ...softmaxCases, ...gegluCases, l2Case];
