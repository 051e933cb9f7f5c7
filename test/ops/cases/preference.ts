/** Pair sums. */

import { pairSums } from "../../../lib/graph/ops/preference.js";
import { type LossTape, preferenceLoss, sumOpcode } from "../../../lib/graph/ops/preference-loss.js";
import { drawSlots } from "../../../lib/graph/ops/random.js";
import { tapeOpcodes } from "../../../lib/graph/tape-opcodes.js";
import { fromBf16, toBf16 } from "../../../lib/util/half.js";
import { get, type Nd, nd, total } from "../../support/nd.js";
import { type Draw, normalOf } from "../../support/philox.js";
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

interface LossSetting {
  readonly arms: 1 | 2;
  readonly lanes: number;
  readonly map: readonly [height: number, width: number, channels: number];
  readonly reference: boolean;
  readonly drawn?: true;
}

const lossSettings: readonly LossSetting[] = [
  { arms: 1, lanes: 1, map: [1, 1, 1], reference: false },
  { arms: 1, lanes: 3, map: [3, 5, 2], reference: true },
  { arms: 1, lanes: 2, map: [4, 4, 4], reference: false, drawn: true },
  { arms: 2, lanes: 1, map: [3, 3, 1], reference: true },
  { arms: 2, lanes: 3, map: [8, 9, 3], reference: true },
  { arms: 2, lanes: 2, map: [8, 8, 4], reference: true, drawn: true },
  { arms: 2, lanes: 2, map: [64, 65, 5], reference: true }, // several chunks
];

/** Weighted errors: per lane u = weight (E_w + 2 C_l) + shift, w = tanh u; reported are mean w and u. The derivatives are w by E_w, u by P_w, and 3 by D of the last
 *  arm. (With one arm the loser's sums are the winner's.) */
const lossCases = lossSettings.map(({ arms, lanes, map: [height, width, channels], reference, drawn }): OpCase => {
  const shape = [arms * lanes, height, width, channels];
  const size = height * width * channels;
  const [weight, shift, u, first] = [4 * arms, 4 * arms + 1, 4 * arms + 2, 4 * arms + 2];
  const opcode = (name: (typeof tapeOpcodes)[number]): number => tapeOpcodes.indexOf(name);
  const [w, total, mean, three] = [first + 1, first + 2, first + 3, first + 4];
  const tape: LossTape = {
    arms,
    code: [
      ...[opcode("affine"), u, 4 * arms - 1, 0, 1], // 2 C
      ...[opcode("add"), u, u, 0, 0], //               + E
      ...[opcode("mul"), u, u, weight, 0],
      ...[opcode("add"), u, u, shift, 0],
      ...[opcode("tanh"), w, u, 0, 0],
      ...[sumOpcode, total, w, 0, 0],
      ...[opcode("affine"), mean, total, 2, 1],
      ...[opcode("constant"), three, 3, 0, 0],
    ],
    constants: [2, 0, 1 / lanes, 3],
    outputs: [mean, u],
    perLane: [0, 1],
    coefficients: arms === 1 ? [w, three, u, -1] : [w, -1, u, -1, -1, three, -1, -1],
  };
  const maps = { shape, frozen: true } as const;
  const extras = [{ shape: [lanes], dtype: "f64", frozen: true } as const, { shape: [1], dtype: "f64", frozen: true } as const];
  const draw: Draw = { seed: 2 ** 40 + 3, step: 7, offset: 5, stream: 4, shape: [lanes, height, width, channels] };
  return {
    name: `preference_loss ${arms} x ${lanes} of [${shape.slice(1)}]${reference ? " with reference" : ""}${drawn ? ", target drawn" : ""}`,
    inputs: [maps, ...(drawn ? [] : [maps]), ...(reference ? [maps] : []), ...extras],
    ...(drawn && { scalars: { seed: draw.seed, step: draw.step, sampleOffset: draw.offset } }),
    build(x) {
      const attrs = { ...tape, ...(drawn && drawSlots(draw.stream)) };
      const frozen = reference ? x.at(-3)! : undefined;
      return preferenceLoss(attrs, x[0]!, drawn ? undefined : x[1]!, frozen, x.at(-2)!, x.at(-1)!);
    },
    reference(x) {
      const prediction = x[0]!;
      let i = 0;
      const noise = nd(draw.shape, () => normalOf(draw, i++)).data;
      const target = drawn ? { shape, data: Float64Array.from({ length: arms * noise.length }, (_, k) => noise[k % noise.length]!) } : x[1]!;
      const frozen = reference ? x.at(-3)! : undefined;
      const [E, , , C] = sums(prediction, target, frozen, 1) as [Nd, Nd, Nd, Nd];
      const values = Array.from({ length: lanes }, (_, b) => {
        const last = (arms - 1) * lanes + b;
        return (E.data[b]! + 2 * C.data[last]!) * x.at(-2)!.data[b]! + x.at(-1)!.data[0]!;
      });
      const gradient = prediction.data.map((value, k) => {
        const [row, lane] = [Math.floor(k / size), Math.floor(k / size) % lanes];
        const [d, p] = [value - target.data[k]!, frozen ? value - frozen.data[k]! : 0];
        const [byE, byP] = row < lanes ? [Math.tanh(values[lane]!), values[lane]!] : [0, 0];
        const byD = frozen && row >= (arms - 1) * lanes ? 3 : 0;
        return (2 * byE * d + 2 * byD * d + 2 * (frozen ? byP : 0) * p) / size;
      });
      const meanTanh = values.reduce((sum, v) => sum + Math.tanh(v), 0) / lanes;
      return [
        { shape, data: gradient },
        { shape: [1], data: Float64Array.of(meanTanh) },
        { shape: [lanes], data: Float64Array.from(values) },
      ];
    },
    roundings: 200,
    cancellation: 100,
    terms: size * arms * lanes,
  };
});

export const preferenceCases: readonly OpCase[] = [...uniform, mixed, ...lossCases];

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
