/** TextNorm (Kim et al., "Confidence-aware Reward Optimization for Fine-tuning Text-to-Image Models", ICLR 2024, arXiv:2404.01863): a reward is believed only
 *  as far as it likes the picture's own prompt better than near misses of it. The number is a confidence in (0, 1), whatever the scale of the model. */

import { ConfigError, ShapeError } from "../errors.js";
import { inBatches } from "./batches.js";
import type { Contrast } from "./contrast.js";
import { type Reward, type RewardItem, scoreItems, softmaxOf } from "./reward.js";

export interface TextNormOptions {
  /** Near misses of a prompt, e.g. those of `contrast.ts`, a user's list, or what a language model says. The prompt itself is left out of them. */
  readonly contrast: Contrast;
  /** tau: scores are divided by it. 1 by default; `fitTemperature` fits it. */
  readonly temperature?: number;
  /** Multiplies scores: the paper's files name a `scale` in {0.1, 1, 3, 5, 10}. 1 by default. */
  readonly scale?: number;
}

/** exp(r_0 / tau) / sum_j exp(r_j / tau) of the scores of one picture with its prompt (first) and its near misses. */
export function normalizedScore(scores: Float64Array, { temperature = 1, scale = 1 }: { readonly temperature?: number; readonly scale?: number } = {}): number {
  checkTemperature(temperature, scale);
  if (scores.length === 0) throw new ShapeError("normalizedScore", "expected at least the score of the prompt itself, received none");
  return softmaxOf(scores.map(r => (r * scale) / temperature))[0]!;
}

function checkTemperature(temperature: number, scale: number): void {
  if (!(temperature > 0 && Number.isFinite(temperature))) throw new ConfigError("TextNorm", "temperature", "a number > 0", temperature);
  if (!(scale > 0 && Number.isFinite(scale))) throw new ConfigError("TextNorm", "scale", "a number > 0", scale);
}

/** The reward of the same model, normalised over near misses of each prompt. A prompt that has none scores 1: nothing speaks against it. */
export function textNorm(reward: Reward, { contrast, temperature = 1, scale = 1 }: TextNormOptions): Reward {
  checkTemperature(temperature, scale);
  return {
    name: `TextNorm(${reward.name})`,
    ...(reward.version !== undefined && { version: reward.version }),
    scale: { unit: `softmax over near misses of the prompt at temperature ${temperature / scale}`, typical: [0, 1] },
    async score(items, { signal } = {}) {
      const sets = await nearMisses(items, contrast);
      const work = items.map((item, i) => [item, ...sets.get(item.prompt)!.map(prompt => ({ prompt, image: items[i]!.image }))]);
      // Item by item, so that memory does not grow with prompts times pictures; a backbone's cache makes one pass of each of them.
      return inBatches(work, { batchSize: 16, signal }, async batch => {
        const { scores } = await scoreItems(reward, batch.flat(), { signal });
        let end = 0;
        return batch.map(({ length }) => {
          end += length;
          return normalizedScore(scores.subarray(end - length, end), { temperature, scale });
        });
      });
    },
  };
}

/** Distinct near misses of each prompt, without itself. */
async function nearMisses(items: readonly RewardItem[], contrast: Contrast): Promise<ReadonlyMap<string, readonly string[]>> {
  const sets = new Map<string, readonly string[]>();
  for (const prompt of new Set(items.map(item => item.prompt)))
    sets.set(
      prompt,
      [...new Set(await contrast(prompt))].filter(p => p !== prompt),
    );
  return sets;
}

/** How scores of several models on one scale, such as normalised ones, become one: from the members' scores of one picture. */
export type Combine = (scores: Float64Array) => number;

export const ensembleMean: Combine = scores => scores.reduce((a, b) => a + b, 0) / scores.length;

/** The most doubtful member's. */
export const ensembleMin: Combine = scores => scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);

/** mean - lambda * spread: "variance" as in uncertainty-weighted optimisation (Coste et al. 2023, arXiv:2310.02743), or "deviation", its root (a lower confidence bound). Both of the population. */
export function ensembleLower({ lambda, spread = "variance" }: { readonly lambda: number; readonly spread?: "variance" | "deviation" }): Combine {
  if (!(lambda >= 0 && Number.isFinite(lambda))) throw new ConfigError("ensembleLower", "lambda", "a number >= 0", lambda);
  if (spread !== "variance" && spread !== "deviation") throw new ConfigError("ensembleLower", "spread", '"variance" or "deviation"', spread);
  return scores => {
    const mean = ensembleMean(scores);
    const variance = ensembleMean(scores.map(s => (s - mean) ** 2));
    return mean - lambda * (spread === "variance" ? variance : Math.sqrt(variance));
  };
}

/** Several rewards as one. They must be on one scale: normalised by textNorm or `standardized`. Throws ConfigError without members. */
export function ensemble(members: readonly Reward[], combine: Combine = ensembleMean): Reward {
  if (members.length === 0) throw new ConfigError("ensemble", "members", "at least one reward", members.length);
  const bounds = (pick: (...xs: number[]) => number, end: 0 | 1): number => pick(...members.map(m => m.scale.typical[end]));
  return {
    name: `ensemble(${members.map(m => m.name).join(", ")})`,
    version: members.map(m => m.version ?? "").join(", "),
    scale: { unit: "combination of members' scores", typical: [bounds(Math.min, 0), bounds(Math.max, 1)] },
    async score(items, { signal } = {}) {
      const all: Float64Array[] = [];
      for (const member of members) all.push((await scoreItems(member, items, { signal })).scores);
      return items.map((_, i) => combine(Float64Array.from(all, scores => scores[i]!)));
    },
  };
}

/** The temperature that makes normalised scores most likely to be true of labelled pictures: minimises the log loss of `aligned` over tau by golden section
 *  on log tau. `scores[i]` are one picture's scores, its own prompt first. Fit it on other pictures than those it is used on.
 *  Throws ShapeError where the two differ in length, ConfigError where labels are all alike or the bounds are no interval. */
export function fitTemperature(
  scores: readonly Float64Array[],
  aligned: ArrayLike<number>,
  { low = 1e-3, high = 1e3 }: { readonly low?: number; readonly high?: number } = {},
): { readonly temperature: number; readonly loss: number } {
  if (scores.length !== aligned.length)
    throw new ShapeError("fitTemperature", `expected as many labels as pictures, received ${aligned.length} and ${scores.length}`);
  if (!(low > 0 && high > low)) throw new ConfigError("fitTemperature", "low, high", "0 < low < high", [low, high]);
  const labels = Array.from(aligned);
  if (!labels.includes(1) || !labels.includes(0) || labels.some(y => y !== 0 && y !== 1))
    throw new ConfigError("fitTemperature", "aligned", "0s and 1s, some of each", labels.slice(0, 8));
  const loss = (logTau: number): number =>
    scores.reduce((sum, r, i) => {
      const p = normalizedScore(r, { temperature: Math.exp(logTau) });
      return sum - Math.log(Math.max(labels[i] === 1 ? p : 1 - p, 1e-300));
    }, 0) / scores.length;
  // The loss may have several valleys: the best of a grid is bracketed first.
  const grid = Array.from({ length: 41 }, (_, k) => Math.log(low) + (k / 40) * Math.log(high / low));
  const best = grid.map(loss).reduce((at, value, k, all) => (value < all[at]! ? k : at), 0);
  const logTau = goldenSection(loss, grid[Math.max(0, best - 1)]!, grid[Math.min(40, best + 1)]!);
  return { temperature: Math.exp(logTau), loss: loss(logTau) };
}

function goldenSection(f: (x: number) => number, low: number, high: number): number {
  const ratio = (Math.sqrt(5) - 1) / 2;
  let [a, b] = [low, high];
  while (b - a > 1e-9 * Math.max(1, Math.abs(a))) {
    const [c, d] = [b - ratio * (b - a), a + ratio * (b - a)];
    if (f(c) < f(d)) b = d;
    else a = c;
  }
  return (a + b) / 2;
}
