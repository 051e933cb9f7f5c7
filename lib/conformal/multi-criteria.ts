/** Several criteria at once: one joint label, one joint score, one selection. Selecting per criterion and intersecting is not valid (the errors of each
 *  selection pile up in a smaller set), nor is Benjamini-Hochberg on the largest p-value of each unit. */

import { ConfigError } from "../errors.js";
import { checkLabels, checkLength, checkRange } from "./check.js";

/** "all" criteria must hold, or "any" one. */
export type Combination = "all" | "any";

/** 1 where the unit is aligned as a whole. `criteria`: one row of K labels per unit. */
export function jointLabel(criteria: readonly ArrayLike<number | boolean>[], combination: Combination): Uint8Array {
  return rows("jointLabel", criteria, combination, (row, i) => {
    const labels = checkLabels("jointLabel", `criteria[${i}]`, row);
    return Number(combination === "all" ? labels.every(label => label === 1) : labels.includes(1));
  }) as Uint8Array;
}

/** Probability of the joint label if criteria were independent given the unit: prod p_k for all, 1 - prod (1 - p_k) for any. The guarantee does not rest on
 *  that; a predictor of the joint label may select more. `probabilities`: one row of K numbers in [0, 1] per unit. */
export function jointScore(probabilities: readonly ArrayLike<number>[], combination: Combination): Float64Array {
  return Float64Array.from(
    rows("jointScore", probabilities, combination, (row, i) => {
      const p = checkRange("jointScore", `probabilities[${i}]`, row, 0, 1);
      return combination === "all" ? p.reduce((product, one) => product * one, 1) : 1 - p.reduce((product, one) => product * (1 - one), 1);
    }),
  );
}

function rows<T>(subject: string, table: readonly ArrayLike<T>[], combination: Combination, each: (row: ArrayLike<T>, i: number) => number): ArrayLike<number> {
  if (combination !== "all" && combination !== "any") throw new ConfigError(subject, "combination", '"all" or "any"', combination);
  const width = table[0]?.length ?? 1;
  if (width === 0) throw new ConfigError(subject, "criteria", "at least one per unit", 0);
  const out = table.map((row, i) => {
    checkLength(subject, `row ${i}`, row, width);
    return each(row, i);
  });
  return subject === "jointLabel" ? Uint8Array.from(out) : out;
}
