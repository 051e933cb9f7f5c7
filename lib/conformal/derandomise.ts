/** One answer from several runs (splits, seeds, predictors). Averaged scores keep all the power and are valid as long as every score comes from data
 *  other than calibration and test; averaged e-values are valid even where the runs used different calibration sets, and select much less. */

import { ConfigError } from "../errors.js";
import { checkLength, checkLevel, checkScores, type LabelledScores } from "./check.js";
import { averagedEValues, type EValues, eBh, thresholdEValues } from "./e-values.js";

/** The mean score of each unit over runs. Average calibration and test scores over the same runs, then select once. */
export function averagedScores(runs: readonly ArrayLike<number>[]): Float64Array {
  const first = runs[0];
  if (!first) throw new ConfigError("averagedScores", "runs.length", "at least 1", 0);
  const sum = new Float64Array(first.length);
  for (const [r, run] of runs.entries()) {
    checkLength("averagedScores", `runs[${r}]`, run, first.length);
    const scores = checkScores("averagedScores", `runs[${r}]`, run);
    for (let i = 0; i < sum.length; i++) sum[i]! += scores[i]!;
  }
  return sum.map((total, i) => {
    if (Number.isNaN(total)) throw new ConfigError("averagedScores", "runs", "scores with a mean", total, `unit ${i} has infinities of both signs`);
    return total / runs.length;
  });
}

export interface EValueRun {
  readonly calibration: LabelledScores;
  /** Scores of the same test units in every run. */
  readonly test: ArrayLike<number>;
}

/** e-BH at alpha on the mean of each run's e-values. `innerAlpha` sets each run's threshold: alpha / 2 by default (Bashari et al. 2023); at alpha itself the
 *  mean reaches m / (alpha k) only where all runs agree. */
export function derandomised(
  runs: readonly EValueRun[],
  alpha: number,
  { innerAlpha = alpha / 2 }: { readonly innerAlpha?: number } = {},
): { readonly selected: Uint32Array; readonly k: number; readonly e: EValues } {
  checkLevel("derandomised", "alpha", alpha);
  checkLevel("derandomised", "innerAlpha", innerAlpha);
  const e = averagedEValues(runs.map(({ calibration, test }) => thresholdEValues(calibration, test, innerAlpha)));
  return { ...eBh(e, alpha), e };
}
