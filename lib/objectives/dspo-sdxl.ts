/** The objective that the DSPO release uses for SDXL (huaishengzhu/DSPO train.py --sdxl): another loss than the paper's, without any denoising term.
 *  With doubt = sigmoid(-s) and drift P_w = mean (e_w - r_w)^2, the micro-batch takes one of two branches:
 *    mean P_w >= 0.1:  L = mean doubt^2 P_w   (pulls back to the reference)
 *    else:             L = mean doubt^2       (the Brier score of the preference probability; at initialisation half a Diffusion-DPO step). */

import { greater, mean, mul, scale, select, sigmoid, square } from "../graph/ops/elementwise.js";
import { full } from "../graph/ops/leaf.js";
import { checkErrorBeta } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

/** beta: 1000 to 5000 in the release (default 5000), the scale of diffusionDpo. The branch is decided on the micro-batch, as released: its size matters. */
export function dspoSdxl({ beta = 5000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("dspoSdxl", beta, { usual: "1000 to 5000" });
  return { name: "dspo-sdxl", batch: "pair", usesReference: true, loss: ctx => dspoSdxlLoss(ctx, beta) };
}

/** The loss for any beta. */
export function dspoSdxlLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const brier = square(sigmoid(scale(margin, -1)));
  const near = greater(full(0.1, [1], "f64"), mean(winner.P)); // 1: mean P_w < 0.1
  return pairResult(ctx, select(near, brier, mul(brier, winner.P)), margin);
}
