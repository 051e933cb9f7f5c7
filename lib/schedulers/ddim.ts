/** Denoising Diffusion Implicit Models, Song et al. 2021, arXiv:2010.02502, eq. 12, as diffusers' DDIMScheduler:
 *  x <- sqrt(a') D + sqrt(1 - a' - std^2) eps + std N,  std^2 = eta^2 (1 - a') / (1 - a) (1 - a / a'),  a' the alpha of the next, smaller timestep. */

import { ConfigError } from "../errors.js";
import { parseSchedulerConfig, type Scheduler, spacedTimesteps, type TimestepSpacing } from "./scheduler.js";

export interface DdimOptions {
  /** 0: deterministic; 1: as much noise as DDPM. In [0, 1]. */
  readonly eta?: number;
  /** Clamp the clean estimate to [-clip, clip]; pixel-space models use 1. */
  readonly clip?: number;
  readonly spacing?: TimestepSpacing;
  /** Added to "leading" timesteps; 1 for Stable Diffusion. */
  readonly stepsOffset?: number;
  /** Whether the step after the last lands on clean data (alpha 1) or on alphasCumprod[0], as Stable Diffusion does (false). */
  readonly setAlphaToOne?: boolean;
}

export function ddim(options: DdimOptions = {}): Scheduler {
  const { eta = 0, clip, spacing = "leading", stepsOffset = 1, setAlphaToOne = false } = options;
  if (!(eta >= 0 && eta <= 1)) throw new ConfigError("ddim", "eta", "in [0, 1]", eta);
  return (process, steps) => {
    const { steps: total, alphasCumprod } = process;
    return spacedTimesteps(total, steps, spacing, stepsOffset).map(timestep => {
      const previous = timestep - Math.floor(total / steps);
      const a = alphasCumprod[timestep]!,
        next = previous >= 0 ? alphasCumprod[previous]! : setAlphaToOne ? 1 : alphasCumprod[0]!;
      const std = eta * Math.sqrt(((1 - next) / (1 - a)) * (1 - a / next));
      const noise = process.predictedNoise(timestep),
        direction = Math.sqrt(Math.max(1 - next - std * std, 0));
      return {
        timestep,
        denoised: process.cleanSample(timestep),
        ...(clip === undefined ? {} : { clip }),
        update: { state: direction * noise.sample, denoised: Math.sqrt(next), output: direction * noise.output, noise: std },
      };
    });
  };
}

/** DDIM as a diffusers scheduler_config.json describes it; `eta` is an argument of sampling there. */
export function ddimFromConfig(config: Readonly<Record<string, unknown>>, source: string, { eta = 0 }: { eta?: number } = {}): Scheduler {
  const { spacing, stepsOffset, clip } = parseSchedulerConfig(config, source);
  return ddim({ eta, spacing, stepsOffset, setAlphaToOne: config.set_alpha_to_one !== false, ...(clip === undefined ? {} : { clip }) });
}
