/** TDPO, Zeng et al. 2024, arXiv:2404.11999, at one timestep. A step of the reverse process is what a token is there, and its forward KL to
 *  the reference is k = kappa mean (e - r)^2 = kappa P, since both steps have one variance. Version 1: s = (r_w - r_l) - (k_l - k_w); version 2: s = (r_w -
 *  r_l) - alpha (k_l - stop(k_w)). Version 2 holds the loser's prediction near the reference, where Diffusion-DPO lets its error grow without bound. The
 *  mapping is ours; the arithmetic is that of the release. */

import { neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { stopGradient } from "../graph/ops/shape.js";
import { checkErrorBeta, checkRange } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface TdpoOptions {
  /** As diffusionDpo's, >= 10 (default 2000); it scales KLs and log-ratios alike. */
  readonly beta?: number;
  /** Strength of the KL difference in version 2 (default 0.5); 0 is Diffusion-DPO. */
  readonly alpha?: number;
}

/** Version 2, the one that the authors recommend. */
export function tdpo({ beta = 2000, alpha = 0.5 }: TdpoOptions = {}): Objective {
  checkErrorBeta("tdpo", beta);
  checkRange("tdpo", "alpha", alpha, { least: 0 });
  return { name: "tdpo", batch: "pair", usesReference: true, loss: ctx => tdpoLoss(ctx, { beta, alpha, detachWinner: true }) };
}

/** Version 1: alpha is 1 and the winner's KL has a gradient, which drives the winner away from the reference. */
export function tdpo1({ beta = 2000 }: { beta?: number } = {}): Objective {
  checkErrorBeta("tdpo1", beta);
  return { name: "tdpo1", batch: "pair", usesReference: true, loss: ctx => tdpoLoss(ctx, { beta, alpha: 1, detachWinner: false }) };
}

/** Either version for any scale. */
export function tdpoLoss(ctx: ObjectiveContext, { beta, alpha, detachWinner }: Required<TdpoOptions> & { detachWinner: boolean }): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const divergence = scale(sub(loser.P, detachWinner ? stopGradient(winner.P) : winner.P), beta / 2);
  return pairResult(ctx, softplus(neg(sub(margin, scale(divergence, alpha)))), margin);
}
