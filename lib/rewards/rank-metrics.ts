/** How well scores order pictures that people have judged: measures beside those of lib/conformal. All are of one prompt's pictures; a table's number is their mean over prompts. */

import { areaUnderRoc, averagePrecision } from "../conformal/metrics-ranking.js";
import { ConfigError, DataError, ShapeError } from "../errors.js";

function check(subject: string, a: ArrayLike<number>, b: ArrayLike<number>): void {
  if (a.length === 0 || a.length !== b.length) throw new ShapeError(subject, `expected two lists of one length > 0, received ${a.length} and ${b.length}`);
  for (const list of [a, b])
    for (let row = 0; row < list.length; row++) if (Number.isNaN(list[row]!)) throw new DataError(subject, "expected numbers, received NaN", { row });
}

/** AP@k: mean, over the aligned pictures among the k of largest score, of the precision down to each. Equal scores stay in the order given. 0 without a hit.
 *  Not precision@k. Throws ConfigError for k < 1. */
export function averagePrecisionAtK(scores: ArrayLike<number>, y: ArrayLike<number>, k: number): number {
  check("averagePrecisionAtK", scores, y);
  if (!(Number.isSafeInteger(k) && k >= 1)) throw new ConfigError("averagePrecisionAtK", "k", "a whole number >= 1", k);
  const order = Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
  let [hits, sum] = [0, 0];
  for (const [at, i] of order.slice(0, k).entries()) if (y[i] === 1) sum += ++hits / (at + 1);
  return hits === 0 ? 0 : sum / hits;
}

/** Spearman's rho: the correlation of ranks, equal values sharing their mean rank. NaN where either list is constant. */
export function spearman(a: ArrayLike<number>, b: ArrayLike<number>): number {
  check("spearman", a, b);
  const [x, y] = [meanRanks(a), meanRanks(b)];
  const middle = (a.length + 1) / 2;
  let [xy, xx, yy] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    xy += (x[i]! - middle) * (y[i]! - middle);
    xx += (x[i]! - middle) ** 2;
    yy += (y[i]! - middle) ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

function meanRanks(values: ArrayLike<number>): Float64Array {
  const order = Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[a]! - values[b]!);
  const ranks = new Float64Array(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
    for (let i = start; i < end; i++) ranks[order[i]!] = (start + end + 1) / 2;
    start = end;
  }
  return ranks;
}

/** Kendall's tau-b: concordant less discordant pairs, over the root of the pairs untied in either. NaN where either list is constant. */
export function kendall(a: ArrayLike<number>, b: ArrayLike<number>): number {
  check("kendall", a, b);
  let [balance, untiedA, untiedB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++)
    for (let j = i + 1; j < a.length; j++) {
      const [da, db] = [Math.sign(a[i]! - a[j]!), Math.sign(b[i]! - b[j]!)];
      balance += da * db;
      untiedA += Math.abs(da);
      untiedB += Math.abs(db);
    }
  return balance / Math.sqrt(untiedA * untiedB);
}

/** What the tables of TextNorm's paper hold of one prompt. */
export interface AlignmentMeasures {
  readonly auroc: number;
  readonly auprc: number;
  readonly ap5: number;
  readonly ap10: number;
  readonly ap25: number;
  /** Against how many annotators (0 to 3) found the picture aligned. */
  readonly spearman: number;
  readonly kendall: number;
}

export interface JudgedPrompt {
  /** Of each picture. */
  readonly scores: ArrayLike<number>;
  /** Of each picture, how many annotators found it aligned. */
  readonly votes: ArrayLike<number>;
}

/** One prompt of TIA2: a picture counts as aligned with at least `majority` votes, 2 of 3 by default. */
export function alignmentMeasures({ scores, votes }: JudgedPrompt, { majority = 2 }: { readonly majority?: number } = {}): AlignmentMeasures {
  check("alignmentMeasures", scores, votes);
  const y = Float64Array.from(votes, v => Number(v >= majority));
  const s = Float64Array.from(scores);
  return {
    auroc: areaUnderRoc(s, y),
    auprc: averagePrecision(s, y),
    ap5: averagePrecisionAtK(s, y, 5),
    ap10: averagePrecisionAtK(s, y, 10),
    ap25: averagePrecisionAtK(s, y, 25),
    spearman: spearman(s, votes),
    kendall: kendall(s, votes),
  };
}

/** Every prompt's measures and their means. Prompts whose pictures are all aligned, or none, have no AUROC: they are left out, as the published tables do, and
 *  counted. Throws ConfigError where none is left. */
export function evaluateAlignment(
  prompts: readonly JudgedPrompt[],
  options: { readonly majority?: number } = {},
): { readonly perPrompt: readonly (AlignmentMeasures | undefined)[]; readonly mean: AlignmentMeasures; readonly used: number } {
  const { majority = 2 } = options;
  const perPrompt = prompts.map(prompt => {
    const aligned = Array.from(prompt.votes).filter(v => v >= majority).length;
    return aligned === 0 || aligned === prompt.votes.length ? undefined : alignmentMeasures(prompt, options);
  });
  const used = perPrompt.filter(m => m !== undefined);
  if (used.length === 0) throw new ConfigError("evaluateAlignment", "prompts", "some with both aligned and other pictures", prompts.length);
  const mean = (field: keyof AlignmentMeasures): number => used.reduce((sum, m) => sum + m[field], 0) / used.length;
  return {
    perPrompt,
    mean: {
      ...{ auroc: mean("auroc"), auprc: mean("auprc"), ap5: mean("ap5"), ap10: mean("ap10") },
      ...{ ap25: mean("ap25"), spearman: mean("spearman"), kendall: mean("kendall") },
    },
    used: used.length,
  };
}
