/** Denoising Diffusion Implicit Models, Song et al. 2021, arXiv:2010.02502, eq. 12, as diffusers' DDIMScheduler:
 *  x <- sqrt(a') D + sqrt(1 - a' - std^2) eps + std N,  std^2 = eta^2 (1 - a') / (1 - a) (1 - a / a'),  a' the alpha of the next, smaller timestep. */

import { ConfigError } from "../errors.js";
import { type ClipOptions, checkClip, checkCounts, levelOfAlpha, type Scheduler } from "./scheduler.js";
import { type SpacingOptions, spacedTimesteps } from "./timesteps.js";

export interface DdimOptions extends ClipOptions, SpacingOptions {
  /** 0: deterministic; 1: as much noise as DDPM. In [0, 1]. */
  readonly eta?: number;
  /** Whether the step after the last lands on clean data (alpha 1) or on alphasCumprod[0], as Stable Diffusion does (false). */
  readonly setAlphaToOne?: boolean;
}

export function ddim(options: DdimOptions = {}): Scheduler {
  const { eta = 0, spacing = "leading", stepsOffset = 1, setAlphaToOne = false } = options;
  if (!(eta >= 0 && eta <= 1)) throw new ConfigError("ddim", "eta", "in [0, 1]", eta);
  const clip = checkClip("ddim", options.clip);
  return (process, steps, skip = 0) => {
    const { steps: total, alphasCumprod } = process;
    checkCounts("ddim", steps, skip, total);
    const timesteps = spacedTimesteps(total, steps, spacing, stepsOffset).slice(skip);
    return timesteps.map(timestep => {
      const previous = timestep - Math.floor(total / steps);
      const a = alphasCumprod[timestep]!,
        next = previous >= 0 ? alphasCumprod[previous]! : setAlphaToOne ? 1 : alphasCumprod[0]!;
      const std = eta * Math.sqrt(((1 - next) / (1 - a)) * (1 - a / next));
      const noise = process.predictedNoise(timestep),
        direction = Math.sqrt(Math.max(1 - next - std * std, 0));
      return {
        timestep,
        level: levelOfAlpha(a),
        denoised: process.cleanSample(timestep),
        ...clip,
        update: { state: direction * noise.sample, denoised: Math.sqrt(next), output: direction * noise.output, noise: std },
      };
    });
  };
}
