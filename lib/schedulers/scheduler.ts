/** What a scheduler is: arithmetic on numbers. It turns a noise schedule and a step count into a list of linear updates; it has never seen a tensor, so its
 *  order of convergence is a unit test, and one compiled program serves every scheduler and step count (diffusion/sampler.ts). */

import { ConfigError } from "../errors.js";

export interface SchedulerStep {
  /** What the model is told, in [0, T). */
  readonly timestep: number;
  /** The estimate of the clean sample: D = sample * x + output * model(x, t). */
  readonly denoised: LinearForm;
  /** D is clamped to [-clip, clip] before the update. */
  readonly clip?: number;
  /** x <- state * x + denoised * D + output * model(x, t) + noise * N(0, 1) */
  readonly update: { readonly state: number; readonly denoised: number; readonly output: number; readonly noise: number };
}

/** What a scheduler reads of the forward process; diffusion/noise-schedule.ts makes one. */
export interface ForwardProcess {
  readonly steps: number;
  /** [T]: the share of signal power at each timestep. */
  readonly alphasCumprod: Float64Array;
  /** Coefficients of the clean sample in (x_t, model output) at timestep t. */
  cleanSample(t: number): LinearForm;
  /** Coefficients of the noise in (x_t, model output) at timestep t. */
  predictedNoise(t: number): LinearForm;
}

/** value = sample * x_t + output * model(x_t, t) */
export interface LinearForm {
  readonly sample: number;
  readonly output: number;
}

/** The plan of one sampling run: x starts as standard normal noise and goes through the steps in order. */
export type Scheduler = (process: ForwardProcess, steps: number) => readonly SchedulerStep[];

export type TimestepSpacing = "leading" | "trailing" | "linspace";

/** The timesteps of an n-step run, descending, as diffusers' set_timesteps (Lin et al. 2023, arXiv:2305.08891, table 2). `offset` applies to "leading". */
export function spacedTimesteps(total: number, steps: number, spacing: TimestepSpacing, offset: number): number[] {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > total) throw new ConfigError("scheduler", "steps", `an integer in [1, ${total}]`, steps);
  const up = Array.from({ length: steps }, (_, i) => i);
  if (spacing === "leading") return up.map(i => i * Math.floor(total / steps) + offset).reverse();
  if (spacing === "trailing") return up.map(i => roundHalfEven(total - i * (total / steps)) - 1);
  return up.map(i => roundHalfEven(steps === 1 ? 0 : (i * (total - 1)) / (steps - 1))).reverse();
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x),
    rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** Sampling fields of a diffusers scheduler_config.json, checked; a field that would change results and is not supported is an error. */
export interface SchedulerConfig {
  readonly spacing: TimestepSpacing;
  readonly stepsOffset: number;
  /** Present where `clip_sample` is set. */
  readonly clip?: number;
  readonly raw: Readonly<Record<string, unknown>>;
}

export function parseSchedulerConfig(config: Readonly<Record<string, unknown>>, source: string): SchedulerConfig {
  const spacing = config.timestep_spacing ?? "leading";
  if (spacing !== "leading" && spacing !== "trailing" && spacing !== "linspace")
    throw new ConfigError(source, "timestep_spacing", "one of leading, trailing, linspace", spacing);
  const stepsOffset = config.steps_offset ?? 0;
  if (typeof stepsOffset !== "number") throw new ConfigError(source, "steps_offset", "a number", stepsOffset);
  if (config.thresholding === true) throw new ConfigError(source, "thresholding", "false", true);
  const clip = config.clip_sample === false ? {} : { clip: Number(config.clip_sample_range ?? 1) };
  return { spacing, stepsOffset, ...clip, raw: config };
}
