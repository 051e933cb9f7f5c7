/** Rewards against rankings that people made: accuracy over pairs, inversions, recall, accuracy with ties, and what the best of n is worth. */

import { ConfigError, DataError, ShapeError } from "../errors.js";

/** Pictures of one prompt: a reward's scores, and people's ranks (1 is the best, equal ranks are ties). */
export interface RankedPrompt {
  readonly scores: ArrayLike<number>;
  readonly ranks: ArrayLike<number>;
}

/** Index pairs [better, worse] of unequal rank. */
export function strictPairs(ranks: ArrayLike<number>): [number, number][] {
  const pairs: [number, number][] = [];
  for (let i = 0; i < ranks.length; i++)
    for (let j = i + 1; j < ranks.length; j++)
      if (ranks[i]! < ranks[j]!) pairs.push([i, j]);
      else if (ranks[i]! > ranks[j]!) pairs.push([j, i]);
  return pairs;
}

function check(subject: string, { scores, ranks }: RankedPrompt, row: number): void {
  if (scores.length !== ranks.length)
    throw new ShapeError(subject, `expected as many scores as ranks of prompt ${row}, received ${scores.length} and ${ranks.length}`);
  for (let i = 0; i < scores.length; i++)
    if (Number.isNaN(scores[i]!) || Number.isNaN(ranks[i]!)) throw new DataError(subject, "expected numbers, received NaN", { row });
}

/** ImageReward's accuracy: the share, over all pairs of unequal rank of all prompts, whose better picture scores strictly higher. */
export function pairAccuracy(prompts: readonly RankedPrompt[]): { readonly accuracy: number; readonly pairs: number } {
  let [right, pairs] = [0, 0];
  for (const [row, prompt] of prompts.entries()) {
    check("pairAccuracy", prompt, row);
    for (const [better, worse] of strictPairs(prompt.ranks)) {
      pairs++;
      if (prompt.scores[better]! > prompt.scores[worse]!) right++;
    }
  }
  if (pairs === 0) throw new ConfigError("pairAccuracy", "prompts", "some pair of unequal rank", prompts.length);
  return { accuracy: right / pairs, pairs };
}

/** HPSv2's test metric: mean over prompts of 1 - discordant pairs / all pairs, a tie on either side counting as agreement. Prompts of one picture count as 1. */
export function inversionScore(prompts: readonly RankedPrompt[]): number {
  if (prompts.length === 0) throw new ConfigError("inversionScore", "prompts", "at least one", 0);
  const one = (prompt: RankedPrompt, row: number): number => {
    check("inversionScore", prompt, row);
    const n = prompt.ranks.length;
    const discordant = strictPairs(prompt.ranks).filter(([better, worse]) => prompt.scores[better]! < prompt.scores[worse]!).length;
    return n < 2 ? 1 : 1 - discordant / ((n * (n - 1)) / 2);
  };
  return prompts.reduce((sum, prompt, row) => sum + one(prompt, row), 0) / prompts.length;
}

/** One choice of two: P(first), P(second) of the model, and the labels (1, 0), (0, 1) or (0.5, 0.5) of people. */
export interface Choice {
  readonly p: readonly [number, number];
  readonly label: readonly [number, number];
}

/** PickScore's accuracy with ties: the model says tie where |p0 - p1| <= threshold; a tie on one side only is worth a half. */
export function tieAccuracy(choices: readonly Choice[], threshold: number): number {
  if (choices.length === 0) throw new ConfigError("tieAccuracy", "choices", "at least one", 0);
  const verdict = (a: number, b: number, within: number): number => (Math.abs(a - b) <= within ? 0.5 : a > b ? 1 : 0);
  const one = ({ p, label }: Choice): number => 1 - Math.abs(verdict(...p, threshold) - verdict(...label, 0));
  return choices.reduce((sum, choice) => sum + one(choice), 0) / choices.length;
}

/** The threshold of PickScore's list that does best on these (validation) choices; the smallest of several. */
export function fitTieThreshold(choices: readonly Choice[], candidates: readonly number[] = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]): number {
  if (candidates.length === 0) throw new ConfigError("fitTieThreshold", "candidates", "at least one", 0);
  const accuracies = candidates.map(t => tieAccuracy(choices, t));
  return candidates[accuracies.indexOf(Math.max(...accuracies))]!;
}

/** E[gold of the picture that `proxy` likes best of n drawn without replacement], exact: the k-th worst is the best of C(k - 1, n - 1) of the C(N, n) draws. Equal
 *  proxies share their golds. Throws ConfigError unless 1 <= n <= N. */
export function expectedBestOfN(gold: ArrayLike<number>, proxy: ArrayLike<number>, n: number): number {
  const total = gold.length;
  if (proxy.length !== total) throw new ShapeError("expectedBestOfN", `expected two lists of one length, received ${total} and ${proxy.length}`);
  if (!(Number.isSafeInteger(n) && n >= 1 && n <= total)) throw new ConfigError("expectedBestOfN", "n", `a whole number in [1, ${total}]`, n);
  const order = Array.from({ length: total }, (_, i) => i).sort((a, b) => proxy[a]! - proxy[b]!);
  const shared = sharedGold(order, gold, proxy);
  // C(k, n - 1) / C(N, n), k = N - 1 downwards, as ratios: no factorial is formed.
  let [weight, sum] = [n / total, 0];
  for (let k = total - 1; k >= n - 1; k--) {
    sum += weight * shared[k]!;
    weight *= k - n + 1 > 0 ? (k - n + 1) / k : 0;
  }
  return sum;
}

function sharedGold(order: readonly number[], gold: ArrayLike<number>, proxy: ArrayLike<number>): number[] {
  const out: number[] = [];
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end < order.length && proxy[order[end]!] === proxy[order[start]!]) end++;
    const mean = order.slice(start, end).reduce((sum, i) => sum + gold[i]!, 0) / (end - start);
    for (; start < end; start++) out.push(mean);
  }
  return out;
}

/** ImageReward's recall@k and filter@k: the share of prompts whose best (worst) picture is among the k that score highest (lowest). Equal ranks: any of the best counts. */
export function recallAtK(prompts: readonly RankedPrompt[], k: number, end: "best" | "worst" = "best"): number {
  if (!(Number.isSafeInteger(k) && k >= 1)) throw new ConfigError("recallAtK", "k", "a whole number >= 1", k);
  if (prompts.length === 0) throw new ConfigError("recallAtK", "prompts", "at least one", 0);
  const sign = end === "best" ? 1 : -1;
  const found = prompts.filter((prompt, row) => {
    check("recallAtK", prompt, row);
    const order = Array.from({ length: prompt.ranks.length }, (_, i) => i).sort((a, b) => sign * (prompt.scores[b]! - prompt.scores[a]!));
    const extreme = Array.from(prompt.ranks).reduce((a, b) => (sign * (a - b) <= 0 ? a : b));
    return order.slice(0, k).some(i => prompt.ranks[i] === extreme);
  });
  return found.length / prompts.length;
}
