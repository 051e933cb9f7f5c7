/** Rectified flow: x = (1 - sigma) x0 + sigma noise, and the model predicts the velocity noise - x0 (Lipman et al. 2023, arXiv:2210.02747; Esser et al.
 *  2024, arXiv:2403.03206). The noise levels are a table, as for any other schedule, so that timesteps are drawn, validated and resumed alike; the model is
 *  told 1000 sigma. */

import { ConfigError } from "../errors.js";
import { add, cast, clamp, mul, scale, shift as shiftBy, sigmoid, sub } from "../graph/ops/elementwise.js";
import { embedding } from "../graph/ops/embed.js";
import { constant } from "../graph/ops/leaf.js";
import { randomInt, randomNormal } from "../graph/ops/random.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { type NoiseSchedule, noiseSchedule } from "./noise-schedule.js";

/** Indices i32 [count] in [0, steps), which stand for noise levels from low to high, from the step's seed. */
export type TimestepDensity = (count: number, options: { readonly steps: number; readonly stream: number }) => Tensor;

/** Every noise level alike. */
export const uniformDensity: TimestepDensity = (count, { steps, stream }) => randomInt([count], { low: 0, high: steps, stream });

/** sigmoid of a normal number: levels in the middle most often. A positive mean prefers noise (in the training scripts of SD3, which count from the other
 *  end, a negative one). */
export function logitNormalDensity({ mean = 0, deviation = 1 }: { mean?: number; deviation?: number } = {}): TimestepDensity {
  if (!(deviation > 0 && Number.isFinite(deviation))) throw new ConfigError("logitNormalDensity", "deviation", "a finite number > 0", deviation);
  if (!Number.isFinite(mean)) throw new ConfigError("logitNormalDensity", "mean", "a finite number", mean);
  return (count, { steps, stream }) => {
    const level = scale(sigmoid(shiftBy(scale(randomNormal([count], { stream }), deviation), mean)), steps);
    return cast(clamp(shiftBy(level, -0.5), { min: 0, max: steps - 1 }), "i32"); // rounds: floor of the level
  };
}

export interface FlowProcess {
  /** [T], ascending to 1. */
  readonly sigmas: Float64Array;
  readonly density: TimestepDensity;
}

export interface FlowSchedule extends NoiseSchedule {
  readonly flow: FlowProcess;
}

export interface FlowScheduleOptions {
  readonly numTrainTimesteps?: number;
  /** Moves all levels towards noise, sigma <- k sigma / (1 + (k - 1) sigma): 3 for Stable Diffusion 3 (default 1). */
  readonly shift?: number;
  /** Which levels are trained (default logitNormalDensity()). */
  readonly density?: TimestepDensity;
}

/** Levels (t + 1) / T, shifted. Its alphasCumprod are those of the same signal-to-noise ratio ((1 - sigma) / sigma)^2; its betas mean nothing. */
export function flowSchedule({ numTrainTimesteps: steps = 1000, shift = 1, density = logitNormalDensity() }: FlowScheduleOptions = {}): FlowSchedule {
  if (!(shift > 0 && Number.isFinite(shift))) throw new ConfigError("flowSchedule", "shift", "a finite number > 0", shift);
  const base = noiseSchedule({ numTrainTimesteps: steps, predictionType: "flow_prediction" });
  const sigmas = Float64Array.from({ length: steps }, (_, t) => {
    const level = (t + 1) / steps;
    return Math.fround((shift * level) / (1 + (shift - 1) * level));
  });
  return {
    ...base,
    alphasCumprod: sigmas.map(sigma => (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma ** 2)),
    cleanSample: (t: number) => ({ sample: 1, output: -sigmas[t]! }),
    predictedNoise: (t: number) => ({ sample: 1, output: 1 - sigmas[t]! }),
    flow: { sigmas, density },
  };
}

/** The flow of a schedule that has one. */
export function flowOf(schedule: NoiseSchedule): FlowProcess | undefined {
  return (schedule as Partial<FlowSchedule>).flow;
}

/** Samples [B, H, W, C] on their way to `noise`, at these indices i32 [B]: noisy sample, velocity, and the timestep 1000 sigma as the model takes it, f32
 *  [B]. */
export function flowNoised({ sigmas }: FlowProcess, clean: Tensor, noise: Tensor, index: Tensor) {
  const sigma = reshape(embedding(constant(Array.from(sigmas), [sigmas.length, 1], "f32"), index), [index.shape[0]!]);
  const target = sub(noise, clean);
  const perSample = reshape(cast(sigma, clean.dtype), [clean.shape[0]!, 1, 1, 1]);
  return { noisy: add(clean, mul(target, perSample)), target, timestep: scale(sigma, 1000) };
}
