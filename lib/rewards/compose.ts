/** Rewards made of rewards. Numbers of different models do not compare, so what adds them normalises each first; what multiplies them bounds each first. Every
 *  combination is a Reward again. */

import { ConfigError, DataError } from "../errors.js";
import { type Reward, type RewardItem, type RewardOptions, scoreItems } from "./reward.js";

/** Scores of all parts, part by part: they share backbones, and their caches with them. */
async function partScores(parts: readonly Reward[], items: readonly RewardItem[], options: RewardOptions): Promise<Float64Array[]> {
  const all: Float64Array[] = [];
  for (const part of parts) all.push((await scoreItems(part, items, options)).scores);
  return all;
}

function versionsOf(parts: readonly Reward[]): string {
  return parts.map(part => `${part.name} ${part.version ?? ""}`.trim()).join(", ");
}

/** (score - mean) / std with statistics of the user's own data, or those of `fitNormalization`. Throws ConfigError unless std > 0. */
export function standardized(reward: Reward, { mean, std }: { readonly mean: number; readonly std: number }): Reward {
  if (!(Number.isFinite(mean) && std > 0 && Number.isFinite(std))) throw new ConfigError("standardized", "mean, std", "a number, and one > 0", [mean, std]);
  const { typical, logits } = reward.scale;
  return {
    name: `standardized(${reward.name})`,
    ...(reward.version !== undefined && { version: reward.version }),
    scale: {
      unit: `standard deviations of ${std} ${reward.scale.unit} from ${mean}`,
      typical: [(typical[0] - mean) / std, (typical[1] - mean) / std],
      ...(logits !== undefined && { logits: logits * std }),
    },
    score: async (items, options = {}) => (await scoreItems(reward, items, options)).scores.map(s => (s - mean) / std),
  };
}

/** Mean and standard deviation (of the population) of scores, for `standardized`. Throws DataError where they do not vary. */
export function fitNormalization(scores: ArrayLike<number>): { readonly mean: number; readonly std: number } {
  const values = Array.from(scores);
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const std = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
  if (!(std > 0 && Number.isFinite(std))) throw new DataError("fitNormalization", `expected scores that vary, received ${values.length} with deviation ${std}`);
  return { mean, std };
}

export interface WeightedPart {
  readonly reward: Reward;
  readonly weight: number;
  /** What the reward's scores are normalised with before they are added. */
  readonly normalize: { readonly mean: number; readonly std: number };
}

/** sum of weight * (score - mean) / std. Every part says how it is normalised: a sum of raw scores is mostly that of the model with the largest numbers. */
export function weightedSum(parts: readonly WeightedPart[]): Reward {
  if (parts.length === 0) throw new ConfigError("weightedSum", "parts", "at least one", 0);
  for (const { weight } of parts) if (!Number.isFinite(weight)) throw new ConfigError("weightedSum", "weight", "a number", weight);
  const own = parts.map(({ reward, normalize }) => standardized(reward, normalize));
  const typical = [0, 1].map(end => own.reduce((sum, { scale }, i) => sum + parts[i]!.weight * scale.typical[parts[i]!.weight >= 0 ? end : 1 - end]!, 0));
  return {
    name: `weightedSum(${parts.map(({ reward, weight }) => `${weight} ${reward.name}`).join(" + ")})`,
    version: versionsOf(parts.map(p => p.reward)),
    scale: { unit: "weighted standard deviations", typical: [typical[0]!, typical[1]!] },
    async score(items, options = {}) {
      const all = await partScores(own, items, options);
      return items.map((_, i) => all.reduce((sum, scores, k) => sum + parts[k]!.weight * scores[i]!, 0));
    },
  };
}

/** Relevance times regularisers, after R^3 (Jeong et al. 2024, arXiv:2402.03469), whose reward of texts is a relevance multiplied by penalties for what the relevance
 *  alone would be gamed by. `bounded` maps scores to [0, 1]: `linear(scale.typical)` of each part by default. A regulariser near 0 takes the whole reward with it.
 *  The idea for pictures; no reproduction. */
export function regularizedRelevance(
  relevance: Reward,
  regularizers: readonly Reward[],
  { bounded = reward => linearOnto(reward.scale.typical) }: { readonly bounded?: (reward: Reward) => (score: number) => number } = {},
): Reward {
  const parts = [relevance, ...regularizers];
  return {
    name: `${relevance.name} regularized by ${regularizers.map(r => r.name).join(", ") || "nothing"}`,
    version: versionsOf(parts),
    scale: { unit: "product of shares", typical: [0, 1] },
    async score(items, options = {}) {
      const all = await partScores(parts, items, options);
      const maps = parts.map(bounded);
      return items.map((_, i) => all.reduce((product, scores, k) => product * maps[k]!(scores[i]!), 1));
    },
  };
}

/** [low, high] onto [0, 1], clamped. Throws ConfigError unless low < high. */
export function linearOnto([low, high]: readonly [number, number]): (score: number) => number {
  if (!(low < high)) throw new ConfigError("linearOnto", "the interval", "[low, high] with low < high", [low, high]);
  return score => Math.min(1, Math.max(0, (score - low) / (high - low)));
}

/** Calibrated self-rewarding (CSR, Zhou et al. 2024, arXiv:2405.14622): (1 - alpha) rank by `self` + alpha rank by `relevance`, ranks from 1/n to 1 within the
 *  pictures of one prompt, equal scores sharing their mean rank. It depends on what is scored together: not a Reward. alpha 0.9 as released. */
export async function rankMix(
  { self, relevance }: { readonly self: Reward; readonly relevance: Reward },
  items: readonly RewardItem[],
  { alpha = 0.9, ...options }: RewardOptions & { readonly alpha?: number } = {},
): Promise<Float64Array> {
  if (!(alpha >= 0 && alpha <= 1)) throw new ConfigError("rankMix", "alpha", "a number in [0, 1]", alpha);
  const [own = new Float64Array(0), other = new Float64Array(0)] = await partScores([self, relevance], items, options);
  const mixed = new Float64Array(items.length);
  const groups = new Map<string, number[]>();
  for (const [i, { prompt }] of items.entries()) groups.set(prompt, [...(groups.get(prompt) ?? []), i]);
  for (const group of groups.values()) {
    const [a, b] = [own, other].map(scores => shares(group.map(i => scores[i]!)));
    for (const [k, i] of group.entries()) mixed[i] = (1 - alpha) * a![k]! + alpha * b![k]!;
  }
  return mixed;
}

/** Rank over n of each value, the largest 1. */
function shares(values: readonly number[]): number[] {
  return values.map(v => (values.filter(w => w < v).length + (values.filter(w => w === v).length + 1) / 2) / values.length);
}
