/** DSPO with a temperature for each of its two places, so that the preference weight takes part. In the released form one beta is both: small enough for the
 *  score term it leaves the sigmoid at 1/2 and the method is sft; large enough for the sigmoid it climbs the winner's error. Here beta is the inverse
 *  temperature of the implicit reward, and scoreBeta the strength of the score term: s = -(beta / 2) (D_w - D_l), L = mean (d_w - scoreBeta sigmoid(-s)
 *  p_w)^2. Our extension, in no paper; scoreBeta = beta is dspo. */

import { scale, sigmoid } from "../graph/ops/elementwise.js";
import { stopGradient } from "../graph/ops/shape.js";
import { checkErrorBeta } from "./checks.js";
import { checkScoreBeta, scoreError } from "./dspo.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface TwoTemperatureOptions {
  /** Inverse temperature of the implicit reward on diffusionDpo's scale (default 2000). */
  readonly beta?: number;
  /** Coefficient of the score term in (0, 1) (default 0.5): at 1 and full doubt the winner's pull is zero. */
  readonly scoreBeta?: number;
  /** Whether the weight is a number without gradient (default false, as released): losers then have none at all. */
  readonly detachWeight?: boolean;
}

export function dspoTwoTemperature(options: TwoTemperatureOptions = {}): Objective {
  const { beta = 2000, scoreBeta = 0.5, detachWeight = false } = options;
  checkErrorBeta("dspoTwoTemperature", beta);
  checkScoreBeta("dspoTwoTemperature", "scoreBeta", scoreBeta);
  return {
    name: "dspo-two-temperature",
    batch: "pair",
    usesReference: true,
    loss: ctx => dspoTwoTemperatureLoss(ctx, { beta, scoreBeta, detachWeight }),
  };
}

/** The loss for any temperatures. */
export function dspoTwoTemperatureLoss(ctx: ObjectiveContext, { beta, scoreBeta, detachWeight }: Required<TwoTemperatureOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const doubt = sigmoid(scale(margin, -1));
  return pairResult(ctx, scoreError(winner, scale(detachWeight ? stopGradient(doubt) : doubt, scoreBeta)), margin);
}
