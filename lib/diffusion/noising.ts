/** q(x_t | x_0) in the graph, and the one place that says what a pair shares: winner and loser are noised with the same noise at the same timestep. */

import { ConfigError } from "../errors.js";
import { constant } from "../graph/ops/leaf.js";
import { addNoise as mixNoise, qSamplePair, velocity } from "../graph/ops/noise.js";
import { randomInt, randomNormal } from "../graph/ops/random.js";
import { concat } from "../graph/ops/shape.js";
import { scope, type Tensor } from "../graph/tensor.js";
import { flowNoised, flowOf } from "./flow.js";
import type { NoiseSchedule } from "./noise-schedule.js";

/** Philox streams of a training step. */
export const streams = { noise: 1, timestep: 2, conditionDropout: 3 } as const;

/** Noise [B, H, W, C] and timesteps i32 [B] of one draw per pair (or per single sample). */
export interface NoiseDraw {
  readonly noise: Tensor;
  readonly timestep: Tensor;
}

export interface Noised {
  /** x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise; of a flow, (1 - sigma_t) x0 + sigma_t noise */
  readonly noisy: Tensor;
  /** As the model takes it: t, or 1000 sigma of a flow. */
  readonly timestep: Tensor;
  /** What the model should predict: noise, v, x0 or velocity by the schedule's prediction type. */
  readonly target: Tensor;
}

/** Timesteps i32 [count], uniform in [0, T) or by the density of a flow, from the step's seed. */
export function drawTimesteps(schedule: NoiseSchedule, count: number): Tensor {
  const flow = flowOf(schedule);
  if (flow) return scope("noise", () => flow.density(count, { steps: schedule.steps, stream: streams.timestep }));
  return scope("noise", () => randomInt([count], { low: 0, high: schedule.steps, stream: streams.timestep }));
}

/** Clean winners and their losers [B, H, W, C] (or single samples) with one noise and timestep a pair, winners first. The standard normal noise of `stream`
 *  is made where it is used: it is never stored. */
export function noisePairs(
  schedule: NoiseSchedule,
  { stream, ...pair }: { readonly winners: Tensor; readonly losers?: Tensor; readonly timestep: Tensor; readonly stream: number },
): Noised {
  const { winners, losers, timestep } = pair;
  if (flowOf(schedule)) {
    const noise = scope("noise", () => randomNormal(winners.shape, { stream, dtype: winners.dtype === "f64" ? "f64" : "f32" }));
    return losers ? addNoise(schedule, concat([winners, losers], 0), shareInPair({ noise, timestep })) : addNoise(schedule, winners, { noise, timestep });
  }
  return scope("noise", () => {
    const { noisy, target } = qSamplePair({ ...pair, alphasCumprod: table(schedule) }, { stream, prediction: kindOf(schedule), target: true });
    return { noisy, target: target!, timestep: losers ? concat([timestep, timestep], 0) : timestep };
  });
}

/** Gives winner and loser the same draw: [B] -> [2B], winners first. */
export function shareInPair(draw: NoiseDraw): NoiseDraw {
  return { noise: concat([draw.noise, draw.noise], 0), timestep: concat([draw.timestep, draw.timestep], 0) };
}

/** Noises clean samples x0 [B, H, W, C] by given noise. */
export function addNoise(schedule: NoiseSchedule, clean: Tensor, draw: NoiseDraw): Noised {
  const { noise, timestep } = draw;
  const flow = flowOf(schedule);
  if (flow) return scope("noise", () => flowNoised(flow, clean, noise, timestep));
  return scope("noise", () => ({ timestep, noisy: mixNoise(clean, noise, timestep, table(schedule)), target: noiseTarget(schedule, clean, draw) }));
}

/** What the model should predict: noise, v or x0 by the schedule's prediction type. */
export function noiseTarget(schedule: NoiseSchedule, clean: Tensor, { noise, timestep }: NoiseDraw): Tensor {
  const kind = kindOf(schedule);
  if (kind === "epsilon") return noise;
  return kind === "sample" ? clean : velocity(clean, noise, timestep, table(schedule));
}

/** alphasCumprod [T], which is a table of float32 numbers. */
function table({ alphasCumprod, steps }: NoiseSchedule): Tensor {
  return constant(Array.from(alphasCumprod), [steps], "f32");
}

function kindOf({ predictionType }: NoiseSchedule): "epsilon" | "v_prediction" | "sample" {
  if (predictionType !== "flow_prediction") return predictionType;
  throw new ConfigError("noising", "predictionType", "epsilon, v_prediction or sample, or a schedule of flowSchedule", predictionType);
}
