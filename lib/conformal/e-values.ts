/** Conformal e-values and e-BH (Wang & Ramdas 2022; Bashari et al. 2023): numbers with sum of E[e_j 1{j null}] <= m, which may be averaged over splits,
 *  seeds and predictors, as p-values may not. */

import { ConfigError } from "../errors.js";
import { checkLength, checkLevel, checkRange, checkScores, type LabelledScores, slack } from "./check.js";
import { allKinds, type PValues, requireKind } from "./p-value-kinds.js";
import { NullScores } from "./p-values.js";
import { Ranks } from "./ranks.js";
import { thresholdRule } from "./threshold.js";

export interface EValues {
  readonly kind: "e-values";
  readonly values: Float64Array;
}

const why =
  "1 / p is not an e-value: its expectation under the null is infinite; use thresholdEValues, or calibrated(p, calibrator) with a calibrator whose integral is at most 1";

/** e_j = 1{t_j >= T} (n + 1) / (1 + #{nulls >= T}), T the threshold of the selection at alpha. e-BH at the same alpha selects the same units. */
export function thresholdEValues(calibration: LabelledScores, test: ArrayLike<number>, alpha: number): EValues {
  checkLevel("thresholdEValues", "alpha", alpha);
  const nulls = NullScores.of(calibration, "alignment", "thresholdEValues");
  const scores = checkScores("thresholdEValues", "test.scores", test);
  const { threshold, k, nullsAbove } = thresholdRule(nulls, new Ranks(scores), alpha);
  const height = k === 0 ? 0 : (nulls.count + 1) / (1 + nullsAbove);
  return { kind: "e-values", values: scores.map(score => (score >= threshold ? height : 0)) };
}

/** Numbers known to be e-values: E[e] <= 1 under the null. Refuses p-values, which are not. */
export function eValues(values: ArrayLike<number>): EValues {
  if ((values as { kind?: unknown } | undefined)?.kind !== undefined) throw new ConfigError("eValues", "values", "e-values, as numbers", "p-values", why);
  return { kind: "e-values", values: checkRange("eValues", "values", values, 0, Infinity) };
}

/** Calibrators whose integral was checked. */
const sound = new WeakSet<(p: number) => number>();

/** f(p) for a p-to-e calibrator f: decreasing, with integral over (0, 1) at most 1, which is checked. p-values of a random null keep E[e 1{null}] <= 1. */
export function calibrated(p: PValues, calibrator: (p: number) => number): EValues {
  const { values } = requireKind("calibrated", p, allKinds, "");
  if (!sound.has(calibrator)) {
    const mass = integral(calibrator);
    if (!(mass <= 1 + 1e-4)) throw new ConfigError("calibrated", "calibrator", "a function with integral over (0, 1) at most 1", mass, why);
    sound.add(calibrator);
  }
  return { kind: "e-values", values: values.map(calibrator) };
}

/** 1/2 p^(-1/2). */
export const rootCalibrator = (p: number): number => 0.5 / Math.sqrt(p);

/** The mean of several sets of e-values for the same units is one. */
export function averagedEValues(sets: readonly EValues[]): EValues {
  const first = sets[0];
  if (!first) throw new ConfigError("averagedEValues", "sets.length", "at least 1", 0);
  for (const [i, set] of sets.entries()) checkLength("averagedEValues", `sets[${i}].values`, requireEValues("averagedEValues", set), first.values.length);
  return { kind: "e-values", values: first.values.map((_, j) => sets.reduce((sum, set) => sum + set.values[j]!, 0) / sets.length) };
}

/** e_j / U_j with one uniform each in (0, 1]: never less, and e-BH still controls FDR; only directly before e-BH. */
export function boosted(e: EValues, uniforms: ArrayLike<number>): EValues {
  const values = requireEValues("boosted", e);
  checkLength("boosted", "uniforms", uniforms, values.length);
  const u = checkRange("boosted", "uniforms", uniforms, Number.MIN_VALUE, 1);
  return { kind: "e-values", values: values.map((one, j) => one / u[j]!) };
}

/** The k largest e-values, k = max{k: e_(k) >= m / (alpha k)}. FDR <= alpha under any dependence. */
export function eBh(e: EValues, alpha: number): { readonly selected: Uint32Array; readonly k: number } {
  const values = requireEValues("eBh", e);
  checkLevel("eBh", "alpha", alpha);
  const m = values.length,
    ordered = values.slice().sort();
  let k = 0;
  for (let rank = 1; rank <= m; rank++) if (ordered[m - rank]! * alpha * rank * slack >= m) k = rank;
  const selected = Uint32Array.from(values.keys()).filter(j => values[j]! * alpha * k * slack >= m);
  return { selected, k };
}

/** The numbers of e-values; bare numbers and p-values are refused. */
export function requireEValues(subject: string, e: EValues): Float64Array {
  if ((e as EValues | undefined)?.kind !== "e-values")
    throw new ConfigError(subject, "e", "e-values", (e as { kind?: unknown } | undefined)?.kind ?? "bare numbers", why);
  return e.values;
}

/** Integral over (0, 1) by p = exp(-x): an integrable pole at 0 becomes an exponential tail, and 1 / p a constant that exceeds 1 soon. */
function integral(f: (p: number) => number): number {
  const step = 1 / 64;
  let sum = 0;
  for (let x = step / 2; x < 700; x += step) {
    const p = Math.exp(-x),
      value = f(p);
    if (!(value >= 0)) return Number.NaN;
    sum += value * p * step;
  }
  return sum;
}
