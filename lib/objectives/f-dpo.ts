/** f-DPO, Wang et al. 2023, arXiv:2309.16240: Diffusion-DPO with another divergence than reverse KL between policy and reference. The margin is beta
 *  (f'(u_w) - f'(u_l)) with u = e^r the likelihood ratio, and r = -kappa D its estimate at one timestep. Unlike in DPO the two sides weigh differently, and
 *  kappa and beta are two knobs: kappa sets how far from 1 the ratios are, so what the divergence sees. */

import { neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { checkKappa, checkLogRatioBeta } from "./checks.js";
import { type Divergence, jensenShannon } from "./divergences.js";
import { type ErrorSums, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface FDpoOptions {
  /** reverseKl, forwardKl, jensenShannon, alphaDivergence(a) (default jensenShannon: the best trade-off in arXiv:2409.09774, for diffusion models). */
  readonly divergence?: Divergence;
  /** Inverse temperature in units of the log-ratio, in (0, 10) (default 1). */
  readonly beta?: number;
  /** Log-ratio per mean squared error (default 1000). beta * kappa is half of diffusionDpo's beta. */
  readonly kappa?: number;
}

export function fDpo({ divergence = jensenShannon, beta = 1, kappa = 1000 }: FDpoOptions = {}): Objective {
  checkLogRatioBeta("fDpo", beta);
  checkKappa("fDpo", kappa);
  return { name: `f-dpo-${divergence.name}`, batch: "pair", usesReference: true, loss: ctx => fDpoLoss(ctx, { divergence, beta, kappa }) };
}

/** The loss for any scale. */
export function fDpoLoss(ctx: ObjectiveContext, { divergence, beta, kappa }: Required<FDpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const score = ({ D }: ErrorSums) => divergence.score(scale(D, -kappa));
  const margin = scale(sub(score(winner), score(loser)), beta);
  return pairResult(ctx, softplus(neg(margin)), margin);
}
