/** Ancestral sampling of Denoising Diffusion Probabilistic Models, Ho et al. 2020, arXiv:2006.11239, eq. 7, as diffusers' DDPMScheduler:
 *  x <- sqrt(a') b / (1 - a) D + sqrt(a / a') (1 - a') / (1 - a) x + std N,  with b = 1 - a / a'. No noise at the last timestep. */

import { ConfigError } from "../errors.js";
import { type ClipOptions, checkClip, checkCounts, levelOfAlpha, type Scheduler } from "./scheduler.js";
import { type SpacingOptions, spacedTimesteps } from "./timesteps.js";

export interface DdpmOptions extends ClipOptions, SpacingOptions {
  /** "fixed_small": the posterior variance (1 - a') / (1 - a) b; "fixed_large": b. */
  readonly variance?: "fixed_small" | "fixed_large";
}

export function ddpm(options: DdpmOptions = {}): Scheduler {
  const { variance = "fixed_small", spacing = "leading", stepsOffset = 1 } = options;
  if (variance !== "fixed_small" && variance !== "fixed_large") throw new ConfigError("ddpm", "variance", "fixed_small or fixed_large", variance);
  const clip = checkClip("ddpm", options.clip);
  return (process, steps, skip = 0) => {
    const { steps: total, alphasCumprod } = process;
    checkCounts("ddpm", steps, skip, total);
    const timesteps = spacedTimesteps(total, steps, spacing, stepsOffset);
    const plan = timesteps.map((timestep, i) => {
      const previous = timesteps[i + 1] ?? -1;
      const a = alphasCumprod[timestep]!,
        next = previous >= 0 ? alphasCumprod[previous]! : 1;
      const b = 1 - a / next,
        posterior = Math.max(((1 - next) / (1 - a)) * b, 1e-20);
      return {
        timestep,
        level: levelOfAlpha(a),
        denoised: process.cleanSample(timestep),
        ...clip,
        update: {
          state: (Math.sqrt(a / next) * (1 - next)) / (1 - a),
          denoised: (Math.sqrt(next) * b) / (1 - a),
          noise: timestep === 0 ? 0 : Math.sqrt(variance === "fixed_small" ? posterior : b),
        },
      };
    });
    return plan.slice(skip);
  };
}
