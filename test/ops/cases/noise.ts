/** The forward process. Its tables are those of lib/diffusion, its noise is the published generator's. */

import { type BetaSchedule, noiseSchedule, snr } from "../../../lib/diffusion/noise-schedule.js";
import { addNoise, qSamplePair, schedulerStep, scheduleTables, velocity } from "../../../lib/graph/ops/noise.js";
import { type Nd, nd } from "../../support/nd.js";
import { type Draw, normalOf } from "../../support/philox.js";
import { below, type CaseInput, type OpCase } from "../case.js";

const { fround } = Math; // a local: see support/rng.ts

const steps = 50;
const process = noiseSchedule({ numTrainTimesteps: steps });
const table: CaseInput = { shape: [steps], dtype: "f32", frozen: true, values: (_, i) => process.alphasCumprod[i]! };
const timesteps = (batch: number): CaseInput => ({ shape: [batch], dtype: "i32", frozen: true, values: below(steps) });

const schedules = (["linear", "scaled_linear", "squaredcos_cap_v2"] as const).flatMap(schedule =>
  [false, true].flatMap(zeroTerminalSnr => (zeroTerminalSnr && schedule === "squaredcos_cap_v2" ? [] : [scheduleCase(schedule, zeroTerminalSnr)])),
);

function scheduleCase(schedule: BetaSchedule, zeroTerminalSnr: boolean): OpCase {
  const attrs = { schedule, betaStart: 0.00085, betaEnd: 0.012, zeroTerminalSnr, steps: 1000 };
  return {
    name: `noise_schedule ${schedule}${zeroTerminalSnr ? " with no signal at its end" : ""}`,
    inputs: [],
    build() {
      const { betas, alphasCumprod, sigmas, snr } = scheduleTables(attrs);
      return [betas, alphasCumprod, ...(zeroTerminalSnr ? [] : [sigmas]), snr]; // the last sigma would be infinite
    },
    reference() {
      const options = { numTrainTimesteps: 1000, betaSchedule: schedule, betaStart: 0.00085, betaEnd: 0.012 };
      const p = noiseSchedule({ ...options, rescaleBetasZeroSnr: zeroTerminalSnr, predictionType: "v_prediction" });
      const each = (of: (t: number) => number): Nd => nd([1000], t => of(t));
      const sigmas = each(t => fround(Math.sqrt((1 - p.alphasCumprod[t]!) / p.alphasCumprod[t]!)));
      return [each(t => p.betas[t]!), each(t => p.alphasCumprod[t]!), ...(zeroTerminalSnr ? [] : [sigmas]), each(t => fround(snr(p, t)))];
    },
  };
}

const draws: readonly Draw[] = [
  { seed: 7, step: 3, offset: 0, stream: 1, shape: [2, 3, 5, 1] },
  { seed: 42, step: 1, offset: 5, stream: 9, shape: [3, 8, 8, 4] },
];

const pairs = draws.flatMap(d =>
  (["epsilon", "v_prediction", "sample", undefined] as const).flatMap(kind => [true, false].map(paired => pairCase(d, kind, paired))),
);

function pairCase(d: Draw, kind: "epsilon" | "v_prediction" | "sample" | undefined, paired: boolean): OpCase {
  const sample = { shape: d.shape };
  const size = d.shape.slice(1).reduce((a, b) => a * b, 1);
  return {
    name: `q_sample_pair [${d.shape}] offset ${d.offset}${paired ? "" : ", no losers"}${kind ? `, ${kind} target` : ""}`,
    inputs: [sample, ...(paired ? [sample] : []), timesteps(d.shape[0]!), table],
    scalars: { seed: d.seed, step: d.step, sampleOffset: d.offset },
    build(x) {
      const [timestep, alphasCumprod] = x.slice(-2);
      const given = { winners: x[0]!, ...(paired && { losers: x[1]! }), timestep: timestep!, alphasCumprod: alphasCumprod! };
      return Object.values(qSamplePair(given, { stream: d.stream, prediction: kind ?? "epsilon", target: kind !== undefined }));
    },
    reference(x) {
      const t = x.at(-2)!.data;
      const arms = paired ? [x[0]!, x[1]!] : [x[0]!];
      const mixed = (of: (clean: number, n: number, a: number) => number): Nd => ({
        shape: d.shape.with(0, d.shape[0]! * arms.length),
        data: Float64Array.from(
          arms.flatMap(({ data }) => Array.from(data, (clean, i) => of(clean, normalOf(d, i), process.alphasCumprod[t[Math.floor(i / size)]!]!))),
        ),
      });
      const noisy = mixed((clean, n, a) => Math.sqrt(a) * clean + Math.sqrt(1 - a) * n);
      if (!kind) return [noisy];
      return [noisy, mixed((clean, n, a) => (kind === "epsilon" ? n : kind === "sample" ? clean : Math.sqrt(a) * n - Math.sqrt(1 - a) * clean))];
    },
  };
}

const mixtures = [
  { op: "add_noise", build: addNoise, at: (x: number, n: number, a: number) => Math.sqrt(a) * x + Math.sqrt(1 - a) * n },
  { op: "velocity", build: velocity, at: (x: number, n: number, a: number) => Math.sqrt(a) * n - Math.sqrt(1 - a) * x },
].flatMap(({ op, build, at }) =>
  [
    [1, 1],
    [5, 7, 3],
    [3, 8, 8, 4],
  ].map(
    (shape): OpCase => ({
      name: `${op} [${shape}]`,
      inputs: [{ shape }, { shape }, timesteps(shape[0]!), table],
      build: ([x, n, t, a]) => [build(x!, n!, t!, a!)],
      reference([x, n, t]) {
        const size = x!.data.length / shape[0]!;
        return [{ shape, data: x!.data.map((v, i) => at(v, n!.data[i]!, process.alphasCumprod[t!.data[Math.floor(i / size)]!]!)) }];
      },
    }),
  ),
);

const names = { sample: "a", output: "b", clip: "c", state: "d", denoised: "e", direct: "f", noise: "g" };

const samplerSteps = [0.75, 3e38].flatMap(clip =>
  [true, false].map((noisy): OpCase => {
    const scalars = { a: 1.25, b: -0.75, c: clip, d: 0.25, e: 0.5, f: -0.125, g: 0.0625 };
    const map = { shape: [2, 5, 3, 4] };
    return {
      name: `scheduler_step${clip < 1 ? " clipped" : ""}${noisy ? "" : " without noise"}`,
      inputs: [map, map, ...(noisy ? [map] : [])],
      scalars,
      build: ([x, model, noise]) => [schedulerStep({ x: x!, model: model!, ...(noise && { noise }) }, names)],
      reference([x, model, noise]) {
        const { a, b, c, d, e, f, g } = scalars;
        const clean = x!.data.map((v, i) => Math.min(c, Math.max(-c, a * v + b * model!.data[i]!)));
        return [{ shape: map.shape, data: x!.data.map((v, i) => d * v + e * clean[i]! + f * model!.data[i]! + (noise ? g * noise.data[i]! : 0)) }];
      },
      roundings: 16,
    };
  }),
);

export const noiseCases: readonly OpCase[] = [...schedules, ...pairs, ...mixtures, ...samplerSteps];
