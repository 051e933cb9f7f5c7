/** Weighted conformal selection (Jin & Candes 2023b, arXiv:2307.09291, algorithm 1): FDR <= alpha under a known covariate shift, for any number of
 *  units. Each unit j gets an auxiliary selection R_j that does not depend on its own label; p_j is compared with alpha |R_j| / m; pruning makes the sets agree.
 *  The weight in all auxiliary p-values of j is w_j, as in the paper and the authors' R package (their Python code has w_l there). */

import { checkLevel, checkScores, checkWeights, type LabelledScores, slack } from "./check.js";
import type { PValues } from "./p-value-kinds.js";
import { type Pruning, prune } from "./pruning.js";
import { NullWeights, type ShiftWeights, weightedPValues } from "./weighted.js";

export interface WcsInput {
  readonly calibration: LabelledScores;
  readonly test: ArrayLike<number>;
  readonly weights: ShiftWeights;
  readonly alpha: number;
  /** Default "homo". */
  readonly pruning?: Pruning;
  /** xi: one per unit for "hete", one for "homo". */
  readonly xi: ArrayLike<number>;
  /** One per unit: ties split at random. */
  readonly uniforms?: ArrayLike<number>;
}

export interface WcsSelection {
  readonly selected: Uint32Array;
  readonly k: number;
  readonly pValues: PValues<"weighted">;
  /** |R_j| of every unit. */
  readonly sizes: Uint32Array;
  /** Units with p_j <= alpha |R_j| / m, before pruning. */
  readonly candidates: Uint32Array;
}

/** Time O(m^2 + n) at worst, memory O(n + m). */
export function weightedConformalSelection({ calibration, test, weights, alpha, pruning = "homo", xi, uniforms }: WcsInput): WcsSelection {
  const subject = "weightedConformalSelection";
  checkLevel(subject, "alpha", alpha);
  const scores = checkScores(subject, "test.scores", test);
  const w = checkWeights(subject, "weights.test", weights.test, scores.length);
  const pValues = weightedPValues(calibration, scores, weights, uniforms);
  const sizes = auxiliarySizes(NullWeights.of(subject, calibration, weights.calibration), scores, w, alpha);
  const m = scores.length;
  const candidates = Uint32Array.from(scores.keys()).filter(j => pValues.values[j]! * m <= alpha * sizes[j]! * slack);
  const selected = prune(candidates, sizes, pruning, xi);
  return { selected, k: selected.length, pValues, sizes, candidates };
}

/** |R_j|: size of Benjamini-Hochberg on p_l = (sum of null weights above t_l + w_j 1{t_j > t_l}) / (total + w_j), l other than j, and p_j = 0.
 *  In descending order of score these p_l ascend, so the last place that qualifies is looked for from the far end. */
function auxiliarySizes(nulls: NullWeights, scores: Float64Array, w: Float64Array, alpha: number): Uint32Array {
  const m = scores.length;
  const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || 0); // infinity - infinity is NaN: equal
  const above = nulls.above(Float64Array.from(order, l => scores[l]!));
  const sizes = new Uint32Array(m);
  for (let first = 0; first < m; ) {
    let end = first + 1;
    while (end < m && scores[order[end]!] === scores[order[first]!]) end++;
    for (let at = first; at < end; at++) {
      const j = order[at]!;
      sizes[j] = auxiliarySize(above, end, w[j]!, (alpha * slack * (nulls.total + w[j]!)) / m);
    }
    first = end;
  }
  return sizes;
}

/** `end`: units that score t_j or more, j among them; the others of those stand one rank later than in `above`, behind p_j = 0. */
function auxiliarySize(above: Float64Array, end: number, weight: number, step: number): number {
  for (let rank = above.length; rank > end; rank--) if (above[rank - 1]! + weight <= step * rank) return rank;
  for (let rank = end; rank >= 2; rank--) if (above[rank - 2]! <= step * rank) return rank;
  return 1;
}
