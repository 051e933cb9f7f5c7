/** The same selection as a threshold on scores: everything at or above the lowest test score whose estimated false discovery proportion
 *  m (1 + #{nulls at or above}) / ((n + 1) #{test units at or above}) is at most alpha. Equal to Benjamini-Hochberg on the p-values. */

import { checkLevel, checkScores, type LabelledScores, slack } from "./check.js";
import { NullScores } from "./p-values.js";
import { Ranks } from "./ranks.js";

export interface ThresholdRule {
  /** Infinity where no threshold qualifies and nothing is selected; look at k, since scores may be infinite too. */
  readonly threshold: number;
  readonly k: number;
  /** Calibration nulls at or above the threshold. */
  readonly nullsAbove: number;
}

export function scoreThreshold(calibration: LabelledScores, test: ArrayLike<number>, alpha: number): ThresholdRule {
  checkLevel("scoreThreshold", "alpha", alpha);
  const nulls = NullScores.of(calibration, "alignment", "scoreThreshold");
  return thresholdRule(nulls, new Ranks(checkScores("scoreThreshold", "test.scores", test)), alpha);
}

/** Two sorted lists, walked from the lowest test score upwards: the first that qualifies selects most. */
export function thresholdRule(nulls: NullScores, test: Ranks, alpha: number): ThresholdRule {
  const m = test.size,
    scores = test.sorted,
    ranked = nulls.nulls.sorted;
  for (let j = 0, i = 0; j < m; j++) {
    const score = scores[j]!;
    if (j > 0 && scores[j - 1] === score) continue; // #{test at or above} counts from the first of equals
    while (i < ranked.length && ranked[i]! < score) i++;
    const nullsAbove = ranked.length - i;
    if ((1 + nullsAbove) * m <= alpha * (m - j) * (nulls.count + 1) * slack) return { threshold: score, k: m - j, nullsAbove };
  }
  return { threshold: Infinity, k: 0, nullsAbove: 0 };
}
