/** p-values that hold given the calibration set (Bates et al. 2023, arXiv:2104.08279): for a share 1 - delta of calibration sets, every later test unit that
 *  is null has P(p <= t given the calibration set) <= t. A rank r among the n nulls maps to a bound b_r with P(U_(i) <= b_i for all i) >= 1 - delta. */

import { ConfigError } from "../errors.js";
import { checkLevel, checkScores, type LabelledScores } from "./check.js";
import type { PValues } from "./p-value-kinds.js";
import { NullScores } from "./p-values.js";

/** b_1 <= ... <= b_n for n nulls. */
export type ConditionalBounds = (n: number, delta: number) => Float64Array;

/** b_{n+1-i} = 1 - delta^(1/k) (i (i-1) ... (i-k+1) / (n (n-1) ... (n-k+1)))^(1/k), k = max(1, floor(n / 2)): tight for small p-values. */
export const simesBounds: ConditionalBounds = (n, delta) => {
  const k = Math.max(1, Math.floor(n / 2)),
    bounds = new Float64Array(n).fill(1);
  let logRatio = 0; // of the two products, from i = n down
  for (let i = n; i >= k; i--) {
    bounds[n - i] = -Math.expm1((Math.log(delta) + logRatio) / k);
    logRatio += Math.log((i - k) / i);
  }
  return bounds;
};

/** b_r = r / n + sqrt(log(2 / delta) / 2n), at most 1: Dvoretzky, Kiefer & Wolfowitz with Massart's constant. */
export const dkwmBounds: ConditionalBounds = (n, delta) => {
  const width = Math.sqrt(Math.log(2 / delta) / (2 * n));
  return Float64Array.from({ length: n }, (_, i) => Math.min(1, (i + 1) / n + width));
};

export function calibrationConditionalPValues(
  calibration: LabelledScores,
  test: ArrayLike<number>,
  { delta, bounds = simesBounds }: { readonly delta: number; readonly bounds?: ConditionalBounds },
): PValues<"calibration-conditional"> {
  const subject = "calibrationConditionalPValues";
  checkLevel(subject, "delta", delta);
  const nulls = NullScores.of(calibration, "null-only", subject);
  const table = bounds(nulls.count, delta);
  if (table.length !== nulls.count) throw new ConfigError(subject, "bounds", `a table of ${nulls.count} numbers`, table.length);
  const scores = checkScores(subject, "test.scores", test);
  return { kind: "calibration-conditional", values: scores.map(score => table[nulls.atLeast(score)] ?? 1) };
}
