/** What a scheduler is: arithmetic on numbers. It turns a forward process and a step count into a list of linear updates; it has never seen a tensor, so its
 *  order of convergence is a unit test, and one compiled program serves every plan of the same terms (diffusion/sampler.ts). */

import { ConfigError } from "../errors.js";

/** value = sample * x + output * model(inputScale * x, timestep) */
export interface LinearForm {
  readonly sample: number;
  readonly output: number;
}

/** What a noisy sample is made of: x = signal * clean + noise * N(0, 1). */
export interface Level {
  readonly signal: number;
  readonly noise: number;
}

/** state * x + denoised * D + output * model + noise * N(0, 1) + sum of memory[k] * (entry k of the memory); what is absent is 0. */
export interface Combination {
  readonly state?: number;
  readonly denoised?: number;
  readonly output?: number;
  readonly noise?: number;
  readonly memory?: readonly number[];
}

/** An entry of the memory after a step: x before the step, its D, entry k of the memory before it, or a combination. Only the last costs a pass over memory. */
export type Remembered = "state" | "denoised" | number | Combination;

/** One evaluation of the model and what follows from it. A method of two evaluations a step, such as Heun's, lists both. */
export interface SchedulerStep {
  /** What the model is told, in [0, T); need not be an integer. */
  readonly timestep: number;
  /** What x is before this step. */
  readonly level: Level;
  /** A run that begins here with noise alone begins with x = start * N(0, 1); 1 by default. */
  readonly start?: number;
  /** The model sees inputScale * x; 1 by default. */
  readonly inputScale?: number;
  /** The estimate of the clean sample: D = sample * x + output * model. */
  readonly denoised: LinearForm;
  /** D is clamped to [-clip, clip] before it is used. */
  readonly clip?: number;
  /** x after this step. */
  readonly update: Combination;
  /** The whole memory after this step; nothing by default. The memory is empty before the first step of a plan. */
  readonly remember?: readonly Remembered[];
}

/** What a scheduler reads of the forward process; diffusion/noise-schedule.ts makes one. */
export interface ForwardProcess {
  readonly steps: number;
  /** [T]: the share of signal power at each timestep. */
  readonly alphasCumprod: Float64Array;
  /** Coefficients of the clean sample in (x, model output), at a timestep or at a level between two. */
  cleanSample(at: number | Level): LinearForm;
  /** Coefficients of the noise in (x, model output). */
  predictedNoise(at: number | Level): LinearForm;
}

/** The plan of one sampling run of `steps` steps: of all of them, or of those that remain where the first `skip` are left out (image to image). A method
 *  that looks back begins anew where the plan begins. */
export type Scheduler = (process: ForwardProcess, steps: number, skip?: number) => readonly SchedulerStep[];

/** Checks the counts of a run.
 *  @throws ConfigError unless steps is in [1, most] and skip in [0, steps). */
export function checkCounts(subject: string, steps: number, skip: number, most: number): void {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > most) throw new ConfigError(subject, "steps", `an integer in [1, ${most}]`, steps);
  if (!Number.isSafeInteger(skip) || skip < 0 || skip >= steps) throw new ConfigError(subject, "skip", `an integer in [0, ${steps})`, skip);
}

/** The level of a variance-preserving process whose share of signal power is `alphaCumprod`. */
export function levelOfAlpha(alphaCumprod: number): Level {
  return { signal: Math.sqrt(alphaCumprod), noise: Math.sqrt(1 - alphaCumprod) };
}

/** Options that every sampler has that clips its estimate. */
export interface ClipOptions {
  /** Clamp the clean estimate to [-clip, clip]; pixel-space models use 1. */
  readonly clip?: number;
}

/** @throws ConfigError unless clip is absent or positive. */
export function checkClip(subject: string, clip: number | undefined): { readonly clip?: number } {
  if (clip === undefined) return {};
  if (!(clip > 0)) throw new ConfigError(subject, "clip", "> 0", clip);
  return { clip };
}
