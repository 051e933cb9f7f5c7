/** Conformal p-values of test units against labelled calibration units (Jin & Candes 2023; Gui, Jin & Ren 2024): small where few units known to be
 *  not aligned score as high. Counts stay integers until one division. */

import { ConfigError } from "../errors.js";
import { checkLabelled, checkLength, checkRange, checkScores, type LabelledScores } from "./check.js";
import type { PValues } from "./p-value-kinds.js";
import { Ranks } from "./ranks.js";

/** Which calibration units count in the denominator: all ("alignment"), or the nulls alone ("null-only", class-conditional: valid given the label, and weaker). */
export type CalibrationKind = "alignment" | "null-only";

/** What a calibration set says about scores: its nulls, ranked, and the denominator. Built once, asked about any number of test units. */
export class NullScores<Kind extends CalibrationKind = CalibrationKind> {
  private constructor(
    readonly kind: Kind,
    /** Calibration units that count: n, or n0. */
    readonly count: number,
    readonly nulls: Ranks,
  ) {}

  static of<Kind extends CalibrationKind>(calibration: LabelledScores, kind: Kind, subject = "alignmentPValues"): NullScores<Kind> {
    if (kind !== "alignment" && kind !== "null-only") throw new ConfigError(subject, "kind", '"alignment" or "null-only"', kind);
    const { scores, aligned } = checkLabelled(subject, calibration);
    const nulls = whereNull(scores, aligned);
    return new NullScores(kind, kind === "alignment" ? scores.length : nulls.length, new Ranks(nulls));
  }

  /** How many nulls score `score` or more. */
  atLeast(score: number): number {
    return this.nulls.size - this.nulls.below(score);
  }

  /** How many nulls score more than `score`. */
  above(score: number): number {
    return this.nulls.size - this.nulls.atMost(score);
  }

  /** (1 + #{nulls at or above the score}) / (n + 1): ties count against the unit. */
  pValue(score: number): number {
    return (1 + this.atLeast(score)) / (this.count + 1);
  }
}

/** p_j = (1 + #{calibration nulls i: s_i >= t_j}) / (n + 1). Valid with ties, conservative where there are many. */
export function alignmentPValues<Kind extends CalibrationKind = "alignment">(
  calibration: LabelledScores,
  test: ArrayLike<number>,
  kind: Kind = "alignment" as Kind,
): PValues<Kind> {
  const nulls = NullScores.of(calibration, kind);
  const below = nulls.nulls.counts(checkScores("alignmentPValues", "test.scores", test)),
    values = new Float64Array(below.length);
  for (let j = 0; j < values.length; j++) values[j] = (1 + nulls.nulls.size - below[j]!) / (nulls.count + 1);
  return { kind, values };
}

/** p_j = (#{nulls above t_j} + U_j (1 + #{nulls at t_j})) / (n + 1), U_j independent and uniform on [0, 1]: exact where scores are tied. */
export function randomisedPValues<Kind extends CalibrationKind = "alignment">(
  calibration: LabelledScores,
  test: ArrayLike<number>,
  uniforms: ArrayLike<number>,
  kind: Kind = "alignment" as Kind,
): PValues<Kind> {
  const nulls = NullScores.of(calibration, kind, "randomisedPValues");
  const scores = checkScores("randomisedPValues", "test.scores", test);
  checkLength("randomisedPValues", "uniforms", uniforms, scores.length);
  const u = checkRange("randomisedPValues", "uniforms", uniforms, 0, 1);
  const below = nulls.nulls.counts(scores),
    atMost = nulls.nulls.counts(scores, true),
    values = new Float64Array(scores.length);
  for (let j = 0; j < values.length; j++) {
    values[j] = (nulls.nulls.size - atMost[j]! + u[j]! * (1 + atMost[j]! - below[j]!)) / (nulls.count + 1);
  }
  return { kind, values };
}

/** Scores with a random key each, compared as (score, key): a total order drawn once, in which the deterministic form loses nothing to ties. */
export function lexicographicPValues<Kind extends CalibrationKind = "alignment">(
  calibration: LabelledScores,
  test: ArrayLike<number>,
  keys: { readonly calibration: ArrayLike<number>; readonly test: ArrayLike<number> },
  kind: Kind = "alignment" as Kind,
): PValues<Kind> {
  const subject = "lexicographicPValues";
  const { scores, aligned } = checkLabelled(subject, calibration);
  const nulls = NullScores.of(calibration, kind, subject);
  const testScores = checkScores(subject, "test.scores", test);
  checkLength(subject, "keys.calibration", keys.calibration, scores.length);
  checkLength(subject, "keys.test", keys.test, testScores.length);
  const [calibrationKeys, testKeys] = [checkScores(subject, "keys.calibration", keys.calibration), checkScores(subject, "keys.test", keys.test)];
  const ordered = keysInOrder(nulls.nulls, whereNull(scores, aligned), whereNull(calibrationKeys, aligned));
  const below = nulls.nulls.counts(testScores),
    atMost = nulls.nulls.counts(testScores, true),
    values = new Float64Array(testScores.length);
  for (let j = 0; j < values.length; j++) {
    values[j] = (1 + nulls.nulls.size - lowerBound(ordered, below[j]!, atMost[j]!, testKeys[j]!)) / (nulls.count + 1);
  }
  return { kind, values };
}

/** The values of units that are not aligned. */
export function whereNull(values: Float64Array, aligned: Uint8Array): Float64Array {
  const out = new Float64Array(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i++) if (aligned[i] === 0) out[count++] = values[i]!;
  return out.slice(0, count);
}

/** Keys at the places of their scores in ascending order, sorted among equal scores. */
function keysInOrder(ranks: Ranks, scores: Float64Array, keys: Float64Array): Float64Array {
  const out = new Float64Array(keys.length),
    filled = new Int32Array(keys.length),
    below = ranks.counts(scores);
  for (let i = 0; i < scores.length; i++) {
    const first = below[i]!;
    out[first + filled[first]!++] = keys[i]!;
  }
  for (let at = 0; at < out.length; at++) if (filled[at]! > 1) out.subarray(at, at + filled[at]!).sort();
  return out;
}

/** First place of sorted[from..to) whose value is `value` or more; `to` if there is none. */
function lowerBound(sorted: Float64Array, from: number, to: number, value: number): number {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (sorted[middle]! < value) from = middle + 1;
    else to = middle;
  }
  return from;
}
