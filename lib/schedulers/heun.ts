/** Heun's method for the probability-flow ODE, Karras et al. 2022, arXiv:2206.00364, algorithm 1, as diffusers' HeunDiscreteScheduler: an Euler step from s to s',
 *  a second evaluation there, and the step again with the mean of both slopes. The step to sigma 0 has no second evaluation. */

import { type ExplodingOptions, explodingGrid, explodingStep } from "./exploding.js";
import { type ClipOptions, checkClip, type Scheduler, type SchedulerStep } from "./scheduler.js";

export interface HeunOptions extends ExplodingOptions, ClipOptions {}

/** A plan of n steps has up to 2n - 1 evaluations. */
export function heun(options: HeunOptions = {}): Scheduler {
  const clip = checkClip("heun", options.clip);
  return (process, steps, skip = 0) => {
    const { timesteps, sigmas } = explodingGrid("heun", process, steps, skip, options);
    return timesteps.slice(skip).flatMap((timestep, i): SchedulerStep[] => {
      const at = i + skip,
        sigma = sigmas[at]!,
        next = sigmas[at + 1]!,
        nextTimestep = timesteps[at + 1] ?? timestep;
      const first = { ...explodingStep(process, timestep, sigma, options.spacing), ...clip };
      const shrink = next / sigma;
      const predictor: SchedulerStep = { ...first, update: { state: shrink, denoised: 1 - shrink }, remember: ["state", "denoised"] };
      if (next === 0 || next === sigma) return [{ ...predictor, remember: [] }];
      // x_0 + (s' - s) / 2 ((x_0 - D_0) / s + (x - D) / s'), where x_0 and D_0 are the memory
      const half = (next - sigma) / 2;
      const corrector: SchedulerStep = {
        ...explodingStep(process, nextTimestep, next, options.spacing),
        ...clip,
        update: { state: half / next, denoised: -half / next, memory: [1 + half / sigma, -half / sigma] },
      };
      return [predictor, corrector];
    });
  };
}
