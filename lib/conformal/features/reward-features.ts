/** Features from reward models: their scores, TextNorm's confidence against contrastive prompts, how far an ensemble disagrees, and risks read from the
 *  answers of a question-answering model. All from plain numbers; whoever computed them is not asked. */

import { ConfigError, DataError, ShapeError } from "../../errors.js";
import { type FeatureTable, featureTable } from "./table.js";

export interface TextNormScores {
  /** Reward of each output under its own prompt. */
  readonly own: ArrayLike<number>;
  /** Rewards of the same output under contrastive prompts; how many may differ from output to output. */
  readonly contrast: readonly ArrayLike<number>[];
}

/** Columns `<name>.confidence`: softmax of reward / temperature over own and contrastive prompts, at the own one (TextNorm, Kim et al. 2024);
 *  `<name>.margin`: own reward minus the best contrastive one; `<name>.beaten`: share of contrastive prompts scored below the own one, ties half.
 *  Without contrastive prompts an output has confidence 1 and the other two missing. */
export function textNormFeatures(name: string, { own, contrast }: TextNormScores, { temperature = 1 }: { readonly temperature?: number } = {}): FeatureTable {
  if (!(temperature > 0)) throw new ConfigError("textNormFeatures", "temperature", "> 0", temperature);
  if (own.length !== contrast.length) throw new ShapeError("textNormFeatures", `expected contrast for ${own.length} outputs, received ${contrast.length}`);
  const of = (each: (reward: number, others: readonly number[]) => number): number[] => contrast.map((others, i) => each(own[i]!, Array.from(others)));
  return featureTable({
    [`${name}.confidence`]: of((reward, others) => 1 / others.reduce((sum, other) => sum + Math.exp((other - reward) / temperature), 1)),
    [`${name}.margin`]: of((reward, others) => (others.length === 0 ? Number.NaN : reward - Math.max(...others))),
    [`${name}.beaten`]: of((reward, others) => others.reduce((sum, other) => sum + (other < reward ? 1 : other === reward ? 0.5 : 0), 0) / others.length),
  });
}

/** Columns `<name>.mean`, `.min`, `.max`, `.deviation` (divisor: members) over the members of an ensemble, one array per member. Members must be on one scale: normalise
 *  by TextNorm or standardise first. A missing member makes the row's numbers missing. */
export function ensembleFeatures(name: string, members: readonly ArrayLike<number>[]): FeatureTable {
  if (members.length < 2) throw new ConfigError("ensembleFeatures", "members", "at least two", members.length);
  const count = members[0]!.length;
  for (const [m, scores] of members.entries())
    if (scores.length !== count) throw new ShapeError("ensembleFeatures", `expected ${count} scores of member ${m}, received ${scores.length}`);
  const rows = Array.from({ length: count }, (_, row) => members.map(scores => scores[row]!));
  const mean = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0) / v.length;
  return featureTable({
    [`${name}.mean`]: rows.map(mean),
    [`${name}.min`]: rows.map(v => Math.min(...v)),
    [`${name}.max`]: rows.map(v => Math.max(...v)),
    [`${name}.deviation`]: rows.map(v => Math.sqrt(mean(v.map(x => (x - mean(v)) ** 2)))),
  });
}

/** Log-probabilities of the tokens for "yes" and "no" after "does the image show ...?". */
export interface AnswerLogProbs {
  readonly yes: number;
  readonly no: number;
}

/** Risk score of one output: P(yes) / (P(yes) + P(no)), averaged over the orders in which the answers were offered, because models favour the first
 *  (folktexts, Cruz, Hardt & Mendler-Dünner 2024). In [0, 1]. */
export function answerRisk(orders: readonly AnswerLogProbs[]): number {
  if (orders.length === 0) throw new ConfigError("answerRisk", "orders", "at least one", orders.length);
  return orders.reduce((sum, { yes, no }, i) => {
    if (Number.isNaN(yes) || Number.isNaN(no) || (yes === -Infinity && no === -Infinity))
      throw new DataError("answerRisk", `expected log-probabilities of which one is finite, received yes ${yes}, no ${no}`, { row: i });
    return sum + 1 / (1 + Math.exp(no - yes)) / orders.length;
  }, 0);
}
