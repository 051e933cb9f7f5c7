/** What a user should know before trusting a selection: none of these is an error, each has been mistaken for a fault of the method. */

import { checkLevel } from "./check.js";
import type { NullScores } from "./p-values.js";
import { Ranks } from "./ranks.js";
import { kolmogorovSmirnov } from "./shift.js";

export interface Warning {
  readonly code: "calibration-too-small" | "ties" | "shift" | "unlabelled" | "estimated-weights" | "few-effective-units";
  readonly message: string;
}

/** Calibration units needed before a share f of the test units can be selected at all: n >= 1 / (alpha f) - 1, since the smallest p-value is 1 / (n + 1). */
export function minCalibration(alpha: number, share: number): number {
  checkLevel("minCalibration", "alpha", alpha);
  if (share !== 1) checkLevel("minCalibration", "share", share);
  return Math.max(0, Math.ceil((1 / (alpha * share)) * (1 - 1e-12) - 1));
}

/** The least number of units that a selection of m units can have with n calibration units, unless it is empty. */
export function minSelectable(alpha: number, n: number, m: number): number {
  return Math.max(1, Math.ceil((m / (alpha * (n + 1))) * (1 - 1e-12)));
}

export function calibrationWarning({ n, m, alpha, share }: { n: number; m: number; alpha: number; share: number }): Warning[] {
  const needed = minCalibration(alpha, share);
  if (n >= needed) return [];
  const least = minSelectable(alpha, n, m);
  const reach = least > m ? "nothing can be selected at all" : `no fewer than ${least} of ${m} units can be selected at once`;
  const message = `${n} calibration units at alpha ${alpha}: the smallest p-value is 1/${n + 1}, so ${reach}; a selection of ${percent(share)} of the test units needs ${needed}`;
  return [{ code: "calibration-too-small", message }];
}

/** Units that a warning looks at; more would tell nothing new, and make a test of shift reject differences that do not matter. */
const looked = 50_000;

/** Evenly spaced values, all of them where they are few. */
function sample(values: Float64Array): Float64Array {
  const step = Math.ceil(values.length / looked);
  return step <= 1 ? values : Float64Array.from({ length: Math.floor(values.length / step) }, (_, i) => values[i * step]!);
}

/** Ties with nulls are counted against the unit. */
export function tieWarning(nulls: NullScores, all: Float64Array): Warning[] {
  const scores = sample(all),
    below = nulls.nulls.counts(scores),
    atMost = nulls.nulls.counts(scores, true);
  let tied = 0;
  for (let j = 0; j < scores.length; j++) if (atMost[j]! > below[j]!) tied++;
  if (tied <= 0.05 * scores.length) return [];
  const message = `${percent(tied / scores.length)} of the test scores equal the score of a calibration unit that is not aligned; the deterministic rule counts these ties against them: valid, but ties "random" or "lexicographic" select more`;
  return [{ code: "ties", message }];
}

export function shiftWarning(calibration: Float64Array, test: Float64Array): Warning[] {
  const { statistic, pValue } = kolmogorovSmirnov(new Ranks(sample(calibration)), new Ranks(sample(test)));
  if (!(pValue < 1e-3)) return [];
  const message = `calibration and test scores differ in distribution (Kolmogorov-Smirnov distance ${statistic.toFixed(3)}, p = ${pValue.toExponential(1)}): the units are not exchangeable and the guarantee does not hold; calibrate on units like these, or give weights`;
  return [{ code: "shift", message }];
}

export function unlabelledWarning(unlabelled: number, labelled: number): Warning[] {
  if (unlabelled === 0) return [];
  const message = `${unlabelled} reference units (${percent(unlabelled / (unlabelled + labelled))}) have no label and were left out; the guarantee assumes that which labels are missing has nothing to do with alignment`;
  return [{ code: "unlabelled", message }];
}

/** Weighted calibration units count for (sum w)^2 / sum w^2 equal ones. */
export function weightWarnings({ weights, estimated, alpha, share }: { weights: Float64Array; estimated: boolean; alpha: number; share: number }): Warning[] {
  const sum = weights.reduce((a, w) => a + w, 0),
    squares = weights.reduce((a, w) => a + w * w, 0);
  const effective = squares > 0 ? (sum / squares) * sum : 0,
    needed = minCalibration(alpha, share);
  const few = `the weights leave ${effective.toFixed(1)} effective calibration units of ${weights.length}; a selection of ${percent(share)} of the test units needs about ${needed}`;
  const exact = "the weights are estimated: FDR is controlled only as far as they are right, not in finite samples";
  return [
    ...(estimated ? [{ code: "estimated-weights" as const, message: exact }] : []),
    ...(effective < needed ? [{ code: "few-effective-units" as const, message: few }] : []),
  ];
}

function percent(share: number): string {
  return `${Number((100 * share).toPrecision(3))} %`;
}
