/** General conformity scores V(x, y), increasing in the alignment y (Jin & Candes 2023, section 2): a test unit is as conforming as it would be at its
 *  cutoff, V_j = V(x_j, c_j), and p_j counts the calibration units with V(x_i, y_i) at or below that. */

import { checkLength, checkRange, checkScores } from "./check.js";
import type { PValues } from "./p-value-kinds.js";
import { Ranks } from "./ranks.js";

/** V of one unit: its alignment y, the predictor's score mu, its cutoff c. Must not decrease in y. */
export type ConformityScore = (y: number, mu: number, c: number) => number;

/** M 1{y > c} - mu with M without bound: the alignment p-value exactly, and the most powerful of the three. */
export const clip: ConformityScore = (y, mu, c) => (y > c ? Infinity : -mu);

/** y - mu, for a predictor of the alignment itself. */
export const residual: ConformityScore = (y, mu) => y - mu;

/** Units measured in numbers, each with a cutoff of its own if need be: aligned means y > c. */
export interface MeasuredUnits {
  readonly scores: ArrayLike<number>;
  readonly alignment: ArrayLike<number>;
  readonly cutoff: number | ArrayLike<number>;
}

export interface ConformityOptions {
  /** One uniform number per test unit splits ties exactly; without it ties count against the unit. */
  readonly uniforms?: ArrayLike<number>;
  /** "null-only" keeps only calibration units that are not aligned, in the denominator too. */
  readonly kind?: "alignment" | "null-only";
}

/** p_j = (#{V_i < V_j} + U_j (1 + #{V_i = V_j})) / (n + 1), with U_j = 1 unless uniforms are given. */
export function conformityPValues(
  calibration: MeasuredUnits,
  test: { readonly scores: ArrayLike<number>; readonly cutoff: number | ArrayLike<number> },
  conformity: ConformityScore,
  { uniforms, kind = "alignment" }: ConformityOptions = {},
): PValues<"alignment" | "null-only"> {
  const subject = "conformityPValues";
  const mu = checkScores(subject, "calibration.scores", calibration.scores);
  checkLength(subject, "calibration.alignment", calibration.alignment, mu.length);
  const y = checkScores(subject, "calibration.alignment", calibration.alignment);
  const c = cutoffs(subject, "calibration.cutoff", calibration.cutoff, mu.length);
  const v = mu.map((score, i) => conformity(y[i]!, score, c[i]!));
  const counted = kind === "null-only" ? v.filter((_, i) => y[i]! <= c[i]!) : v;
  const ranks = new Ranks(checkScores(subject, "calibration conformity", counted));
  const testScores = checkScores(subject, "test.scores", test.scores);
  const testCutoffs = cutoffs(subject, "test.cutoff", test.cutoff, testScores.length);
  if (uniforms) checkLength(subject, "uniforms", uniforms, testScores.length);
  const u = uniforms && checkRange(subject, "uniforms", uniforms, 0, 1);
  const atCutoff = testScores.map((score, j) => conformity(testCutoffs[j]!, score, testCutoffs[j]!));
  checkScores(subject, "test conformity", atCutoff);
  const value = (vj: number, j: number): number => {
    const below = ranks.below(vj);
    return (below + (u ? u[j]! : 1) * (1 + ranks.atMost(vj) - below)) / (counted.length + 1);
  };
  return { kind, values: atCutoff.map(value) };
}

function cutoffs(subject: string, option: string, cutoff: number | ArrayLike<number>, length: number): Float64Array {
  if (typeof cutoff === "number") return checkScores(subject, option, new Float64Array(length).fill(cutoff));
  checkLength(subject, option, cutoff, length);
  return checkScores(subject, option, cutoff);
}
