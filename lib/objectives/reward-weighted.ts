/** Reward-weighted likelihood, after Lee et al. 2023, arXiv:2302.12192: each sample's denoising error counts as much as its reward, and pictures of
 *  the pre-training data keep the model where it was: L = mean (reward E) + beta mean E_pretrain. No reference, no pairs; the cheapest use of a reward, and
 *  the ancestor of the others. Rewards carry no gradient. */

import { add, mean, mul, scale } from "../graph/ops/elementwise.js";
import { checkRange, givenInput } from "./checks.js";
import { byArm, meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult } from "./objective.js";

/** beta: weight of the pre-training term (default 0: it is left out). Every batch brings its pictures as `winners` and `extras.reward`, [B] in [0, 1]; with
 *  beta > 0 also `samples.pretrain` under `conditions.pretrain`. */
export function rewardWeighted({ beta = 0 }: { beta?: number } = {}): Objective {
  checkRange("rewardWeighted", "beta", beta, {
    least: 0,
    most: 10,
    hint: "it weighs one denoising error against another; 500 to 5000 is the scale of diffusionDpo",
  });
  return {
    name: "reward-weighted",
    batch: "single",
    usesReference: false,
    inputs: { reward: { least: 0, most: 1 } },
    ...(beta > 0 && { arms: [{ sample: "winners" }, { sample: "pretrain", condition: "pretrain" }] }),
    loss: ctx => rewardWeightedLoss(ctx, beta),
  };
}

/** The loss; with beta > 0 the sums' second arm is the pre-training data. */
export function rewardWeightedLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const [own, pretrain] = byArm(ctx.sums, beta > 0 ? 2 : 1);
  const rewarded = mul(givenInput(ctx, "rewardWeighted", "reward"), own!.E);
  const losses = pretrain ? add(rewarded, scale(pretrain.E, beta)) : rewarded;
  return { loss: meanLoss(ctx, losses), metrics: { modelMse: mean(own!.E), ...(pretrain && { pretrainMse: mean(pretrain.E) }) } };
}
