/** What Euler's method and Heun's share: a sample that is not scaled down as noise is added, x = clean + sigma noise (the variance explodes), and is scaled
 *  to unit variance where the model sees it. Karras et al. 2022, arXiv:2206.00364, with the timesteps of diffusers' EulerDiscreteScheduler. */

import type { ForwardProcess, SchedulerStep } from "./scheduler.js";
import { checkCounts } from "./scheduler.js";
import { type Grid, interpolate, levelOfSigma, logTable, respaced, type SigmaOptions, timestepOfSigma, trainSigmas } from "./sigmas.js";
import { fractionalTimesteps, type SpacingOptions } from "./timesteps.js";

const f32 = Math.fround;

export interface ExplodingOptions extends SpacingOptions, SigmaOptions {}

/** Timesteps and sigmas of a run. A `sigmaSpacing` fills the range between the first and last of the spaced timesteps. */
export function explodingGrid(subject: string, process: ForwardProcess, steps: number, skip: number, options: ExplodingOptions): Grid {
  const { spacing = "leading", stepsOffset = 1, sigmaSpacing, finalSigma = "zero" } = options;
  checkCounts(subject, steps, skip, process.steps);
  const table = trainSigmas(process);
  const end = finalSigma === "zero" ? 0 : table[0]!;
  const timesteps = fractionalTimesteps(process.steps, steps, spacing, stepsOffset);
  const sigmas = timesteps.map(t => interpolate(table, t));
  if (!sigmaSpacing) return { timesteps, sigmas: [...sigmas, end].map(f32) };
  const { sigmaMin = sigmas.at(-1)!, sigmaMax = sigmas[0]! } = options;
  const spaced = respaced(sigmaSpacing, sigmaMin, sigmaMax, steps);
  const logs = logTable(table);
  return { timesteps: spaced.map(s => f32(timestepOfSigma(s, logs))), sigmas: [...spaced, end].map(f32) };
}

/** The part of a step that depends on sigma alone. A run of noise alone begins with the variance of noised clean data of unit variance at "leading" spacing,
 *  and with that of the noise at the others, as diffusers does. */
export function explodingStep(
  process: ForwardProcess,
  timestep: number,
  sigma: number,
  spacing: ExplodingOptions["spacing"],
): Pick<SchedulerStep, "timestep" | "level" | "start" | "inputScale" | "denoised"> {
  const level = levelOfSigma(sigma);
  const { sample, output } = process.cleanSample(level);
  return {
    timestep,
    level: { signal: 1, noise: sigma },
    start: spacing === "linspace" || spacing === "trailing" ? sigma : Math.sqrt(sigma * sigma + 1),
    inputScale: level.signal,
    denoised: { sample: sample * level.signal, output },
  };
}
