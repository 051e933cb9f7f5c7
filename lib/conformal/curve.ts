/** How a selection changes with alpha, read off the calibration set: size, estimated false discovery proportion, estimated power; and the histograms
 *  that show what the selection stands on. */

import { benjaminiHochberg } from "./bh.js";
import type { PValues } from "./p-value-kinds.js";
import { whereNull } from "./p-values.js";
import { Ranks } from "./ranks.js";

export interface CurveRow {
  readonly alpha: number;
  readonly k: number;
  /** m (1 + #{nulls at or above the lowest selected score}) / ((n + 1) k); 0 where nothing is selected. */
  readonly fdp: number;
  /** Share of aligned calibration units at or above the lowest selected score. */
  readonly power: number;
}

export function selectionCurve(
  calibration: { readonly scores: Float64Array; readonly aligned: Uint8Array },
  scores: Float64Array,
  pValues: PValues,
  alphas: readonly number[],
): CurveRow[] {
  const all = new Ranks(calibration.scores),
    nulls = new Ranks(whereNull(calibration.scores, calibration.aligned));
  const [n, m] = [all.size, scores.length];
  return alphas.map(alpha => {
    const { selected, k } = benjaminiHochberg(pValues, alpha);
    if (k === 0) return { alpha, k, fdp: 0, power: 0 };
    const lowest = selected.reduce((least, j) => Math.min(least, scores[j]!), Infinity);
    const nullsAbove = nulls.size - nulls.below(lowest),
      alignedAbove = n - all.below(lowest) - nullsAbove;
    return { alpha, k, fdp: Math.min(1, (m * (1 + nullsAbove)) / ((n + 1) * k)), power: alignedAbove / Math.max(1, n - nulls.size) };
  });
}

export interface Histogram {
  /** Ends of the bins: one more than there are bins. */
  readonly edges: readonly number[];
  readonly counts: readonly number[];
}

/** Counts in bins of equal width; values beyond the ends, infinities too, count in the outermost bins. */
export function histogram(values: Float64Array, { low, high, bins }: { readonly low: number; readonly high: number; readonly bins: number }): Histogram {
  const counts = new Array<number>(bins).fill(0),
    width = (high - low) / bins;
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor((values[i]! - low) / width);
    counts[Math.max(0, Math.min(bins - 1, at))]!++;
  }
  return { edges: Array.from({ length: bins + 1 }, (_, i) => low + i * width), counts };
}

/** Least and greatest finite value; a width of at least one unit in the last places, so that bins exist. */
export function finiteRange(...sets: readonly Float64Array[]): { readonly low: number; readonly high: number } {
  let [low, high] = [Infinity, -Infinity];
  for (const values of sets) {
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return { low: 0, high: 1 };
  const margin = Math.max(1e-9, 1e-9 * Math.abs(low), 1e-9 * Math.abs(high));
  const [from, to] = high - low < margin ? [low - margin, high + margin] : [low, high];
  return { low: Math.max(from, -8e307), high: Math.min(to, 8e307) }; // the width must be a finite number
}
