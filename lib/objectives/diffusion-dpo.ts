/** Diffusion-DPO, Wallace et al., CVPR 2024, arXiv:2311.12908, eq. 14, as released (SalesforceAIResearch/DiffusionDPO train.py): errors are means over
 *  C, H, W and the margin carries beta / 2. At initialisation the loss is exactly ln 2. */

import { scale, softplus } from "../graph/ops/elementwise.js";
import { checkErrorBeta } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

/** beta: inverse temperature of the implicit reward in units of 1 / (mean squared error), 500 to 5000 in practice (default 2000, the paper's main result;
 *  the released launcher uses 5000). Throws ConfigError below 10: 0.001 to 1 is the scale of dspo's score coefficient. */
export function diffusionDpo({ beta = 2000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("diffusionDpo", beta);
  return { name: "diffusion-dpo", batch: "pair", usesReference: true, loss: ctx => diffusionDpoLoss(ctx, beta) };
}

/** mean softplus(-s), s = -(beta / 2) (D_w - D_l), for any beta. */
export function diffusionDpoLoss(ctx: ObjectiveContext, beta: number): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  return pairResult(ctx, softplus(scale(margin, -1)), margin);
}
