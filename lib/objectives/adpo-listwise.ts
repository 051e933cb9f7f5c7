/** Groups of G pictures of one prompt, each with a reward: listwise ADPO, Wang 2025, arXiv:2510.18913, and the Plackett-Luce likelihood of their
 *  ranking. With r_i = -kappa D_i the log-ratio to the anchor, ADPO is KL(q || softmax(r / tau)), q = softmax(advantage / rewardTemperature), advantages
 *  the group's z-scores. The author's released default is another loss, a smoothed ListMLE of the first three places; the paper is followed, and
 *  `plackettLuce` is the plain ListMLE. Two pictures and hard labels make either Diffusion-DPO. */

import { add, div, exp, greater, log, maximum, mean, mul, scale, select, shift, sqrt, square, sub } from "../graph/ops/elementwise.js";
import { reshape, slice, stopGradient } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { plogp } from "./adpo.js";
import { checkErrorBeta, checkRange, givenInput } from "./checks.js";
import { type Arm, byArm, errorMetrics, meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult } from "./objective.js";

export interface ListwiseOptions {
  /** Pictures per prompt, 2 to 16: `winners`, `losers`, and from the third on `samples` "2", "3", ...; their order does not matter. */
  readonly size: number;
  /** As diffusionDpo's, >= 10 (default 2000): beta / 2 is kappa / tau. */
  readonly beta?: number;
}

/** Every batch brings `extras.rewards`, [B, size]: any numbers, higher is better. rewardTemperature: of the targets, in units of the group's standard
 *  deviation (default 1). */
export function adpoListwise({ size, beta = 2000, rewardTemperature = 1 }: ListwiseOptions & { rewardTemperature?: number }): Objective {
  checkRange("adpoListwise", "rewardTemperature", rewardTemperature, { above: 0 });
  return listwise("adpoListwise", "adpo-listwise", { size, beta }, (scores, rewards) => adpoGroupLoss(scores, zScores(rewards), rewardTemperature));
}

/** -ln P(ranking by reward) under Plackett-Luce, per place. Every batch brings `extras.rewards`, [B, size]. */
export function plackettLuce({ size, beta = 2000 }: ListwiseOptions): Objective {
  return listwise("plackettLuce", "plackett-luce", { size, beta }, plackettLuceGroupLoss);
}

type GroupLoss = (scores: readonly Tensor[], rewards: readonly Tensor[]) => Tensor;

function listwise(subject: string, name: string, { size, beta }: Required<ListwiseOptions>, groupLoss: GroupLoss): Objective {
  checkErrorBeta(subject, beta);
  checkRange(subject, "size", Number.isInteger(size) ? size : Number.NaN, { least: 2, most: 16 });
  return {
    name: `${name}-${size}`,
    batch: "pair",
    usesReference: true,
    arms: groupArms(size),
    inputs: { rewards: { size } },
    loss: ctx => listwiseLoss(ctx, { size, beta }, groupLoss),
  };
}

function groupArms(size: number): Arm[] {
  return Array.from({ length: size }, (_, i) => ({ sample: i === 0 ? "winners" : i === 1 ? "losers" : `${i}` }));
}

function listwiseLoss(ctx: ObjectiveContext, { size, beta }: Required<ListwiseOptions>, groupLoss: GroupLoss): ObjectiveResult {
  const scores = byArm(ctx.sums, size).map(({ D }) => scale(D, -beta / 2));
  const table = givenInput(ctx, "listwise", "rewards");
  const rewards = Array.from({ length: size }, (_, i) => reshape(slice(table, { axis: 1, start: i, length: 1 }), [table.shape[0]!]));
  const metrics = { implicitAccuracy: pairAccuracy(scores, rewards), ...errorMetrics(ctx.sums) };
  return { loss: meanLoss(ctx, groupLoss(scores, rewards)), metrics };
}

/** KL(softmax(advantages / temperature) || softmax(scores)), [B]. */
export function adpoGroupLoss(scores: readonly Tensor[], advantages: readonly Tensor[], temperature: number): Tensor {
  const logP = logSoftmax(scores);
  const q = logSoftmax(advantages.map(a => scale(a, 1 / temperature))).map(exp);
  return total(q.map((p, i) => sub(plogp(p), mul(p, logP[i]!))));
}

/** Mean over the places but the last of -ln of the share that the one who took it has among those still unplaced. Pictures of equal reward share a place. */
export function plackettLuceGroupLoss(scores: readonly Tensor[], rewards: readonly Tensor[]): Tensor {
  const highest = stopGradient(scores.reduce(maximum));
  const weights = scores.map(s => exp(sub(s, highest)));
  const places = scores.map((s, i) => {
    const unplaced = total(weights.map((w, k) => select(greater(rewards[k]!, rewards[i]!), 0, w)));
    return sub(add(highest, log(unplaced)), s);
  });
  return scale(total(places), 1 / (scores.length - 1));
}

function logSoftmax(scores: readonly Tensor[]): Tensor[] {
  const highest = stopGradient(scores.reduce(maximum));
  const above = scores.map(s => sub(s, highest));
  const normaliser = log(total(above.map(exp)));
  return above.map(s => sub(s, normaliser));
}

/** (x - mean) / standard deviation within the group; all 0 where the rewards are equal. */
function zScores(rewards: readonly Tensor[]): Tensor[] {
  const centre = scale(total(rewards), 1 / rewards.length);
  const above = rewards.map(x => sub(x, centre));
  const deviation = sqrt(shift(scale(total(above.map(square)), 1 / rewards.length), 1e-16));
  return above.map(x => div(x, deviation));
}

/** Share of the pairs of different reward that the policy orders as the rewards do. */
function pairAccuracy(scores: readonly Tensor[], rewards: readonly Tensor[]): Tensor {
  const pairs = scores.flatMap((_, i) => scores.flatMap((_, k) => (i === k ? [] : [[i, k] as const])));
  const better = pairs.map(([i, k]) => greater(rewards[i]!, rewards[k]!));
  const right = pairs.map(([i, k], n) => mul(better[n]!, greater(scores[i]!, scores[k]!)));
  const tied = pairs.map(([i, k], n) => mul(better[n]!, select(add(greater(scores[i]!, scores[k]!), greater(scores[k]!, scores[i]!)), 0, 0.5)));
  return div(mean(add(total(right), total(tied))), maximum(mean(total(better)), 1e-12));
}

function total(xs: readonly Tensor[]): Tensor {
  return xs.reduce((a, b) => add(a, b));
}
