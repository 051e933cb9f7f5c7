/** ADPO, Wang 2025, arXiv:2510.18913, pairwise: soft labels on the log-ratio to an anchor, KL((q, 1 - q) || softmax((r_w, r_l) / tau)) with q the
 *  probability that the winner is better. With hard labels it is Diffusion-DPO, with a constant q conservativeDpo, each up to the entropy of the labels.
 *  The anchor is the frozen reference; adpo-listwise.ts has groups. */

import { add, affine, clamp, greater, log, mul, neg, select, softplus, sub } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, givenInput } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

/** beta: as diffusionDpo's, >= 10 (default 2000): beta / 2 is the paper's 1 / tau per unit of error. Every batch brings `extras.preference`, [B] in [0, 1]. */
export function adpo({ beta = 2000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("adpo", beta);
  return { name: "adpo", batch: "pair", usesReference: true, inputs: { preference: { least: 0, most: 1 } }, loss: ctx => adpoLoss(ctx, beta) };
}

/** The loss for any beta; 0 where the policy's preferences are the labels'. */
export function adpoLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const q = givenInput(ctx, "adpo", "preference");
  const rest = affine(q, { scale: -1, shift: 1 });
  const crossEntropy = add(mul(q, softplus(neg(margin))), mul(rest, softplus(margin)));
  return pairResult(ctx, sub(crossEntropy, neg(add(plogp(q), plogp(rest)))), margin);
}

/** p ln p, 0 at 0. */
export function plogp(p: Tensor): Tensor {
  return select(greater(p, 0), mul(p, log(clamp(p, { min: 1e-300, max: 1 }))), 0);
}
