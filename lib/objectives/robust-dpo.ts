/** Robust DPO, Chowdhury et al. 2024, arXiv:2403.00409: where labels are flipped with probability `labelNoise`, this loss has in expectation the
 *  value of DPO on clean labels: ((1 - l) softplus(-s) - l softplus(s)) / (1 - 2 l). Unbiased, where conservativeDpo is cautious; its variance grows as l
 *  nears 1/2, and pairs that are won by far give a negative loss. */

import { neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { checkErrorBeta, checkRange } from "./checks.js";
import type { LabelNoiseOptions } from "./conservative-dpo.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export function robustDpo({ beta = 2000, labelNoise = 0.1 }: LabelNoiseOptions = {}): Objective {
  checkErrorBeta("robustDpo", beta);
  checkRange("robustDpo", "labelNoise", labelNoise, { least: 0, below: 0.5 });
  return { name: "robust-dpo", batch: "pair", usesReference: true, loss: ctx => robustDpoLoss(ctx, { beta, labelNoise }) };
}

/** The loss for any scale. */
export function robustDpoLoss(ctx: ObjectiveContext, { beta, labelNoise }: Required<LabelNoiseOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const losses = sub(scale(softplus(neg(margin)), (1 - labelNoise) / (1 - 2 * labelNoise)), scale(softplus(margin), labelNoise / (1 - 2 * labelNoise)));
  return pairResult(ctx, losses, margin);
}
