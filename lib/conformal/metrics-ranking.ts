/** How well scores rank aligned outputs above others: what decides a selector's power. Weightless, exact under ties. */

import { ConfigError, DataError, ShapeError } from "../errors.js";

/** Throws unless scores are numbers (infinities order normally), labels 0 or 1, both of one length > 0. */
function check(subject: string, scores: Float64Array, y: ArrayLike<number>): void {
  if (scores.length === 0 || scores.length !== y.length)
    throw new ShapeError(subject, `expected as many scores as labels and at least one, received ${scores.length} and ${y.length}`);
  for (let row = 0; row < scores.length; row++) {
    if (Number.isNaN(scores[row]!)) throw new DataError(subject, "expected a score, received NaN", { row });
    if (y[row] !== 0 && y[row] !== 1) throw new DataError(subject, `expected a label 0 or 1, received ${y[row]}`, { row, field: "y" });
  }
}

/** Groups of equal scores, the largest score first: rows and aligned rows in each. */
function groups(scores: Float64Array, y: ArrayLike<number>): { readonly count: number; readonly aligned: number }[] {
  const order = [...scores.keys()].sort((a, b) => (scores[a]! === scores[b]! ? 0 : scores[b]! > scores[a]! ? 1 : -1));
  const out: { count: number; aligned: number }[] = [];
  for (const [at, i] of order.entries()) {
    if (at === 0 || scores[order[at - 1]!]! !== scores[i]!) out.push({ count: 0, aligned: 0 });
    const group = out.at(-1)!;
    group.count++;
    group.aligned += y[i]!;
  }
  return out;
}

/** P(score of a random aligned row > score of a random other row) + half P(equal): the area under the ROC curve. NaN where one class is missing. */
export function areaUnderRoc(scores: Float64Array, y: ArrayLike<number>): number {
  check("areaUnderRoc", scores, y);
  let above = 0,
    pairs = 0,
    others = 0;
  for (const { count, aligned } of groups(scores, y)) {
    const other = count - aligned;
    pairs += other * (above + aligned / 2);
    above += aligned;
    others += other;
  }
  return pairs / (above * others);
}

/** Area under the precision-recall curve as a step sum (average precision): recall gained times precision, equal scores entering together. NaN without an aligned row. */
export function averagePrecision(scores: Float64Array, y: ArrayLike<number>): number {
  check("averagePrecision", scores, y);
  let seen = 0,
    hits = 0,
    sum = 0;
  for (const { count, aligned } of groups(scores, y)) {
    seen += count;
    hits += aligned;
    sum += (aligned * hits) / seen;
  }
  return sum / hits;
}

/** Share of aligned rows among the k of largest score; where equal scores straddle the cut, its expectation over random order. */
export function precisionAtK(scores: Float64Array, y: ArrayLike<number>, k: number): number {
  check("precisionAtK", scores, y);
  if (!(Number.isInteger(k) && k >= 1 && k <= scores.length)) throw new ConfigError("precisionAtK", "k", `a whole number in [1, ${scores.length}]`, k);
  let left = k,
    hits = 0;
  for (const { count, aligned } of groups(scores, y)) {
    const taken = Math.min(left, count);
    hits += (aligned * taken) / count;
    left -= taken;
    if (left === 0) break;
  }
  return hits / k;
}
