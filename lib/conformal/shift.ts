/** Do two sets of scores come from one distribution? Exchangeable calibration and test units have scores that do; where they do not, the guarantee is void
 *  unless weights correct it. A test on scores alone sees a shift of labels given scores never. */

import { ConfigError } from "../errors.js";
import type { FittedPredictor, Predictor } from "./predictors/predictor.js";
import type { Ranks } from "./ranks.js";
import type { ShiftWeights } from "./weighted.js";

export interface TwoSampleTest {
  /** Largest distance between the two distribution functions. */
  readonly statistic: number;
  /** Asymptotic; too large, never too small, where scores are tied. */
  readonly pValue: number;
}

/** Two-sample Kolmogorov-Smirnov test. */
export function kolmogorovSmirnov(a: Ranks, b: Ranks): TwoSampleTest {
  let statistic = 0;
  for (let i = 0, j = 0; i < a.size && j < b.size; ) {
    const value = Math.min(a.sorted[i]!, b.sorted[j]!);
    while (i < a.size && a.sorted[i]! <= value) i++;
    while (j < b.size && b.sorted[j]! <= value) j++;
    statistic = Math.max(statistic, Math.abs(i / a.size - j / b.size));
  }
  return { statistic, pValue: kolmogorovTail(Math.sqrt((a.size * b.size) / (a.size + b.size)) * statistic) };
}

/** P(K > x) = 2 sum (-1)^(k-1) exp(-2 k^2 x^2). */
function kolmogorovTail(x: number): number {
  if (!(x > 0.2)) return 1; // the series converges slowly below, where the tail is 1 to 12 digits
  let sum = 0;
  for (let k = 1; k <= 100; k++) sum += (k % 2 === 1 ? 2 : -2) * Math.exp(-2 * k * k * x * x);
  return Math.min(1, Math.max(0, sum));
}

export interface EstimatedWeights extends ShiftWeights {
  /** The exact guarantee needs the true density ratio; a selection with these weights says that it does not have it. */
  readonly estimated: true;
}

/** Density ratios from a classifier of "test" against "calibration": w = p / (1 - p), p cut to [0.001, 0.999]. `predictor` must give probabilities. */
export function estimateShiftWeights({
  calibration,
  test,
  predictor,
  seed = 0,
}: {
  readonly calibration: readonly Float64Array[];
  readonly test: readonly Float64Array[];
  readonly predictor: Predictor;
  readonly seed?: number;
}): EstimatedWeights {
  if (calibration.length === 0 || test.length === 0) {
    throw new ConfigError("estimateShiftWeights", "features", "calibration and test units", `${calibration.length} and ${test.length}`);
  }
  const y = new Float64Array(calibration.length + test.length).fill(1, calibration.length);
  const fitted = predictor.fit({ x: [...calibration, ...test], y }, { seed });
  return { calibration: odds(fitted, calibration), test: odds(fitted, test), estimated: true };
}

function odds(fitted: FittedPredictor, x: readonly Float64Array[]): Float64Array {
  return fitted.predict(x).map(p => {
    if (!(p >= 0 && p <= 1)) throw new ConfigError("estimateShiftWeights", "predictor", "probabilities in [0, 1]", p);
    const kept = Math.min(0.999, Math.max(0.001, p));
    return kept / (1 - kept);
  });
}
