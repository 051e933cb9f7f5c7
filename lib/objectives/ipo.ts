/** IPO, Azar et al. 2024, arXiv:2310.12036, eq. 17: the log-ratio margin is regressed onto 1 / (2 tau), so that a pair that is won by far stops pulling. L
 *  = mean (m - 1 / (2 tau))^2 with m = -kappa (D_w - D_l). diffusers' script has kappa = 1 and its beta for tau (and reads an option that does not exist);
 *  with errors of 1e-3 its target is far away or next to nothing, so kappa brings errors to log-ratios first. */

import { shift, square } from "../graph/ops/elementwise.js";
import { checkKappa, checkLogRatioBeta } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface IpoOptions {
  /** Regularisation in units of 1 / log-ratio, in (0, 10) (default 0.25: the target margin is 2, a preference of 88 %). */
  readonly tau?: number;
  /** Log-ratio per mean squared error (default 1000). */
  readonly kappa?: number;
}

export function ipo({ tau = 0.25, kappa = 1000 }: IpoOptions = {}): Objective {
  checkLogRatioBeta("ipo", tau, "tau");
  checkKappa("ipo", kappa);
  return { name: "ipo", batch: "pair", usesReference: true, loss: ctx => ipoLoss(ctx, { tau, kappa }) };
}

/** The loss for any scale. */
export function ipoLoss(ctx: ObjectiveContext, { tau, kappa }: Required<IpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, 2 * kappa);
  return pairResult(ctx, square(shift(margin, -1 / (2 * tau))), margin);
}
