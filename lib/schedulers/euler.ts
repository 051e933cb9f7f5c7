/** Euler's method for the probability-flow ODE dx / dsigma = (x - D) / sigma, Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its correction and churn,
 *  as diffusers' EulerDiscreteScheduler: x <- s'/s x + (1 - s'/s) D. */

import { type ExplodingOptions, explodingGrid, explodingStep } from "./exploding.js";
import type { Scheduler } from "./scheduler.js";

export function euler(options: ExplodingOptions = {}): Scheduler {
  return (process, steps, skip = 0) => {
    const { timesteps, sigmas } = explodingGrid("euler", process, steps, skip, options);
    const plan = timesteps.map((timestep, i) => {
      const shrink = sigmas[i + 1]! / sigmas[i]!;
      return { ...explodingStep(process, timestep, sigmas[i]!, options.spacing), update: { state: shrink, denoised: 1 - shrink } };
    });
    return plan.slice(skip);
  };
}
