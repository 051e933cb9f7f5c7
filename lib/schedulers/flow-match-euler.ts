/** Euler's method for rectified flow, x = (1 - s) clean + s noise: Lipman et al. 2023, arXiv:2210.02747, and Esser et al. 2024, arXiv:2403.03206, as diffusers'
 *  FlowMatchEulerDiscreteScheduler. dx / ds = (x - D) / s, the model's output of a flow model; s moves towards noise for larger pictures (section 5.3.2). */

import { ConfigError } from "../errors.js";
import { checkCounts, type Scheduler } from "./scheduler.js";
import { respaced, type SigmaSpacing } from "./sigmas.js";
import { linspace } from "./timesteps.js";

export interface FlowMatchEulerOptions {
  /** s <- shift s / (1 + (shift - 1) s); 3 for Stable Diffusion 3. > 0. */
  readonly shift?: number;
  /** In place of `shift`, s <- e^mu / (e^mu + 1 / s - 1), or with mu for e^mu: a number made from the size of the picture (dynamicShift). */
  readonly dynamic?: { readonly mu: number; readonly kind?: "exponential" | "linear" };
  /** Sigmas of a run of n steps before they are shifted, descending in (0, 1]; by default n even steps over those of training, themselves shifted, as released. */
  sigmas?(steps: number): readonly number[];
  /** Stretches the shifted sigmas so that the last is this one. */
  readonly shiftTerminal?: number;
  /** Spaces the shifted sigmas by a rule of their own. */
  readonly sigmaSpacing?: SigmaSpacing;
  /** Draws new noise at every step: x <- (1 - s') D + s' N. */
  readonly stochastic?: boolean;
}

const f32 = Math.fround;

export function flowMatchEuler(options: FlowMatchEulerOptions = {}): Scheduler {
  const { shift = 1, dynamic, shiftTerminal, stochastic = false } = options;
  if (!(shift > 0 && shift < Infinity)) throw new ConfigError("flowMatchEuler", "shift", "> 0", shift);
  if (dynamic && !Number.isFinite(dynamic.mu)) throw new ConfigError("flowMatchEuler", "dynamic.mu", "a number", dynamic.mu);
  if (shiftTerminal !== undefined && !(shiftTerminal > 0 && shiftTerminal < 1))
    throw new ConfigError("flowMatchEuler", "shiftTerminal", "in (0, 1)", shiftTerminal);
  return (process, steps, skip = 0) => {
    checkCounts("flowMatchEuler", steps, skip, process.steps);
    const sigmas = flowSigmas(process.steps, steps, options).map(f32);
    const plan = sigmas.map((sigma, i) => {
      const next = sigmas[i + 1] ?? 0,
        shrink = next / sigma,
        level = { signal: 1 - sigma, noise: sigma };
      const update = stochastic ? { denoised: 1 - next, noise: next } : { state: shrink, denoised: 1 - shrink };
      const denoised = process.cleanSample(level);
      if (!Number.isFinite(denoised.sample))
        throw new ConfigError("flowMatchEuler", "predictionType", "flow_prediction: noise alone has no clean estimate from its noise", "epsilon");
      return { timestep: f32(sigma * process.steps), level, denoised, update };
    });
    return plan.slice(skip);
  };
}

/** mu for pictures of `tokens` patches, linear between base and most: Esser et al. 2024 as released with Flux. */
export function dynamicShift(tokens: number, { baseTokens = 256, mostTokens = 4096, baseShift = 0.5, mostShift = 1.15 } = {}): number {
  return baseShift + ((mostShift - baseShift) / (mostTokens - baseTokens)) * (tokens - baseTokens);
}

function flowSigmas(total: number, steps: number, options: FlowMatchEulerOptions): number[] {
  const { shift = 1, dynamic, shiftTerminal, sigmaSpacing } = options;
  const given = options.sigmas?.(steps);
  if (given) checkSigmas(given, steps);
  // released code keeps given sigmas in float32 throughout, and computes its own in double
  const round = given ? f32 : (x: number): number => x;
  const shifted = (s: number): number => round(round(shift * s) / round(1 + round((shift - 1) * s)));
  const power = dynamic?.kind === "linear" ? dynamic.mu : Math.exp(dynamic?.mu ?? 0);
  const moved = (s: number): number => (dynamic ? round(power / round(power + round(round(1 / s) - 1))) : shifted(s));
  const least = dynamic ? f32(1 / total) : f32(shifted(f32(1 / total)));
  let sigmas = (given ? given.map(f32) : linspace(total, least * total, steps).map(t => t / total)).map(moved);
  if (shiftTerminal !== undefined) {
    const stretch = (1 - sigmas.at(-1)!) / (1 - shiftTerminal);
    sigmas = sigmas.map(s => 1 - (1 - s) / stretch);
  }
  return sigmaSpacing ? respaced(sigmaSpacing, sigmas.at(-1)!, sigmas[0]!, steps) : sigmas;
}

function checkSigmas(sigmas: readonly number[], steps: number): void {
  const descend = sigmas.every((s, i) => s > 0 && s <= 1 && (i === 0 || s < sigmas[i - 1]!));
  if (sigmas.length !== steps || !descend) throw new ConfigError("flowMatchEuler", "sigmas", `${steps} numbers that descend in (0, 1]`, sigmas);
}
