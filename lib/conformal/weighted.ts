/** Conformal p-values under covariate shift (Tibshirani et al. 2019; Jin & Candes 2023b): calibration units count with weights w = dP_test / dP_cal,
 *  known up to a constant. Benjamini-Hochberg on these p-values is only right for many units; weighted conformal selection (wcs.ts) is right for any number. */

import { checkLabelled, checkLength, checkRange, checkScores, checkWeights, type LabelledScores } from "./check.js";
import type { PValues } from "./p-value-kinds.js";
import { whereNull } from "./p-values.js";
import { Ranks } from "./ranks.js";

/** Density ratios, zero or more. */
export interface ShiftWeights {
  readonly calibration: ArrayLike<number>;
  readonly test: ArrayLike<number>;
}

/** Sums of null weights at or above a score. */
export class NullWeights {
  /** above[i]: weight of the nulls from place i of the ascending order on. */
  readonly #above: Float64Array;
  readonly #ranks: Ranks;

  constructor(
    scores: Float64Array,
    weights: Float64Array,
    /** Weight of all calibration units, nulls or not. */
    readonly total: number,
  ) {
    this.#ranks = new Ranks(scores);
    this.#above = new Float64Array(scores.length + 1);
    const filled = new Int32Array(scores.length),
      below = this.#ranks.counts(scores);
    for (let i = 0; i < scores.length; i++) {
      const first = below[i]!;
      this.#above[first + filled[first]!++] = weights[i]!;
    }
    for (let i = scores.length - 1; i >= 0; i--) this.#above[i]! += this.#above[i + 1]!; // sums of positive terms: nothing cancels
  }

  static of(subject: string, calibration: LabelledScores, weights: ArrayLike<number>): NullWeights {
    const { scores, aligned } = checkLabelled(subject, calibration);
    const w = checkWeights(subject, "weights.calibration", weights, scores.length);
    const total = w.reduce((sum, one) => sum + one, 0);
    return new NullWeights(whereNull(scores, aligned), whereNull(w, aligned), total);
  }

  /** Weights of the nulls at or above each score. */
  atLeast(scores: Float64Array): Float64Array {
    return this.#sums(this.#ranks.counts(scores));
  }

  /** Weights of the nulls above each score. */
  above(scores: Float64Array): Float64Array {
    return this.#sums(this.#ranks.counts(scores, true));
  }

  #sums(places: Int32Array): Float64Array {
    const sums = new Float64Array(places.length);
    for (let j = 0; j < sums.length; j++) sums[j] = this.#above[places[j]!]!;
    return sums;
  }
}

/** p_j = (w_j + sum of w_i over nulls with s_i >= t_j) / (w_j + sum of all w_i); with uniforms, U_j times what is tied with t_j, w_j included. A unit
 *  whose denominator is zero has p = 1. */
export function weightedPValues(
  calibration: LabelledScores,
  test: ArrayLike<number>,
  weights: ShiftWeights,
  uniforms?: ArrayLike<number>,
): PValues<"weighted"> {
  const subject = "weightedPValues";
  const scores = checkScores(subject, "test.scores", test);
  const w = checkWeights(subject, "weights.test", weights.test, scores.length);
  const nulls = NullWeights.of(subject, calibration, weights.calibration);
  if (uniforms) checkLength(subject, "uniforms", uniforms, scores.length);
  const u = uniforms && checkRange(subject, "uniforms", uniforms, 0, 1);
  const atLeast = nulls.atLeast(scores),
    above = u ? nulls.above(scores) : undefined,
    values = new Float64Array(scores.length);
  for (let j = 0; j < values.length; j++) {
    const whole = nulls.total + w[j]!,
      mass = u && above ? above[j]! + u[j]! * (w[j]! + atLeast[j]! - above[j]!) : w[j]! + atLeast[j]!;
    values[j] = whole > 0 ? Math.min(1, mass / whole) : 1;
  }
  return { kind: "weighted", values };
}
