/** The forward process as ops of its own, each one pass over memory: tables, noised samples, targets, and one step of a sampler. `alphasCumprod` is f32 [T],
 *  the share of signal power at each timestep; a sample's signal and noise are sqrt(a) and sqrt(1 - a) of its entry, formed in f64 and rounded once. */

import { defineOp } from "../op.js";
import { slotValue } from "../scalars.js";
import { currentGraph, type DType, numel, type Tensor, typed } from "../tensor.js";
import { check, checkFloats, checkShape, isFloat, type NoAttrs, show } from "./check.js";
import { add, cast, maximum, minimum, mul, neg, scale, shift, sqrt, sub } from "./elementwise.js";
import { embedding } from "./embed.js";
import { type DrawSlots, drawnNormal, drawSlots } from "./random.js";
import { concat, reshape } from "./shape.js";

export type ScheduleAttrs = {
  readonly schedule: "linear" | "scaled_linear" | "squaredcos_cap_v2";
  readonly betaStart: number;
  readonly betaEnd: number;
  /** Rescaled so that the last step holds no signal. */
  readonly zeroTerminalSnr: boolean;
};

/** Tables of `steps` timesteps, f32 [steps] each, with the roundings of diffusers: betas, cumulative products of 1 - beta, sqrt((1 - a) / a), a / (1 - a). */
export function scheduleTables(attrs: ScheduleAttrs & { readonly steps: number }): {
  betas: Tensor;
  alphasCumprod: Tensor;
  sigmas: Tensor;
  snr: Tensor;
} {
  const [betas, alphasCumprod, sigmas, snr] = noiseScheduleOp(attrs);
  return { betas, alphasCumprod, sigmas, snr };
}
const noiseScheduleOp = defineOp({
  name: "noise_schedule",
  infer({ steps, betaStart, betaEnd }: ScheduleAttrs & { steps: number }) {
    check("noise_schedule", Number.isSafeInteger(steps) && steps >= 2, `expected steps to be an integer >= 2, received ${steps}`);
    const ordered = betaStart > 0 && betaStart < betaEnd && betaEnd < 1;
    check("noise_schedule", ordered, `expected 0 < betaStart < betaEnd < 1, received ${betaStart} and ${betaEnd}`);
    const table = typed("f32", steps);
    return [table, table, table, table]; // betas, alphasCumprod, sigmas, snr
  },
  vjp: () => [],
});

export type PairNoise = {
  /** Clean samples [B,H,W,C]; without losers winners alone. */
  readonly winners: Tensor;
  readonly losers?: Tensor;
  /** i32 [B], one for winner and loser. */
  readonly timestep: Tensor;
  readonly alphasCumprod: Tensor;
};
type QSampleAttrs = DrawSlots & { prediction: "epsilon" | "v_prediction" | "sample"; target: boolean; dtype: DType };

/** Noises winners and losers with one noise and timestep a pair, winners first: signal x + noise n. The noise is that of randomNormal in `stream`, made where it
 *  is used and never stored. With `target`, also what the model is to predict of them. `dtype` of the results: as the samples if not given. */
export function qSamplePair(
  { winners, losers, timestep, alphasCumprod }: PairNoise,
  { stream, prediction, target, dtype = winners.dtype }: { stream: number; prediction: QSampleAttrs["prediction"]; target: boolean; dtype?: DType },
): { noisy: Tensor; target?: Tensor } {
  const attrs = { ...drawSlots(stream), prediction, target, dtype };
  const [noisy, goal] = qSamplePairOp(attrs, winners, losers, timestep, alphasCumprod);
  return { noisy: noisy!, ...(goal && { target: goal }) };
}
const qSamplePairOp = defineOp({
  name: "q_sample_pair",
  infer({ target, dtype }: QSampleAttrs, winners: Tensor, losers: Tensor | undefined, timestep: Tensor, alphasCumprod: Tensor) {
    checkFloats("q_sample_pair", { winners, losers });
    checkShape("q_sample_pair", "winners", winners, [null, null, null, null]);
    if (losers) checkShape("q_sample_pair", "losers", losers, winners.shape);
    checkSteps("q_sample_pair", winners, timestep, alphasCumprod);
    const noisy = { dtype, shape: winners.shape.with(0, winners.shape[0]! * (losers ? 2 : 1)) };
    return target ? [noisy, noisy] : [noisy];
  },
  decompose({ prediction, target, dtype, ...slots }, winners, losers, timestep, alphasCumprod) {
    const wide = winners.dtype === "f64" ? "f64" : "f32";
    const n = drawnNormal(slots, winners.shape, wide);
    const arms = [winners, ...(losers ? [losers] : [])].map(x => cast(x, wide));
    const m = mixture(wide, winners, timestep, alphasCumprod);
    const both = (of: (x: Tensor) => Tensor): Tensor => cast(concat(arms.map(of), 0), dtype);
    const noisy = both(x => noised(m, x, n));
    if (!target) return [noisy];
    return [noisy, both(x => (prediction === "epsilon" ? n : prediction === "sample" ? x : velocityOf(m, x, n)))];
  },
});

/** signal x + noise n of samples [B, ..] at timesteps i32 [B]. */
export function addNoise(x: Tensor, noise: Tensor, timestep: Tensor, alphasCumprod: Tensor): Tensor {
  return addNoiseOp({}, x, noise, timestep, alphasCumprod)[0];
}
const addNoiseOp = mixing("add_noise", noised);

/** The v-prediction target signal n - noise x: Salimans & Ho 2022, arXiv:2202.00512. */
export function velocity(x: Tensor, noise: Tensor, timestep: Tensor, alphasCumprod: Tensor): Tensor {
  return velocityOp({}, x, noise, timestep, alphasCumprod)[0];
}
const velocityOp = mixing("velocity", velocityOf);

function mixing(name: string, of: (m: Mixture, x: Tensor, n: Tensor) => Tensor) {
  return defineOp({
    name,
    inplace: 0,
    infer(_: NoAttrs, x: Tensor, noise: Tensor, timestep: Tensor, alphasCumprod: Tensor) {
      checkBeside(name, x, { noise });
      checkShape(name, "noise", noise, x.shape);
      checkSteps(name, x, timestep, alphasCumprod);
      return [x];
    },
    decompose(_, x, noise, timestep, alphasCumprod) {
      const wide = x.dtype === "f64" ? "f64" : "f32";
      return [cast(of(mixture(wide, x, timestep, alphasCumprod), cast(x, wide), cast(noise, wide)), x.dtype)];
    },
  });
}

/** Names of the slots of a sampler's coefficients (schedulers/scheduler.ts). */
export type StepSlotNames = {
  readonly sample: string;
  readonly output: string;
  readonly clip: string;
  readonly state: string;
  readonly denoised: string;
  readonly direct: string;
  readonly noise: string;
};
type StepSlots = { [K in keyof StepSlotNames]: number };

/** One step of a sampler: D = sample x + output model, clamped to [-clip, clip]; x <- state x + denoised D + direct model + noise n. All coefficients are slots. */
export function schedulerStep({ x, model, noise }: { x: Tensor; model: Tensor; noise?: Tensor }, names: StepSlotNames): Tensor {
  const graph = currentGraph();
  const slots = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, graph.scalarSlot(name)])) as StepSlots;
  return schedulerStepOp(slots, x, model, noise)[0];
}
const schedulerStepOp = defineOp({
  name: "scheduler_step",
  inplace: 0,
  infer(_: StepSlots, x: Tensor, model: Tensor, noise?: Tensor) {
    checkBeside("scheduler_step", x, { model, noise });
    checkShape("scheduler_step", "model", model, x.shape);
    if (noise) checkShape("scheduler_step", "noise", noise, x.shape);
    return [x];
  },
  decompose(slots, x, model, noise) {
    const wide = x.dtype === "f64" ? "f64" : "f32";
    const times = (slot: number, of: Tensor): Tensor => mul(cast(of, wide), slotValue(slot, wide));
    const clip = slotValue(slots.clip, wide);
    const clean = maximum(minimum(add(times(slots.sample, x), times(slots.output, model)), clip), neg(clip));
    const mix = add(add(times(slots.state, x), times(slots.denoised, clean)), times(slots.direct, model));
    return [cast(noise ? add(mix, times(slots.noise, noise)) : mix, x.dtype)];
  },
});

type Mixture = { readonly signal: Tensor; readonly noise: Tensor };

/** Signal and noise of every sample of x, shaped to multiply it. */
function mixture(dtype: "f32" | "f64", x: Tensor, timestep: Tensor, alphasCumprod: Tensor): Mixture {
  const a = cast(embedding(reshape(alphasCumprod, [numel(alphasCumprod.shape), 1]), timestep), "f64");
  const perSample = (value: Tensor): Tensor => reshape(cast(sqrt(value), dtype), [x.shape[0]!, ...x.shape.slice(1).map(() => 1)]);
  return { signal: perSample(a), noise: perSample(shift(scale(a, -1), 1)) };
}

function noised({ signal, noise }: Mixture, x: Tensor, n: Tensor): Tensor {
  return add(mul(x, signal), mul(n, noise));
}

function velocityOf({ signal, noise }: Mixture, x: Tensor, n: Tensor): Tensor {
  return sub(mul(n, signal), mul(x, noise));
}

/** f64 beside f64, f32 and bf16 beside each other. */
function checkBeside(op: string, x: Tensor, others: { readonly [name: string]: Tensor | undefined }): void {
  checkFloats(op, { x });
  for (const [name, y] of Object.entries(others)) {
    if (!y) continue;
    const fits = isFloat(y.dtype) && (x.dtype === "f64") === (y.dtype === "f64");
    check(op, fits, `expected ${name} in ${x.dtype === "f64" ? "f64" : "f32 or bf16"}, received ${show(y)}`);
  }
}

function checkSteps(op: string, x: Tensor, timestep: Tensor, alphasCumprod: Tensor): void {
  check(op, timestep.dtype === "i32", `expected timestep in i32, received ${show(timestep)}`);
  checkShape(op, "timestep", timestep, [x.shape[0]!]);
  check(op, alphasCumprod.dtype === "f32", `expected alphasCumprod in f32, received ${show(alphasCumprod)}`);
  checkShape(op, "alphasCumprod", alphasCumprod, [null]);
}
