/** rDPO, Xing et al. 2025 (Re-Align), arXiv:2502.13146, with prompt and picture changing places: beside the preferred picture of a prompt, the
 *  preferred prompt of a picture. The winner is scored once more under a contrasting condition (a near prompt, or one with an attribute swapped), and must
 *  be likelier under its own: L = mean softplus(-(s_w - s_l)) + softplus(-(s_w - s_c)). A model that ignores its prompt keeps ln 2 in the second term. The
 *  release comments out the KL and anchor terms of the text; so do we. */

import { add, neg, softplus } from "../graph/ops/elementwise.js";
import { concat } from "../graph/ops/shape.js";
import { checkErrorBeta } from "./checks.js";
import { marginMetrics } from "./margin-metrics.js";
import { byArm, type ErrorSums, errorMetrics, implicitMargin, meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult } from "./objective.js";

/** beta: as diffusionDpo's, >= 10 (default 2000). Every batch brings `conditions.contrast`. Costs half as much again as diffusionDpo. */
export function rdpo({ beta = 2000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("rdpo", beta);
  return {
    name: "rdpo",
    batch: "pair",
    usesReference: true,
    arms: [{ sample: "winners" }, { sample: "losers" }, { sample: "winners", condition: "contrast" }],
    loss: ctx => rdpoLoss(ctx, beta),
  };
}

/** The loss for any beta; sums of winners, losers, and winners under the contrast. */
export function rdpoLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const [winner, loser, contrast] = byArm(ctx.sums, 3) as [ErrorSums, ErrorSums, ErrorSums];
  const margin = implicitMargin(winner, loser, beta);
  const dependence = implicitMargin(winner, contrast, beta);
  const losses = add(softplus(neg(margin)), softplus(neg(dependence)));
  const { implicitAccuracy, margin: conditionMargin } = marginMetrics(dependence, winner, contrast);
  const pair = { E: concat([winner.E, loser.E], 0), D: concat([winner.D, loser.D], 0) };
  const metrics = { ...marginMetrics(margin, winner, loser), ...errorMetrics(pair), conditionAccuracy: implicitAccuracy!, conditionMargin: conditionMargin! };
  return { loss: meanLoss(ctx, losses), metrics };
}
