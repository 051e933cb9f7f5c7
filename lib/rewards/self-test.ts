/** Does a reward see at all? Three changes that must lower a trained model's score, tried on the user's own pictures. It reports; what is good enough is the user's to say:
 *  with random weights each check passes half of the time. */

import type { Image } from "../data/image.js";
import { ConfigError } from "../errors.js";
import { type Reward, type RewardItem, type RewardOptions, scoreItems } from "./reward.js";

export interface RewardSelfTestOptions extends RewardOptions {
  /** Pictures that fit their prompts; at least two, of different prompts. */
  readonly items: readonly RewardItem[];
  /** Pairs of one prompt of which people prefer the first. */
  readonly pairs?: readonly { readonly prompt: string; readonly winner: Image; readonly loser: Image }[];
}

export interface SelfTestCheck {
  readonly name: "black image" | "shuffled prompt" | "gold pair" | "batch size";
  /** How many comparisons went the right way, of how many. */
  readonly right: number;
  readonly total: number;
  /** Mean of what the right one scores above the other. Of "batch size", the largest difference, which should be rounding. */
  readonly margin: number;
}

export interface RewardSelfTestReport {
  readonly model: string;
  readonly version: string;
  readonly checks: readonly SelfTestCheck[];
  /** Every check right more often than not, and scores independent of the batch within 1e-6 of the typical range. */
  readonly passed: boolean;
}

/** A reward that ignores prompts (an aesthetic one) fails "shuffled prompt", as it should. Throws ConfigError for too few items, and what the reward throws. */
export async function rewardSelfTest(reward: Reward, { items, pairs = [], signal }: RewardSelfTestOptions): Promise<RewardSelfTestReport> {
  const prompts = new Set(items.map(item => item.prompt));
  if (prompts.size < 2) throw new ConfigError("rewardSelfTest", "items", "pictures of at least two prompts", prompts.size);
  const own = await scoreItems(reward, items, { signal });
  const black = await scoreItems(
    reward,
    items.map(({ prompt, image }) => ({ prompt, image: blackened(image) })),
    { signal },
  );
  const other = await scoreItems(
    reward,
    items.map(({ prompt, image }, i) => ({ prompt: nextPrompt(items, i, prompt), image })),
    { signal },
  );
  const [winners, losers] = [
    await scoreItems(
      reward,
      pairs.map(({ prompt, winner: image }) => ({ prompt, image })),
      { signal },
    ),
    await scoreItems(
      reward,
      pairs.map(({ prompt, loser: image }) => ({ prompt, image })),
      { signal },
    ),
  ];
  const checks = [
    check("black image", own.scores, black.scores),
    check("shuffled prompt", own.scores, other.scores),
    ...(pairs.length > 0 ? [check("gold pair", winners.scores, losers.scores)] : []),
    await batchCheck(reward, items, own.scores, signal),
  ];
  return { model: own.model, version: own.version, checks, passed: checks.every(c => 2 * c.right > c.total) };
}

function check(name: SelfTestCheck["name"], good: Float64Array, bad: Float64Array): SelfTestCheck {
  const margins = good.map((s, i) => s - bad[i]!);
  return { name, right: margins.filter(m => m > 0).length, total: good.length, margin: margins.reduce((a, b) => a + b, 0) / good.length };
}

/** One by one, on copies that no cache knows, against all at once. */
async function batchCheck(reward: Reward, items: readonly RewardItem[], together: Float64Array, signal: AbortSignal | undefined): Promise<SelfTestCheck> {
  const [low, high] = reward.scale.typical;
  const differences: number[] = [];
  for (const [i, { prompt, image }] of items.entries()) {
    const { scores } = await scoreItems(reward, [{ prompt, image: { ...image } }], { signal });
    differences.push(Math.abs(scores[0]! - together[i]!));
  }
  const bound = 1e-6 * Math.max(high - low, Math.abs(high), Math.abs(low));
  return { name: "batch size", right: differences.filter(d => d <= bound).length === items.length ? 1 : 0, total: 1, margin: Math.max(...differences) };
}

function blackened({ width, height }: Image): Image {
  return { width, height, channels: 3, data: new Uint8Array(3 * width * height) };
}

/** The next prompt in the list that is another. */
function nextPrompt(items: readonly RewardItem[], from: number, prompt: string): string {
  for (let k = 1; k < items.length; k++) {
    const other = items[(from + k) % items.length]!.prompt;
    if (other !== prompt) return other;
  }
  return prompt;
}
