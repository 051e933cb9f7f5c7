/** Step-up selection: Benjamini & Hochberg 1995, Benjamini & Yekutieli 2001, Storey 2002, and adjusted p-values. Linear time: a p-value is turned into
 *  the smallest rank at which it would be selected, and ranks are counted, not sorted. */

import { checkLevel, slack } from "./check.js";
import { allKinds, type NullUniformKind, nullUniformKinds, type PValues, requireKind, whyNullShare } from "./p-value-kinds.js";
import { Ranks } from "./ranks.js";

export interface StepUp {
  /** Indices of the selected units, ascending. */
  readonly selected: Uint32Array;
  /** How many. */
  readonly k: number;
  /** Every selected p-value is at most this: alpha k / m; 0 where nothing is selected. */
  readonly threshold: number;
}

/** The k smallest p-values, k = max{k: p_(k) <= alpha k / m}. With p-values of kind "alignment" FDR <= alpha in finite samples; with "weighted" only for many units. */
export function benjaminiHochberg(p: PValues, alpha: number): StepUp {
  const { values } = requireKind("benjaminiHochberg", p, allKinds, "");
  return stepUp(values, checkLevel("benjaminiHochberg", "alpha", alpha));
}

/** Benjamini-Hochberg at alpha / (1 + 1/2 + ... + 1/m): valid for any dependence between p-values. */
export function benjaminiYekutieli(p: PValues, alpha: number): StepUp {
  const { values } = requireKind("benjaminiYekutieli", p, allKinds, "");
  checkLevel("benjaminiYekutieli", "alpha", alpha);
  let harmonic = 0;
  for (let i = values.length; i >= 1; i--) harmonic += 1 / i;
  return stepUp(values, values.length === 0 ? alpha : alpha / harmonic);
}

/** Benjamini-Hochberg at alpha / pi0, where pi0 = (1 + #{p > lambda}) / (m (1 - lambda)) estimates the share of nulls. Refuses kinds on which the
 *  estimate is wrong: see `whyNullShare`. */
export function storey(p: PValues<NullUniformKind>, alpha: number, { lambda = 0.5 }: { readonly lambda?: number } = {}): StepUp {
  const { values } = requireKind("storey", p, nullUniformKinds, whyNullShare);
  checkLevel("storey", "alpha", alpha);
  checkLevel("storey", "lambda", lambda);
  let above = 0;
  for (let i = 0; i < values.length; i++) if (values[i]! > lambda) above++;
  const nullShare = (1 + above) / (values.length * (1 - lambda));
  return stepUp(values, values.length === 0 ? alpha : alpha / nullShare, lambda);
}

/** p-values that are at most alpha exactly where Benjamini-Hochberg at alpha selects: min over ranks r >= rank(p) of m p_(r) / r, at most 1. */
export function adjustedPValues(p: PValues): Float64Array {
  const { values } = requireKind("adjustedPValues", p, allKinds, "");
  const m = values.length,
    ranks = new Ranks(values),
    least = new Float64Array(m);
  let running = 1;
  for (let r = m; r >= 1; r--) {
    running = Math.min(running, (ranks.sorted[r - 1]! * m) / r);
    least[r - 1] = running;
  }
  const below = ranks.counts(values),
    adjusted = new Float64Array(m);
  for (let j = 0; j < m; j++) adjusted[j] = least[below[j]!]!;
  return adjusted;
}

/** Step-up over the p-values that do not exceed `cap`. Those above alpha are beyond every threshold and left out at once. */
function stepUp(values: Float64Array, alpha: number, cap = 1): StepUp {
  const m = values.length,
    limit = Math.min(cap, alpha * slack);
  const units = new Uint32Array(m);
  let count = 0;
  for (let j = 0; j < m; j++) if (values[j]! <= limit) units[count++] = j;
  const ranks = new Uint32Array(count),
    counts = new Uint32Array(m + 2);
  for (let i = 0; i < count; i++) {
    const rank = firstRank(values[units[i]!]! * m, alpha * slack, m);
    ranks[i] = rank;
    counts[rank]!++;
  }
  let k = 0;
  for (let rank = 1, below = counts[0]!; rank <= m; rank++) {
    below += counts[rank]!;
    if (below >= rank) k = rank;
  }
  const selected = new Uint32Array(k);
  for (let i = 0, at = 0; at < k; i++) if (ranks[i]! <= k) selected[at++] = units[i]!;
  return { selected, k, threshold: k === 0 ? 0 : Math.min(cap, (alpha * k) / m) };
}

/** The smallest rank k in 0..m with product <= alpha k, m + 1 if there is none. The quotient may round across an integer, the products decide. */
function firstRank(product: number, alpha: number, m: number): number {
  let rank = Math.min(m + 1, Math.ceil(product / alpha));
  if (rank >= 1 && product <= alpha * (rank - 1)) rank--;
  else if (rank <= m && product > alpha * rank) rank++;
  return rank;
}
