/** Pair sums. */

import { pairSums } from "../../../lib/graph/ops/preference.js";
import { fromBf16, toBf16 } from "../../../lib/util/half.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import type { Rng } from "../../support/rng.js";
import type { OpCase } from "../case.js";

const settings = [
  { shape: [1, 1, 1, 1], segments: 1 },
  { shape: [3, 4, 5, 4], segments: 1 },
  { shape: [3, 4, 5, 4], segments: 2 },
  { shape: [2, 6, 3, 7], segments: 6 },
  { shape: [2, 16, 16, 4], segments: 4 },
  { shape: [1, 64, 65, 5], segments: 1 }, // several chunks
];

const map = { shape: [2, 9, 7, 4], values: (random: Rng) => fromBf16(toBf16(random.normal())), frozen: true } as const;

/** The prediction in f32, the others in bf16. */
const mixed: OpCase = {
  name: "pair_sums [2,9,7,4] in 3 of f32 and bf16",
  inputs: [
    { ...map, dtype: "f32" },
    { ...map, dtype: "bf16" },
    { ...map, dtype: "bf16" },
  ],
  build([prediction, target, reference]) {
    const { E, D, P, C } = pairSums({ prediction: prediction!, target: target!, reference: reference!, segments: 3 });
    return [E, D, P, C];
  },
  reference: ([prediction, target, reference]) => sums(prediction!, target!, reference, 3),
  roundings: 200,
  cancellation: 100,
  terms: 504,
};

const uniform = settings.flatMap(({ shape, segments }) =>
  [false, true].map(
    (reference): OpCase => ({
      name: `pair_sums [${shape}] in ${segments}${reference ? " with reference" : ""}`,
      inputs: [{ shape }, { shape }, ...(reference ? [{ shape }] : [])],
      build([prediction, target, frozen]) {
        const { E, D, P, C } = pairSums({ prediction: prediction!, target: target!, ...(frozen && { reference: frozen }), segments });
        return [E, D, P, C];
      },
      reference: ([prediction, target, frozen]) => sums(prediction!, target!, frozen, segments),
      roundings: 200, // D and C are sums of both signs, of which a hundredth may be left
      cancellation: 100,
      terms: shape.reduce((a, b) => a * b, 1),
    }),
  ),
);

export const preferenceCases: readonly OpCase[] = [...uniform, mixed];

function sums(prediction: Nd, target: Nd, frozen: Nd | undefined, segments: number): Nd[] {
  const [batch = 0, height = 0, width = 0, channels = 0] = prediction.shape;
  const rows = height / segments;
  const mean = (f: (d: number, p: number, r: number) => number): Nd =>
    nd([batch, segments], (b, s) => {
      const sum = total([rows, width, channels], (y, ...i) => {
        const at = [b, s * rows + y, ...i];
        const value = get(prediction, ...at);
        const goal = get(target, ...at);
        return f(value - goal, frozen ? value - get(frozen, ...at) : 0, frozen ? get(frozen, ...at) - goal : value - goal);
      });
      return sum / (rows * width * channels);
    });
  return [mean(d => d * d), mean((d, _p, r) => d * d - r * r), mean((_d, p) => p * p), mean((d, p) => d * p)];
}
