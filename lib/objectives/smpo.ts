/** SmPO-Diffusion, Lu et al. 2025, arXiv:2506.02698, as released (JaydenLyh/SmPO): labels are soft. With pi the probability that the winner is the better
 *  picture, as a reward model sees it, the margin counts (2 pi - 1) sharpness times: L = mean softplus(-sharpness (2 pi - 1) s). A pair that could go either
 *  way has no slope. The release also inverts the samples to find their noise; that belongs to the noising and is not part of this loss. */

import { affine, mul, neg, softplus } from "../graph/ops/elementwise.js";
import { checkErrorBeta, checkRange, givenInput } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface SmpoOptions {
  /** As diffusionDpo's, >= 10 (default 2000; SDXL 5000). */
  readonly beta?: number;
  /** Factor of 2 pi - 1 (default 10, as released: its softmax keeps pi below 0.731, so the product below 4.62). */
  readonly sharpness?: number;
}

/** Every batch brings `extras.preference`, [B] in [0, 1]: the probability that the winner is better; below 1/2 the pair counts the other way round. */
export function smpo({ beta = 2000, sharpness = 10 }: SmpoOptions = {}): Objective {
  checkErrorBeta("smpo", beta);
  checkRange("smpo", "sharpness", sharpness, { above: 0 });
  return {
    name: "smpo",
    batch: "pair",
    usesReference: true,
    inputs: { preference: { least: 0, most: 1 } },
    loss: ctx => smpoLoss(ctx, { beta, sharpness }),
  };
}

/** The loss for any scale. */
export function smpoLoss(ctx: ObjectiveContext, { beta, sharpness }: Required<SmpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const certainty = affine(givenInput(ctx, "smpo", "preference"), { scale: 2 * sharpness, shift: -sharpness });
  return pairResult(ctx, softplus(neg(mul(certainty, margin))), margin);
}
