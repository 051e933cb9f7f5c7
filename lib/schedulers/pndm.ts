/** Pseudo linear multistep (PLMS) of Pseudo Numerical Methods for Diffusion Models, Liu et al. 2022, arXiv:2202.09778, eq. 11-12, as diffusers' PNDMScheduler with
 *  skip_prk_steps, the scheduler that Stable Diffusion 1 was released with: DDIM's transfer with the Adams-Bashforth combination of the last four outputs. The
 *  first step is taken twice, the second time with the mean of the outputs at its ends, so n steps are n + 1 evaluations. */

import { memory, plus, state, times } from "./combination.js";
import { type Combination, checkCounts, type ForwardProcess, levelOfAlpha, type Scheduler, type SchedulerStep } from "./scheduler.js";
import { type SpacingOptions, spacedTimesteps } from "./timesteps.js";

export interface PndmOptions extends SpacingOptions {
  /** Whether the step after the last lands on clean data (alpha 1) or on alphasCumprod[0], as Stable Diffusion does (false). */
  readonly setAlphaToOne?: boolean;
}

const output: Combination = { output: 1 };

export function pndm({ spacing = "leading", stepsOffset = 1, setAlphaToOne = false }: PndmOptions = {}): Scheduler {
  return (process, steps, skip = 0) => {
    const { steps: total, alphasCumprod } = process;
    checkCounts("pndm", steps, skip, total);
    const timesteps = spacedTimesteps(total, steps, spacing, stepsOffset).slice(skip);
    const after = (timestep: number): number => alphasCumprod[timestep - Math.floor(total / steps)] ?? (setAlphaToOne ? 1 : alphasCumprod[0]!);
    const step = (timestep: number, update: Combination, remember: SchedulerStep["remember"]): SchedulerStep => {
      return { timestep, level: levelOfAlpha(alphasCumprod[timestep]!), denoised: process.cleanSample(timestep), update, remember: remember! };
    };
    const [first, second] = timesteps as [number, number?];
    const plan = [step(first, transfer(process, first, after(first), state, output), [output, "state"])];
    if (second === undefined) return plan;
    const mean = times(1 / 2, plus(output, memory(0)));
    plan.push(step(second, transfer(process, first, after(first), memory(1), mean), [0]));
    for (const [i, timestep] of timesteps.slice(1).entries()) {
      const past = Math.min(i, 2); // older outputs that the step after this one finds besides the newest
      plan.push(
        step(
          timestep,
          transfer(process, timestep, after(timestep), state, adamsBashforth(i + 2)),
          [output, 0, 1].slice(0, past + 2) as (Combination | number)[],
        ),
      );
    }
    return plan;
  };
}

/** x from timestep t to where the share of signal power is `next`, with the noise that the model's `combined` outputs stand for: eq. 11. */
function transfer(process: ForwardProcess, t: number, next: number, x: Combination, combined: Combination): Combination {
  const a = process.alphasCumprod[t]!;
  const noise = process.predictedNoise(t);
  const e = plus(times(noise.sample, x), times(noise.output, combined));
  return plus(times(Math.sqrt(next / a), x), times((a - next) / (a * Math.sqrt(1 - next) + Math.sqrt(a * (1 - a) * next)), e));
}

/** The output at hand and those of the memory, newest first, of `count` evaluations in all. */
function adamsBashforth(count: number): Combination {
  const [newest, ...older] = count === 2 ? [3 / 2, -1 / 2] : count === 3 ? [23 / 12, -16 / 12, 5 / 12] : [55 / 24, -59 / 24, 37 / 24, -9 / 24];
  return { output: newest!, memory: older };
}
