/** Choosing among several scores on the calibration data itself without losing the guarantee: OptCS (Bai & Jin 2024, arXiv:2411.17983). For each test
 *  unit j the score is chosen as if j were one more null calibration unit, so the choice cannot lean on j's own label; pruning makes the sets agree. */

import { ConfigError } from "../errors.js";
import { checkLabelled, checkLength, checkLevel, checkScores, slack } from "./check.js";
import { NullScores } from "./p-values.js";
import { type Pruning, prune } from "./pruning.js";

export interface OptCsInput {
  /** K scores of every calibration and test unit. */
  readonly calibration: { readonly scores: readonly ArrayLike<number>[]; readonly aligned: ArrayLike<number | boolean> };
  readonly test: { readonly scores: readonly ArrayLike<number>[] };
  readonly alpha: number;
  /** Default "homo". */
  readonly pruning?: Pruning;
  /** One per unit for "hete", one for "homo". */
  readonly xi: ArrayLike<number>;
}

export interface OptCsSelection {
  readonly selected: Uint32Array;
  readonly k: number;
  /** The score chosen for each unit: the largest auxiliary selection, the smallest index of equals. */
  readonly chosen: Uint32Array;
  readonly sizes: Uint32Array;
  /** p_j by the score chosen for j. Not p-values to put into another procedure: they were chosen. */
  readonly p: Float64Array;
}

/** Time O(K (n + m log m)). Picking the score that selects most and running it again is not valid: that is what this replaces. */
export function optCs({ calibration, test, alpha, pruning = "homo", xi }: OptCsInput): OptCsSelection {
  const subject = "optCs";
  checkLevel(subject, "alpha", alpha);
  const count = calibration.scores.length;
  if (count === 0) throw new ConfigError(subject, "calibration.scores.length", "at least one score", 0);
  checkLength(subject, "test.scores", test.scores, count);
  const m = test.scores[0]!.length;
  const chosen = new Uint32Array(m),
    sizes = new Uint32Array(m),
    p = new Float64Array(m);
  for (let k = 0; k < count; k++) {
    checkLength(subject, `test.scores[${k}]`, test.scores[k]!, m);
    const scores = checkScores(subject, `test.scores[${k}]`, test.scores[k]!);
    const labelled = checkLabelled(subject, { scores: calibration.scores[k]!, aligned: calibration.aligned });
    const nulls = NullScores.of(labelled, "alignment", subject);
    const sizesHere = auxiliarySizes(nulls, scores, alpha);
    for (let j = 0; j < m; j++) {
      if (sizesHere[j]! <= sizes[j]!) continue;
      [sizes[j], chosen[j], p[j]] = [sizesHere[j]!, k, nulls.pValue(scores[j]!)];
    }
  }
  const candidates = Uint32Array.from(p.keys()).filter(j => p[j]! * m <= alpha * sizes[j]! * slack);
  const selected = prune(candidates, sizes, pruning, xi);
  return { selected, k: selected.length, chosen, sizes, p };
}

/** |R_j|: size of Benjamini-Hochberg on p_l = (#{nulls at or above t_l} + 1{t_j >= t_l}) / (n + 1), l other than j, and p_j = 0. Units that score
 *  t_j or less stand at their own rank with one count more, the others one rank later: two prefix maxima answer for every j. */
function auxiliarySizes(nulls: NullScores, scores: Float64Array, alpha: number): Uint32Array {
  const m = scores.length,
    order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || 0);
  const qualifies = (count: number, rank: number): boolean => count * m <= alpha * rank * (nulls.count + 1) * slack;
  const before = new Uint32Array(m + 1); // before[i]: size if the answer lies among the first i places
  let last = 0; // the last rank at which a unit at or below t_j qualifies
  before[0] = 1;
  for (let rank = 1; rank <= m; rank++) {
    const count = nulls.atLeast(scores[order[rank - 1]!]!);
    before[rank] = qualifies(count, rank + 1) ? rank + 1 : before[rank - 1]!;
    if (qualifies(count + 1, rank)) last = rank;
  }
  const sizes = new Uint32Array(m);
  for (let at = 0, first = 0; at < m; at++) {
    if (scores[order[at]!] !== scores[order[first]!]) first = at; // first: units that score more than t_j
    sizes[order[at]!] = last > first + 1 ? last : before[first]!;
  }
  return sizes;
}
