/** Learning-rate schedules as factors of the base rate: step k (from 0) -> factor, k counting optimizer steps. The formulas are those of diffusers
 *  `get_scheduler`: with a warm-up the very first step has factor 0. A schedule is a plain function, so a run may bring its own. */

import { ConfigError } from "../errors.js";

export type LearningRateSchedule = (step: number) => number;

export interface Warmup {
  /** Optimizer steps over which the factor rises linearly from 0 to 1 (default 0). */
  readonly warmup?: number;
}

export interface Decay extends Warmup {
  /** Optimizer steps of the whole run, warm-up included. */
  readonly total: number;
}

/** 1 throughout. */
export function constant(): LearningRateSchedule {
  return () => 1;
}

/** Linear rise over `warmup` steps, then 1: what the published preference runs use. */
export function constantWithWarmup({ warmup }: { readonly warmup: number }): LearningRateSchedule {
  check("constantWithWarmup", { warmup });
  return warmedUp(warmup, () => 1);
}

/** Linear rise, then linear fall to 0 at `total`. */
export function linear({ warmup = 0, total }: Decay): LearningRateSchedule {
  check("linear", { warmup, total });
  return warmedUp(warmup, step => Math.max(0, (total - step) / Math.max(1, total - warmup)));
}

/** Linear rise, then half a cosine from 1 to 0 at `total`. Past `total` the cosine goes on and rises again, as in diffusers. */
export function cosine({ warmup = 0, total }: Decay): LearningRateSchedule {
  check("cosine", { warmup, total });
  return warmedUp(warmup, step => Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / Math.max(1, total - warmup)))));
}

/** Linear rise, then `cycles` half cosines, each from 1 to 0; 0 from `total` on. */
export function cosineWithRestarts({ warmup = 0, total, cycles = 1 }: Decay & { readonly cycles?: number }): LearningRateSchedule {
  check("cosineWithRestarts", { warmup, total, cycles });
  return warmedUp(warmup, step => {
    const progress = (step - warmup) / Math.max(1, total - warmup);
    return progress >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * ((cycles * progress) % 1))));
  });
}

/** Linear rise, then (1 - progress)^power from 1 to `end` (a fraction of the base rate, default 1e-4), held from `total` on. */
export function polynomial({ warmup = 0, total, power = 1, end = 1e-4 }: Decay & { readonly power?: number; readonly end?: number }): LearningRateSchedule {
  check("polynomial", { warmup, total });
  return warmedUp(warmup, step => (step > total ? end : (1 - end) * (1 - (step - warmup) / Math.max(1, total - warmup)) ** power + end));
}

function warmedUp(warmup: number, then: LearningRateSchedule): LearningRateSchedule {
  return step => (step < warmup ? step / Math.max(1, warmup) : then(step));
}

function check(subject: string, counts: Readonly<Record<string, number>>): void {
  for (const [option, value] of Object.entries(counts))
    if (!Number.isSafeInteger(value) || value < 0) throw new ConfigError(subject, option, "an integer >= 0", value);
  const { warmup = 0, total } = counts;
  if (total !== undefined && total < warmup) throw new ConfigError(subject, "total", `at least warmup (${warmup})`, total);
}
