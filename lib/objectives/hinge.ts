/** The hinge loss of SLiC, Zhao et al. 2023, arXiv:2305.10425, on the implicit margin: L = mean max(0, 1 - s), s = -(beta / 2) (D_w - D_l). Pairs that are
 *  won by a margin of 1 stop pulling; all others pull alike, however wrong they are. diffusers' script has no 1/2 in its margin: its beta is half of this
 *  one. */

import { affine, relu } from "../graph/ops/elementwise.js";
import { checkErrorBeta } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

/** beta: as diffusionDpo's, >= 10 (default 2000). */
export function hinge({ beta = 2000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("hinge", beta);
  return { name: "hinge", batch: "pair", usesReference: true, loss: ctx => hingeLoss(ctx, beta) };
}

/** The loss for any beta. */
export function hingeLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  return pairResult(ctx, relu(affine(margin, { scale: -1, shift: 1 })), margin);
}
