/** What the exponential integrators DPM-Solver and UniPC share: their grid of noise levels, and lambda = log(signal / noise), the time in which they are written. */

import { ConfigError } from "../errors.js";
import { denoised } from "./combination.js";
import { type Combination, checkCounts, type ForwardProcess, type Level } from "./scheduler.js";
import { interpolate, levelOfSigma, logTable, respaced, type SigmaOptions, timestepOfSigma, trainSigmas } from "./sigmas.js";
import { roundHalfEven, type SpacingOptions, solverTimesteps } from "./timesteps.js";

export interface SolverOptions extends SpacingOptions, SigmaOptions {
  /** Levels of a rectified flow, x = (1 - s) clean + s noise, shifted: s <- shift s / (1 + (shift - 1) s); for models of flow prediction. */
  readonly flow?: { readonly shift?: number };
}

/** The levels of a run; levels has one entry more, where the run ends. */
export interface SolverGrid {
  readonly timesteps: readonly number[];
  readonly levels: readonly Level[];
}

/** Where released code of the two differs: how flow sigmas are laid, and whether a run with finalSigma "sigma_min" ends at the last sigma of its own spacing
 *  (UniPC) or at the smallest of training (DPM-Solver). */
export interface GridRules {
  readonly flowSigmas: (total: number, steps: number) => readonly number[];
  readonly endsAtOwnLast: boolean;
}

/** The levels of a run; see SolverOptions. */
export function solverGrid(
  subject: string,
  process: ForwardProcess,
  { steps, skip, rules }: { readonly steps: number; readonly skip: number; readonly rules: GridRules },
  options: SolverOptions,
): SolverGrid {
  const { spacing = "linspace", stepsOffset = 0, sigmaSpacing, finalSigma = "zero", flow } = options;
  checkCounts(subject, steps, skip, process.steps);
  const table = trainSigmas(process);
  const grid = (timesteps: readonly number[], sigmas: readonly number[], ownLast = true): SolverGrid => {
    const last = finalSigma === "zero" ? 0 : rules.endsAtOwnLast && ownLast ? sigmas.at(-1)! : table[0]!;
    const levels = [...sigmas, last].map(Math.fround).map(s => (flow ? { signal: 1 - s, noise: s } : levelOfSigma(s)));
    return { timesteps, levels };
  };
  if (flow) {
    const { shift = 1 } = flow;
    if (sigmaSpacing) throw new ConfigError(subject, "sigmaSpacing", "absent where flow is given", sigmaSpacing);
    if (!(shift > 0 && shift < Infinity)) throw new ConfigError(subject, "flow.shift", "> 0", shift);
    const shifted = rules.flowSigmas(process.steps, steps).map(s => (shift * s) / (1 + (shift - 1) * s));
    const sigmas = shifted.map(s => (1 - s < 1e-6 ? s - 1e-6 : s)); // without a trace of signal lambda is infinite
    const timesteps = sigmas.map(s => Math.trunc(s * process.steps));
    return grid(timesteps, sigmas);
  }
  if (!sigmaSpacing) {
    const timesteps = solverTimesteps(process.steps, steps, spacing, stepsOffset);
    const sigmas = timesteps.map(t => interpolate(table, t));
    return grid(timesteps, sigmas, false);
  }
  const sigmas = respaced(sigmaSpacing, options.sigmaMin ?? table[0]!, options.sigmaMax ?? table.at(-1)!, steps);
  const logs = logTable(table);
  // released code rounds the timesteps of Karras' spacing, and cuts the fraction off those of the others
  const whole = sigmaSpacing === "karras" ? roundHalfEven : Math.trunc;
  const timesteps = sigmas.map(s => whole(timestepOfSigma(s, logs)));
  return grid(timesteps, sigmas);
}

/** log(signal / noise): infinite on clean data. */
export function lambda({ signal, noise }: Level): number {
  return Math.log(signal) - Math.log(noise);
}

/** What a step adds to the history: D, or the noise, which is not clipped. */
export function estimate(process: ForwardProcess, level: Level, kind: "data" | "noise"): Combination {
  if (kind === "data") return denoised;
  const { sample, output } = process.predictedNoise(level);
  return { state: sample, output };
}
