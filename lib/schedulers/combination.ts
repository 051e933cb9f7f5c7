/** Linear algebra of combinations: a method is written as its paper writes it, and the coefficients fall out. */

import type { Combination } from "./scheduler.js";

/** x itself, D itself, and entry k of the memory. */
export const state: Combination = { state: 1 };
export const denoised: Combination = { denoised: 1 };
export function memory(k: number): Combination {
  return { memory: Array.from({ length: k + 1 }, (_, i) => (i === k ? 1 : 0)) };
}

/** by * c */
export function times(by: number, c: Combination): Combination {
  return {
    state: by * (c.state ?? 0),
    denoised: by * (c.denoised ?? 0),
    output: by * (c.output ?? 0),
    noise: by * (c.noise ?? 0),
    memory: (c.memory ?? []).map(m => by * m),
  };
}

export function plus(...terms: readonly Combination[]): Combination {
  const total = (of: (c: Combination) => number | undefined): number => terms.reduce((sum, c) => sum + (of(c) ?? 0), 0);
  const entries = Math.max(0, ...terms.map(c => c.memory?.length ?? 0));
  return {
    state: total(c => c.state),
    denoised: total(c => c.denoised),
    output: total(c => c.output),
    noise: total(c => c.noise),
    memory: Array.from({ length: entries }, (_, k) => total(c => c.memory?.[k])),
  };
}

/** a - b */
export function minus(a: Combination, b: Combination): Combination {
  return plus(a, times(-1, b));
}
