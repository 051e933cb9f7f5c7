/** Conservative DPO, Mitchell 2023 (https://ericmitchell.ai/cdpo.pdf): each label is believed to be wrong with probability `labelNoise`, so the loss
 *  is the mixture (1 - l) softplus(-s) + l softplus(s). The margin is no longer driven to infinity: its optimum is ln((1 - l) / l). */

import { add, neg, scale, softplus } from "../graph/ops/elementwise.js";
import { checkErrorBeta, checkRange } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface LabelNoiseOptions {
  /** As diffusionDpo's, >= 10 (default 2000). */
  readonly beta?: number;
  /** Probability that a label is wrong, in [0, 0.5) (default 0.1). */
  readonly labelNoise?: number;
}

export function conservativeDpo({ beta = 2000, labelNoise = 0.1 }: LabelNoiseOptions = {}): Objective {
  checkErrorBeta("conservativeDpo", beta);
  checkRange("conservativeDpo", "labelNoise", labelNoise, { least: 0, below: 0.5 });
  return { name: "conservative-dpo", batch: "pair", usesReference: true, loss: ctx => conservativeDpoLoss(ctx, { beta, labelNoise }) };
}

/** The loss for any scale. */
export function conservativeDpoLoss(ctx: ObjectiveContext, { beta, labelNoise }: Required<LabelNoiseOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const losses = add(scale(softplus(neg(margin)), 1 - labelNoise), scale(softplus(margin), labelNoise));
  return pairResult(ctx, losses, margin);
}
