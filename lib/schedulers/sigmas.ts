/** Noise levels between the timesteps of training: sigma = noise / signal of a variance-preserving process, spaced as k-diffusion and EDM space it. Tables hold
 *  float32 values where diffusers' do, so that timesteps agree to the last bit. */

import { ConfigError } from "../errors.js";
import { betaQuantile } from "./beta-quantile.js";
import type { ForwardProcess, Level } from "./scheduler.js";
import { linspace } from "./timesteps.js";

/** "karras": Karras et al. 2022, arXiv:2206.00364, eq. 5 with rho 7; "exponential": uniform in log sigma; "beta": Lee et al. 2024, arXiv:2407.12173. */
export type SigmaSpacing = "karras" | "exponential" | "beta";
/** Where a run ends: on clean data, or at the smallest sigma of training. */
export type FinalSigma = "zero" | "sigma_min";

export interface SigmaOptions {
  /** Spaces sigmas by a rule of their own; the timesteps follow from them. */
  readonly sigmaSpacing?: SigmaSpacing;
  /** Ends of the range that `sigmaSpacing` fills; by default those of the process or of its timesteps. */
  readonly sigmaMin?: number;
  readonly sigmaMax?: number;
  readonly finalSigma?: FinalSigma;
}

/** Timesteps of a run and its sigmas, descending: sigmas has one entry more, where the run ends. */
export interface Grid {
  readonly timesteps: readonly number[];
  readonly sigmas: readonly number[];
}

const f32 = Math.fround;

/** sigma at every timestep of training, ascending. A zero-terminal-SNR process would end at infinity: as in diffusers its last share of signal power counts as
 *  2^-24, sigma 4096. */
export function trainSigmas({ alphasCumprod }: ForwardProcess): number[] {
  return Array.from(alphasCumprod, a => {
    const floored = Math.max(a, 2 ** -24);
    return f32(Math.sqrt(f32(f32(1 - floored) / floored)));
  });
}

/** The level of sigma in a variance-preserving process: signal^2 + noise^2 = 1. */
export function levelOfSigma(sigma: number): Level {
  const signal = 1 / Math.sqrt(sigma * sigma + 1);
  return { signal, noise: sigma * signal };
}

/** The table at t, linear between its entries. */
export function interpolate(table: readonly number[], t: number): number {
  const at = Math.min(Math.max(Math.floor(t), 0), table.length - 2);
  return (table[at + 1]! - table[at]!) * (t - at) + table[at]!;
}

/** `steps` sigmas from max to min. */
export function respaced(spacing: SigmaSpacing, min: number, max: number, steps: number): number[] {
  if (!(min > 0 && max > min) && steps > 1) throw new ConfigError("scheduler", "sigmaMin, sigmaMax", "0 < sigmaMin < sigmaMax", [min, max]);
  if (spacing === "exponential") return linspace(Math.log(max), Math.log(min), steps).map(Math.exp);
  const ramp = linspace(0, 1, steps);
  if (spacing === "beta") return ramp.map(r => min + betaQuantile(1 - r) * (max - min));
  const rho = 7,
    first = max ** (1 / rho),
    last = min ** (1 / rho);
  return ramp.map(r => (first + r * (last - first)) ** rho);
}

/** The timestep of sigma, by linear interpolation in log sigma: the inverse of a table of training sigmas. */
export function timestepOfSigma(sigma: number, logSigmas: readonly number[]): number {
  const log = Math.log(Math.max(sigma, 1e-10));
  let low = 0;
  while (low < logSigmas.length - 2 && logSigmas[low + 1]! <= log) low++;
  const [a, b] = [logSigmas[low]!, logSigmas[low + 1]!];
  const weight = Math.min(Math.max((a - log) / f32(a - b), 0), 1);
  return (1 - weight) * low + weight * (low + 1);
}

export function logTable(sigmas: readonly number[]): number[] {
  return sigmas.map(s => f32(Math.log(s)));
}
