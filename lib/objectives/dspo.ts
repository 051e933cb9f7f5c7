/** Direct Score Preference Optimization, Zhu et al., ICLR 2025, as its authors released it for SD 1.5 (huaishengzhu/DSPO train.py, without --sdxl).
 *  The winner's noise target moves by beta * doubt times the policy's drift from the reference, where doubt is how much the implicit reward still prefers
 *  the loser:  L = mean (d_w - beta doubt p_w)^2 = E_w - 2 beta doubt C_w + (beta doubt)^2 P_w.  Nothing is detached but the reference.
 *  The paper has one temperature inside and outside the sigmoid; the released code has beta / 2 inside and beta outside. */

import { ConfigError } from "../errors.js";
import { add, mul, scale, sigmoid, square, sub } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { type ErrorSums, implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

/** beta in (0, 1): coefficient of the score term (default 0.01; the launcher uses 0.001, where the loss equals sft to about 0.05 %).
 *  Throws ConfigError from 1 on: at beta > 2 the first step climbs the winner's error. 500 to 5000 is diffusionDpo's scale. */
export function dspo({ beta = 0.01 }: { beta?: number } = {}): Objective {
  checkScoreBeta("dspo", "beta", beta);
  return { name: "dspo", batch: "pair", usesReference: true, loss: ctx => dspoLoss(ctx, beta) };
}

/** The loss for any beta, outside the range that trains, for comparison with the released code. */
export function dspoLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const doubt = sigmoid(scale(margin, -1)); // sigmoid(-s), not 1 - sigmoid(s), which is 0 in f32 from s = 17
  return pairResult(ctx, scoreError(winner, scale(doubt, beta)), margin);
}

/** mean (d - pull p)^2 over C, H, W, with `pull` [B]: the error against a target that moved by `pull` times the drift from the reference. */
export function scoreError({ E, C, P }: ErrorSums, pull: Tensor): Tensor {
  return add(sub(E, scale(mul(pull, C), 2)), mul(square(pull), P));
}

export function checkScoreBeta(subject: string, option: string, value: number): void {
  if (value > 0 && value < 1) return;
  const hint = "500 to 5000 is the scale of diffusionDpo and dspoSdxl: there beta multiplies an error difference, here a prediction difference";
  throw new ConfigError(subject, option, "in (0, 1)", value, hint);
}
