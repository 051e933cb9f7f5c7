/** Ancestral sampling of Denoising Diffusion Probabilistic Models, Ho et al. 2020, arXiv:2006.11239, eq. 7, as diffusers' DDPMScheduler:
 *  x <- sqrt(a') b / (1 - a) D + sqrt(a / a') (1 - a') / (1 - a) x + std N,  with b = 1 - a / a'. No noise at the last timestep. */

import { ConfigError } from "../errors.js";
import { parseSchedulerConfig, type Scheduler, spacedTimesteps, type TimestepSpacing } from "./scheduler.js";

export interface DdpmOptions {
  /** "fixed_small": the posterior variance (1 - a') / (1 - a) b; "fixed_large": b. */
  readonly variance?: "fixed_small" | "fixed_large";
  /** Clamp the clean estimate to [-clip, clip]; pixel-space models use 1. */
  readonly clip?: number;
  readonly spacing?: TimestepSpacing;
  /** Added to "leading" timesteps; 1 for Stable Diffusion. */
  readonly stepsOffset?: number;
}

export function ddpm(options: DdpmOptions = {}): Scheduler {
  const { variance = "fixed_small", clip, spacing = "leading", stepsOffset = 1 } = options;
  return (process, steps) => {
    const { steps: total, alphasCumprod } = process;
    const timesteps = spacedTimesteps(total, steps, spacing, stepsOffset);
    return timesteps.map((timestep, i) => {
      const previous = timesteps[i + 1] ?? -1;
      const a = alphasCumprod[timestep]!,
        next = previous >= 0 ? alphasCumprod[previous]! : 1;
      const b = 1 - a / next,
        posterior = Math.max(((1 - next) / (1 - a)) * b, 1e-20);
      return {
        timestep,
        denoised: process.cleanSample(timestep),
        ...(clip === undefined ? {} : { clip }),
        update: {
          state: (Math.sqrt(a / next) * (1 - next)) / (1 - a),
          denoised: (Math.sqrt(next) * b) / (1 - a),
          output: 0,
          noise: timestep === 0 ? 0 : Math.sqrt(variance === "fixed_small" ? posterior : b),
        },
      };
    });
  };
}

/** DDPM as a diffusers scheduler_config.json describes it. */
export function ddpmFromConfig(config: Readonly<Record<string, unknown>>, source: string): Scheduler {
  const { spacing, stepsOffset, clip } = parseSchedulerConfig(config, source);
  const variance = config.variance_type ?? "fixed_small";
  if (variance !== "fixed_small" && variance !== "fixed_large") throw new ConfigError(source, "variance_type", "fixed_small or fixed_large", variance);
  return ddpm({ variance, spacing, stepsOffset, ...(clip === undefined ? {} : { clip }) });
}
