/** Euler's method with ancestral noise, Katherine Crowson's k-diffusion, sample_euler_ancestral, as diffusers' EulerAncestralDiscreteScheduler: a step goes down
 *  to sigma_down, from where noise of sigma_up leads back up to the next sigma: up^2 = s'^2 (s^2 - s'^2) / s^2, down^2 = s'^2 - up^2. */

import { ConfigError } from "../errors.js";
import { explodingGrid, explodingStep } from "./exploding.js";
import type { Scheduler } from "./scheduler.js";
import type { SpacingOptions } from "./timesteps.js";

export interface EulerAncestralOptions extends SpacingOptions {
  /** Scales the ancestral noise: 0 is Euler's method, 1 by default. In [0, 1]. */
  readonly eta?: number;
}

export function eulerAncestral(options: EulerAncestralOptions = {}): Scheduler {
  const { eta = 1 } = options;
  if (!(eta >= 0 && eta <= 1)) throw new ConfigError("eulerAncestral", "eta", "in [0, 1]", eta);
  return (process, steps, skip = 0) => {
    const { timesteps, sigmas } = explodingGrid("eulerAncestral", process, steps, skip, options);
    const plan = timesteps.map((timestep, i) => {
      const sigma = sigmas[i]!,
        next = sigmas[i + 1]!;
      const up = eta * next * Math.sqrt(1 - (next / sigma) ** 2),
        shrink = Math.sqrt(next * next - up * up) / sigma;
      return { ...explodingStep(process, timestep, sigma, options.spacing), update: { state: shrink, denoised: 1 - shrink, noise: up } };
    });
    return plan.slice(skip);
  };
}
