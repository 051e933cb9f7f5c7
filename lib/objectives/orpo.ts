/** ORPO, Hong et al. 2024, arXiv:2403.07691, for diffusion: no reference; L = mean E_w + beta mean softplus(-(ln odds_w - ln odds_l)). The likelihood
 *  of a sample is P = e^(-kappa E), so ln odds = ln P - ln(1 - P) = -ln(e^(kappa E) - 1); for small errors the margin is ln(E_l / E_w). diffusers' script
 *  takes E_w - E_l for the margin, which has the wrong sign (it trains the loser too) and is no odds; it is not followed. */

import { add, clamp, exp, log, neg, scale, shift, softplus, sub } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { checkRange } from "./checks.js";
import { referenceFreeMetrics } from "./mapo.js";
import { meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";

/** ln odds of a sample from its mean squared error, up to a constant. */
export type LogOdds = (E: Tensor) => Tensor;

/** -ln(e^(kappa E) - 1); kappa E is held at 1e-9. */
export function exponentialOdds(kappa = 1): LogOdds {
  checkRange("exponentialOdds", "kappa", kappa, { above: 0 });
  return E => {
    const x = clamp(scale(E, kappa), { min: 1e-9, max: 1e6 });
    return neg(add(x, log(shift(neg(exp(neg(x))), 1))));
  };
}

/** -E: the log-likelihood alone; diffusers' margin with its sign put right. */
export const negativeError: LogOdds = neg;

export interface OrpoOptions {
  /** Weight of the odds term in units of the denoising loss, in (0, 10) (default 0.1). */
  readonly beta?: number;
  readonly logOdds?: LogOdds;
}

export function orpo({ beta = 0.1, logOdds = exponentialOdds() }: OrpoOptions = {}): Objective {
  checkRange("orpo", "beta", beta, {
    above: 0,
    below: 10,
    hint: "it weighs the odds term against the denoising loss; 500 to 5000 is the scale of diffusionDpo",
  });
  return { name: "orpo", batch: "pair", usesReference: false, loss: ctx => orpoLoss(ctx, { beta, logOdds }) };
}

/** The loss for any scale. */
export function orpoLoss(ctx: ObjectiveContext, { beta, logOdds }: Required<OrpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = sub(logOdds(winner.E), logOdds(loser.E));
  const losses = add(winner.E, scale(softplus(neg(margin)), beta));
  return { loss: meanLoss(ctx, losses), metrics: referenceFreeMetrics(margin, winner.E, loser.E) };
}
