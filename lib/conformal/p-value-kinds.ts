/** What a p-value promises is part of its type. A procedure that needs more than its p-values give loses its guarantee without any visible sign, so
 *  each procedure names the kinds it takes and refuses the others at run time too, saying why. */

import { ConfigError } from "../errors.js";
import { checkRange } from "./check.js";

export type PValueKind =
  /** P(p <= t and the unit is not aligned) <= t: the null is random. Nulls alone are not uniform on [0, 1] but on [0, share of nulls]. */
  | "alignment"
  /** P(p <= t given the unit is not aligned) <= t, calibrated on the nulls alone. */
  | "null-only"
  /** "alignment" under a covariate shift with weights. Their dependence is not positive: Benjamini-Hochberg controls FDR only for many units. */
  | "weighted"
  /** "null-only" that also holds given the calibration set, for all but a share delta of calibration sets. */
  | "calibration-conditional"
  /** From elsewhere: P(p <= t) <= t for every null unit. */
  | "superuniform";

export interface PValues<Kind extends PValueKind = PValueKind> {
  readonly kind: Kind;
  /** One per test unit, in input order, in (0, 1]; randomised ones may be 0. */
  readonly values: Float64Array;
}

/** p-values computed elsewhere, each with P(p <= t) <= t where its unit is null. */
export function superuniformPValues(values: ArrayLike<number>): PValues<"superuniform"> {
  return { kind: "superuniform", values: checkRange("superuniformPValues", "values", values, 0, 1) };
}

/** Throws ConfigError unless `p` is of one of the kinds; `why` says what would break. */
export function requireKind<Kind extends PValueKind>(subject: string, p: PValues, kinds: readonly Kind[], why: string): PValues<Kind> {
  const kind: unknown = (p as PValues | undefined)?.kind;
  if (!(p?.values instanceof Float64Array) || typeof kind !== "string") {
    throw new ConfigError(subject, "pValues", "p-values with their kind, as made by alignmentPValues or superuniformPValues", describe(p));
  }
  if (!kinds.includes(kind as Kind)) throw new ConfigError(subject, "pValues.kind", kinds.map(k => `"${k}"`).join(" or "), kind, why);
  return p as PValues<Kind>;
}

/** Every kind: for procedures that compare p-values with a level and estimate nothing. */
export const allKinds: readonly PValueKind[] = ["alignment", "null-only", "weighted", "calibration-conditional", "superuniform"];

/** Kinds that are uniform or larger given that the unit is null: what an estimate of the share of nulls needs. */
export const nullUniformKinds = ["null-only", "calibration-conditional", "superuniform"] as const;
export type NullUniformKind = (typeof nullUniformKinds)[number];

/** Why an estimate of the share of nulls must not see alignment p-values. */
export const whyNullShare =
  'null p-values of kind "alignment" are uniform on [0, share of nulls], not on [0, 1]: an estimate of the share of nulls reads them as signal, and the false ' +
  'discovery rate rises to the base rate whatever alpha is; use kind "null-only"';

function describe(value: unknown): string {
  if (value instanceof Float64Array || Array.isArray(value)) return "bare numbers";
  return typeof value === "object" && value !== null ? "an object without kind or values" : typeof value;
}
