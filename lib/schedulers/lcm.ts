/** Multistep sampling of latent consistency models, Luo et al. 2023, arXiv:2310.04378, algorithm 3, as diffusers' LCMScheduler: x <- sqrt(a') f + sqrt(1 - a') N,
 *  with the consistency function f = c_skip x + c_out D of Song et al. 2023, arXiv:2303.01469, app. C, sigma_data 0.5. The last step keeps f. */

import { ConfigError } from "../errors.js";
import { type ClipOptions, checkClip, checkCounts, levelOfAlpha, type Scheduler } from "./scheduler.js";

export interface LcmOptions extends ClipOptions {
  /** Timesteps that the model was distilled on. */
  readonly originalSteps?: number;
  /** Scales the timestep in the boundary condition. */
  readonly timestepScaling?: number;
}

const sigmaData = 0.5;

export function lcm(options: LcmOptions = {}): Scheduler {
  const { originalSteps = 50, timestepScaling = 10 } = options;
  if (!Number.isSafeInteger(originalSteps) || originalSteps < 1) throw new ConfigError("lcm", "originalSteps", "a whole number >= 1", originalSteps);
  const clip = checkClip("lcm", options.clip);
  return (process, steps, skip = 0) => {
    const { steps: total, alphasCumprod } = process;
    if (originalSteps > total) throw new ConfigError("lcm", "originalSteps", `at most ${total}, the process's timesteps`, originalSteps);
    checkCounts("lcm", steps, skip, originalSteps);
    // n of the timesteps of distillation, evenly spaced from the noisiest down
    const stride = Math.floor(total / originalSteps);
    const timesteps = Array.from({ length: steps }, (_, i) => (originalSteps - Math.floor(i * (originalSteps / steps))) * stride - 1);
    const plan = timesteps.map((timestep, i) => {
      const scaled = timestep * timestepScaling,
        sum = scaled * scaled + sigmaData * sigmaData;
      const skipWeight = (sigmaData * sigmaData) / sum,
        outWeight = scaled / Math.sqrt(sum);
      const next = timesteps[i + 1];
      const { signal, noise } = next === undefined ? { signal: 1, noise: 0 } : levelOfAlpha(alphasCumprod[next]!);
      return {
        timestep,
        level: levelOfAlpha(alphasCumprod[timestep]!),
        denoised: process.cleanSample(timestep),
        ...clip,
        update: { state: signal * skipWeight, denoised: signal * outWeight, noise },
      };
    });
    return plan.slice(skip);
  };
}
