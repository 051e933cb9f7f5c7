/** What a reward is: a function from (prompt, picture) to a number, with the name, version and scale without which the number says nothing. Scores of
 *  different models do not compare, so everything made of scores here says whose they are. Any value of this shape is a reward, a user's own included. */

import type { Image } from "../data/image.js";
import { ConfigError, DataError } from "../errors.js";

export interface RewardItem {
  readonly prompt: string;
  readonly image: Image;
}

/** How a reward's numbers are to be read. */
export interface RewardScale {
  /** What one number is, in words: "100 x cosine". */
  readonly unit: string;
  /** Where almost all scores of real pictures lie; no bound. */
  readonly typical: readonly [number, number];
  /** Factor that makes logits of preferences of scores: P(a over b) = sigmoid(logits * (a - b)). Absent where the model was not trained on choices. */
  readonly logits?: number;
}

export interface RewardOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface Reward {
  readonly name: string;
  /** Of the weights: scores of two versions do not compare either. */
  readonly version?: string;
  readonly scale: RewardScale;
  /** One number for every item, in their order. Batches are the reward's own business: a score does not depend on what else is scored. */
  score(items: readonly RewardItem[], options?: RewardOptions): ArrayLike<number> | Promise<ArrayLike<number>>;
}

/** Scores and whose they are. */
export interface RewardScores {
  readonly model: string;
  readonly version: string;
  readonly scale: RewardScale;
  readonly scores: Float64Array;
}

/** The scores of items. Throws DataError where the reward does not give one number for each, and what the reward throws. */
export async function scoreItems(reward: Reward, items: readonly RewardItem[], { signal }: RewardOptions = {}): Promise<RewardScores> {
  signal?.throwIfAborted();
  const { name, version = "", scale } = checkReward(reward);
  const scores = items.length === 0 ? new Float64Array(0) : Float64Array.from(await reward.score(items, { signal }));
  signal?.throwIfAborted();
  if (scores.length !== items.length) throw new DataError(name, `expected ${items.length} scores, received ${scores.length}`);
  const bad = scores.findIndex(x => !Number.isFinite(x));
  if (bad >= 0) throw new DataError(name, `expected a finite score, received ${scores[bad]}`, { row: bad });
  return { model: name, version, scale, scores };
}

/** Throws ConfigError for what is no reward. */
export function checkReward(reward: Reward): Reward {
  if (typeof reward?.score !== "function") throw new ConfigError("reward", "score", "a function", typeof reward?.score);
  if (typeof reward.name !== "string" || reward.name === "") throw new ConfigError("reward", "name", "a name", reward.name);
  const [low, high] = reward.scale?.typical ?? [];
  if (typeof reward.scale?.unit !== "string" || !(Number.isFinite(low) && Number.isFinite(high) && low! <= high!))
    throw new ConfigError(`reward ${reward.name}`, "scale", "{ unit, typical: [low, high] }", reward.scale);
  return reward;
}

export interface RankedImage {
  /** Which of the given pictures. */
  readonly index: number;
  readonly image: Image;
  readonly score: number;
}

/** Pictures of one prompt, the best first; equal scores stay in the order given. */
export async function rank(
  reward: Reward,
  prompt: string,
  images: readonly Image[],
  options: RewardOptions = {},
): Promise<Omit<RewardScores, "scores"> & { readonly ranking: readonly RankedImage[] }> {
  const { scores, ...whose } = await scoreItems(
    reward,
    images.map(image => ({ prompt, image })),
    options,
  );
  const ranking = images.map((image, index) => ({ index, image, score: scores[index]! })).sort((a, b) => b.score - a.score);
  return { ...whose, ranking };
}

/** How likely each picture is to be chosen among all: softmax over scale.logits * score (Luce; of two, Bradley and Terry). The sum is 1.
 *  Throws ConfigError for a reward without `scale.logits`, which was not trained on choices. */
export async function preferenceProbability(reward: Reward, prompt: string, images: readonly Image[], options: RewardOptions = {}): Promise<Float64Array> {
  const { logits } = checkReward(reward).scale;
  if (logits === undefined || !Number.isFinite(logits)) throw new ConfigError("preferenceProbability", `scale.logits of ${reward.name}`, "a number", logits);
  const { scores } = await scoreItems(
    reward,
    images.map(image => ({ prompt, image })),
    options,
  );
  return softmaxOf(scores.map(s => s * logits));
}

/** e^x / sum e^x, safe for any finite x. */
export function softmaxOf(x: Float64Array): Float64Array {
  const most = x.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = x.map(v => Math.exp(v - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map(p => p / total);
}
