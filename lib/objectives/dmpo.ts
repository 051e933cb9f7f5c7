/** DMPO, divergence minimization preference optimization, Li et al. 2025, arXiv:2507.07510, as re-implemented by AIDC-AI/Diffusion-SDPO (train.py, dmpo):
 *  the reverse KL from the policy's preference to a label that is nearly certain, KL(Bernoulli(sigmoid s) || Bernoulli(1 - smoothing)), s = -(beta / 2)
 *  (D_w - D_l). Its slope sigmoid(s) sigmoid(-s) (s - logit(1 - smoothing)) vanishes for pairs that the policy contradicts badly: mode-seeking among pairs. */

import { add, mul, neg, scale, shift, sigmoid, softplus } from "../graph/ops/elementwise.js";
import { checkErrorBeta, checkRange } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface DmpoOptions {
  /** As diffusionDpo's, >= 10 (default 2000 as for SD 1.5; 6000 for SDXL). */
  readonly beta?: number;
  /** Probability left to the loser in the target, in (0, 0.5) (default 0.01). */
  readonly smoothing?: number;
}

export function dmpo({ beta = 2000, smoothing = 0.01 }: DmpoOptions = {}): Objective {
  checkErrorBeta("dmpo", beta);
  checkRange("dmpo", "smoothing", smoothing, { above: 0, below: 0.5 });
  return { name: "dmpo", batch: "pair", usesReference: true, loss: ctx => dmpoLoss(ctx, { beta, smoothing }) };
}

/** The loss for any beta: p (ln p - ln q) + (1 - p) (ln(1 - p) - ln(1 - q)) with every logarithm a softplus. */
export function dmpoLoss(ctx: ObjectiveContext, { beta, smoothing }: Required<DmpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const side = (s: typeof margin, target: number) => mul(sigmoid(s), shift(scale(softplus(neg(s)), -1), -Math.log(target)));
  return pairResult(ctx, add(side(margin, 1 - smoothing), side(neg(margin), smoothing)), margin);
}
