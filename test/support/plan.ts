/** Runs a scheduler's plan on plain numbers: the meaning of the contract, written once more, apart from the sampler. */

import type { Combination, Remembered, SchedulerStep } from "../../lib/schedulers/scheduler.js";

export interface PlanRun {
  /** x before the first step and after every step. */
  readonly states: readonly (readonly number[])[];
  /** D of every step. */
  readonly clean: readonly (readonly number[])[];
}

/** `model` sees the scaled sample and the step; `noise(i)` is the standard normal noise of step i. */
export function runPlan(
  plan: readonly SchedulerStep[],
  start: readonly number[],
  model: (x: readonly number[], step: SchedulerStep) => readonly number[],
  noise: (step: number) => ArrayLike<number> = () => [],
): PlanRun {
  const states = [start],
    cleans: number[][] = [];
  let memory: (readonly number[])[] = [];
  for (const [i, step] of plan.entries()) {
    const x = states[i]!,
      n = noise(i);
    const scaled = x.map(v => v * (step.inputScale ?? 1));
    const output = model(scaled, step);
    const clip = step.clip ?? Infinity;
    const clean = x.map((v, j) => Math.max(-clip, Math.min(clip, term(step.denoised.sample, v) + step.denoised.output * output[j]!)));
    const combined = (c: Combination): number[] =>
      x.map((v, j) => {
        const own = term(c.state, v) + term(c.denoised, clean[j]!) + term(c.output, output[j]!) + term(c.noise, n[j]!);
        return (c.memory ?? []).reduce((sum, m, k) => sum + term(m, memory[k]?.[j]), own);
      });
    const entry = (r: Remembered): readonly number[] => (r === "state" ? x : r === "denoised" ? clean : typeof r === "number" ? memory[r]! : combined(r));
    const next = combined(step.update);
    memory = (step.remember ?? []).map(entry);
    if (memory.some(m => m === undefined)) throw new Error(`step ${i} remembers what was never there`);
    cleans.push(clean);
    states.push(next);
  }
  return { states, clean: cleans };
}

/** coefficient * value, where a coefficient of 0 or none asks for no value. */
function term(coefficient: number | undefined, value: number | undefined): number {
  if (!coefficient) return 0;
  if (value === undefined) throw new Error("a coefficient of a value that is not there");
  return coefficient * value;
}
