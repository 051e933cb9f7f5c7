/** Which terms occur in a scheduler's plan. A program holds those and no others, so that one program serves every plan of the same terms, and a first-order
 *  method pays for no memory, a deterministic one for no noise. */

import type { Combination, SchedulerStep } from "../schedulers/scheduler.js";

/** A term of a combination: "memory0" is the first entry of the memory. */
export type Term = "state" | "denoised" | "output" | "noise" | `memory${number}`;

export interface PlanTerms {
  readonly inputScale: boolean;
  readonly clip: boolean;
  readonly update: readonly Term[];
  /** Of the combinations that a step remembers, by their order in the step. */
  readonly saved: readonly (readonly Term[])[];
}

export function termsOf(plan: readonly SchedulerStep[]): PlanTerms {
  const saved = plan.map(savedBy);
  const most = Math.max(0, ...saved.map(s => s.length));
  return {
    inputScale: plan.some(step => (step.inputScale ?? 1) !== 1),
    clip: plan.some(step => step.clip !== undefined),
    update: union(plan.map(step => step.update)),
    saved: Array.from({ length: most }, (_, j) => union(saved.flatMap(s => s[j] ?? []))),
  };
}

/** The combinations among what a step remembers, in order. */
export function savedBy({ remember = [] }: SchedulerStep): Combination[] {
  return remember.filter((r): r is Combination => typeof r === "object");
}

export function coefficient(combination: Combination | undefined, term: Term): number {
  if (!combination) return 0;
  if (term === "state" || term === "denoised" || term === "output" || term === "noise") return combination[term] ?? 0;
  return combination.memory?.[memoryIndex(term)!] ?? 0;
}

/** Which entry of the memory a term is, undefined if none. */
export function memoryIndex(term: Term): number | undefined {
  return term.startsWith("memory") ? Number(term.slice("memory".length)) : undefined;
}

/** Terms with a coefficient that is not 0 in one of the combinations; x where there is none, for a sum must have a term. */
function union(combinations: readonly Combination[]): Term[] {
  const entries = Math.max(0, ...combinations.map(c => c.memory?.length ?? 0));
  const all: Term[] = ["state", "denoised", "output", "noise", ...Array.from({ length: entries }, (_, k) => `memory${k}` as const)];
  const used = all.filter(term => combinations.some(c => coefficient(c, term) !== 0));
  return used.length > 0 ? used : ["state"];
}
