/** The objective that the DSPO release uses for SDXL (huaishengzhu/DSPO train.py --sdxl): another loss than the paper's, without any denoising term.
 *  With doubt = sigmoid(-s) and drift P_w = mean (e_w - r_w)^2, the micro-batch takes one of two branches:
 *    mean P_w >= 0.1:  L = mean doubt^2 P_w   (pulls back to the reference)
 *    else:             L = mean doubt^2       (the Brier score of the preference probability; at initialisation half a Diffusion-DPO step). */

import { ConfigError } from "../errors.js";
import { greater, mean, mul, scale, select, sigmoid, square } from "../graph/ops/elementwise.js";
import { full } from "../graph/ops/leaf.js";
import { marginMetrics } from "./margin-metrics.js";
import { errorMetrics, implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";

/** beta: 1000 to 5000 in the release (default 5000), the scale of diffusionDpo. The branch is decided on the micro-batch, as released: its size matters. */
export function dspoSdxl({ beta = 5000 }: { beta?: number } = {}): Objective {
  if (!(beta >= 10 && Number.isFinite(beta)))
    throw new ConfigError("dspoSdxl", "beta", "a finite number >= 10 (1000 to 5000 in the release)", beta, "values below 1 are the scale of dspo");
  return { name: "dspo-sdxl", batch: "pair", usesReference: true, loss: ctx => dspoSdxlLoss(ctx, beta) };
}

/** The loss for any beta. */
export function dspoSdxlLoss({ sums }: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(sums);
  const margin = implicitMargin(winner, loser, beta);
  const brier = square(sigmoid(scale(margin, -1)));
  const near = greater(full(0.1, [1], "f64"), mean(winner.P)); // 1: mean P_w < 0.1
  return { loss: select(near, mean(brier), mean(mul(brier, winner.P))), metrics: { ...marginMetrics(margin, winner, loser), ...errorMetrics(sums) } };
}
