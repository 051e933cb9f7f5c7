/** q(x_t | x_0) in the graph, and the one place that says what a pair shares: winner and loser are noised with the same noise at the same timestep. */

import { ConfigError } from "../errors.js";
import { add, mul } from "../graph/ops/elementwise.js";
import { embedding } from "../graph/ops/embed.js";
import { constant } from "../graph/ops/leaf.js";
import { randomInt, randomNormal } from "../graph/ops/random.js";
import { concat, reshape } from "../graph/ops/shape.js";
import { scope, type Tensor } from "../graph/tensor.js";
import type { NoiseSchedule } from "./noise-schedule.js";
import { targetForm } from "./prediction.js";

/** Philox streams of a training step. */
export const streams = { noise: 1, timestep: 2, conditionDropout: 3 } as const;

/** Noise [B, H, W, C] and timesteps i32 [B] of one draw per pair (or per single sample). */
export interface NoiseDraw {
  readonly noise: Tensor;
  readonly timestep: Tensor;
}

export interface Noised extends NoiseDraw {
  /** x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise */
  readonly noisy: Tensor;
  /** What the model should predict: noise, v or x0 by the schedule's prediction type. */
  readonly target: Tensor;
}

/** Draws timesteps uniform in [0, T) and standard normal noise from the step's seed. */
export function drawNoise(schedule: NoiseSchedule, count: number, sampleShape: readonly number[], dtype: "f32" | "f64"): NoiseDraw {
  return scope("noise", () => ({
    noise: randomNormal([count, ...sampleShape], { stream: streams.noise, dtype }),
    timestep: randomInt([count], { low: 0, high: schedule.steps, stream: streams.timestep }),
  }));
}

/** Gives winner and loser the same draw: [B] -> [2B], winners first. */
export function shareInPair(draw: NoiseDraw): NoiseDraw {
  return { noise: concat([draw.noise, draw.noise], 0), timestep: concat([draw.timestep, draw.timestep], 0) };
}

/** Noises clean samples x0 [B, H, W, C]. Coefficients come from the float32 table of the schedule and are rounded once to the dtype of x0. */
export function addNoise(schedule: NoiseSchedule, clean: Tensor, { noise, timestep }: NoiseDraw): Noised {
  return scope("noise", () => {
    const at = (value: (alphaCumprod: number) => number): Tensor => coefficient(schedule, value, timestep, clean.dtype);
    const noisy = add(
      mul(clean, at(Math.sqrt)),
      mul(
        noise,
        at(a => Math.sqrt(1 - a)),
      ),
    );
    return { noise, timestep, noisy, target: noiseTarget(schedule, clean, { noise, timestep }) };
  });
}

/** What the model should predict: noise, v or x0 by the schedule's prediction type. */
export function noiseTarget(schedule: NoiseSchedule, clean: Tensor, { noise, timestep }: NoiseDraw): Tensor {
  const at = (value: (alphaCumprod: number) => number): Tensor => coefficient(schedule, value, timestep, clean.dtype);
  if (schedule.predictionType === "epsilon") return noise;
  if (schedule.predictionType === "sample") return clean;
  if (schedule.predictionType !== "v_prediction")
    throw new ConfigError("noising", "predictionType", "epsilon, v_prediction or sample: a flow has no alphasCumprod", schedule.predictionType);
  return add(
    mul(
      clean,
      at(a => targetForm("v_prediction", a).clean),
    ),
    mul(
      noise,
      at(a => targetForm("v_prediction", a).noise),
    ),
  );
}

/** value(alphasCumprod[t]) for each sample, [B, 1, 1, 1]. */
function coefficient(schedule: NoiseSchedule, value: (alphaCumprod: number) => number, timestep: Tensor, dtype: Tensor["dtype"]): Tensor {
  const table = constant(Array.from(schedule.alphasCumprod, value), [schedule.steps, 1], dtype);
  return reshape(embedding(table, timestep), [timestep.shape[0]!, 1, 1, 1]);
}
