/** Which timesteps an n-step run visits: Lin et al. 2023, arXiv:2305.08891, table 2, with the roundings of diffusers' set_timesteps. */

import { ConfigError } from "../errors.js";

export type TimestepSpacing = "leading" | "trailing" | "linspace";

export interface SpacingOptions {
  readonly spacing?: TimestepSpacing;
  /** Added to "leading" timesteps; 1 for Stable Diffusion. */
  readonly stepsOffset?: number;
}

/** Timesteps of DDPM, DDIM and their kin, descending: whole numbers of [0, total). `offset` applies to "leading". */
export function spacedTimesteps(total: number, steps: number, spacing: TimestepSpacing, offset: number): number[] {
  checkSteps(total, steps);
  if (spacing === "leading") return leading(total, steps, steps, offset);
  if (spacing === "trailing") return trailing(total, steps);
  return linspace(0, total - 1, steps)
    .map(roundHalfEven)
    .reverse();
}

/** Timesteps of Euler's method and Heun's: as above, but "linspace" is not rounded to whole numbers, only to float32. */
export function fractionalTimesteps(total: number, steps: number, spacing: TimestepSpacing, offset: number): number[] {
  if (spacing !== "linspace") return spacedTimesteps(total, steps, spacing, offset);
  checkSteps(total, steps);
  return linspace(0, total - 1, steps)
    .map(Math.fround)
    .reverse();
}

/** Timesteps of DPM-Solver and UniPC: of steps + 1 points the last, which is clean data, is left out. */
export function solverTimesteps(total: number, steps: number, spacing: TimestepSpacing, offset: number): number[] {
  checkSteps(spacing === "leading" ? total - 1 : total, steps);
  if (spacing === "leading") return leading(total, steps, steps + 1, offset);
  if (spacing === "trailing") return trailing(total, steps);
  return linspace(0, total - 1, steps + 1)
    .map(roundHalfEven)
    .slice(1)
    .reverse();
}

/** numpy.linspace: n points from first to last, both included; one point is the first. */
export function linspace(first: number, last: number, n: number): number[] {
  const step = (last - first) / (n - 1);
  return Array.from({ length: n }, (_, i) => (i === n - 1 && n > 1 ? last : i === 0 ? first : i * step + first));
}

/** The `steps` largest of `points` multiples of floor(total / points), descending. */
function leading(total: number, steps: number, points: number, offset: number): number[] {
  const stride = Math.floor(total / points);
  const largest = (points - 1) * stride + offset;
  if (!Number.isSafeInteger(offset) || offset < 0 || largest >= total)
    throw new ConfigError("scheduler", "stepsOffset", `a whole number below ${total - (points - 1) * stride} for ${steps} steps`, offset);
  return Array.from({ length: steps }, (_, i) => largest - i * stride);
}

function trailing(total: number, steps: number): number[] {
  return Array.from({ length: steps }, (_, i) => roundHalfEven(total - i * (total / steps)) - 1);
}

function checkSteps(most: number, steps: number): void {
  if (!Number.isSafeInteger(steps) || steps < 1 || steps > most) throw new ConfigError("scheduler", "steps", `an integer in [1, ${most}]`, steps);
}

/** Rounds as numpy does: halves to even. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x),
    rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
