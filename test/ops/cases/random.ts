/** Rng ops. The reference is the published generator; what it is used for is in test/ops/random.test.ts. */

import { randomInt, randomNormal, randomUniform } from "../../../lib/graph/ops/random.js";
import type { Tensor } from "../../../lib/graph/tensor.js";
import { type Nd, nd } from "../../support/nd.js";
import { bitsOf, type Draw, normalOf } from "../../support/philox.js";
import type { OpCase } from "../case.js";

const draws: readonly Draw[] = [
  { seed: 0, step: 0, offset: 0, stream: 0, shape: [1] },
  { seed: 7, step: 3, offset: 0, stream: 1, shape: [2, 3, 5] },
  { seed: 2 ** 52 + 12345, step: 2 ** 31 + 5, offset: 3, stream: 2 ** 32 - 1, shape: [2, 7, 9] },
  { seed: 42, step: 1, offset: 5, stream: 9, shape: [3, 1001] },
  { seed: 1, step: 999, offset: 1, stream: 4, shape: [4, 8, 8, 4] },
];

function cases(name: string, draw: (shape: readonly number[], stream: number, dtype: "f32" | "f64") => Tensor, at: (d: Draw, i: number) => number): OpCase[] {
  return draws.map(d => ({
    name: `${name} [${d.shape}] seed ${d.seed} step ${d.step} offset ${d.offset} stream ${d.stream}`,
    inputs: [],
    scalars: { seed: d.seed, step: d.step, sampleOffset: d.offset },
    build: (_, dtype) => [draw(d.shape, d.stream, dtype)],
    reference: () => [numbered(d, at)],
    roundings: 1, // drawn in double, rounded once
  }));
}

function numbered(d: Draw, at: (d: Draw, i: number) => number): Nd {
  let i = 0;
  return nd(d.shape, () => at(d, i++));
}

const uniformOf = (d: Draw, i: number): number => Number(bitsOf(d, i) >> 8n) * 2 ** -24;
const integerOf =
  (low: number, high: number) =>
  (d: Draw, i: number): number =>
    low + Number((bitsOf(d, i) * BigInt(high - low)) >> 32n);

export const randomCases: readonly OpCase[] = [
  ...cases("random_normal", (shape, stream, dtype) => randomNormal(shape, { stream, dtype }), normalOf),
  ...cases("random_uniform", (shape, stream, dtype) => randomUniform(shape, { stream, dtype }), uniformOf),
  ...cases("random_int", (shape, stream) => randomInt(shape, { low: 0, high: 1000, stream }), integerOf(0, 1000)),
  ...cases("random_int wide", (shape, stream) => randomInt(shape, { low: -(2 ** 31), high: 2 ** 31, stream }), integerOf(-(2 ** 31), 2 ** 31)),
];
