/** LD-DPO, Liu et al. 2024, arXiv:2409.06411: what one answer of a pair has beyond the length of the other counts alpha times, so that length itself
 *  is not preferred. A picture has no suffix; its length is the part of the latent that holds it (rows, where pictures of other shapes were padded at their
 *  end), in segments. The log-ratio is the sum over segments that hold picture: the padding counts nothing. Pairs of equal length are Diffusion-DPO's. The
 *  mapping is ours; the arithmetic is that of TRL. */

import { add, greater, minimum, mul, neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { constant } from "../graph/ops/leaf.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, checkRange, given, givenInput } from "./checks.js";
import { type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";
import { perRow } from "./tgdpo.js";

export interface LdDpoOptions {
  /** Segments of a sample, a divisor of its height: the unit of lengths. */
  readonly segments: number;
  /** As diffusionDpo's, >= 10 (default 2000), for a sample that is full. */
  readonly beta?: number;
  /** Weight of what exceeds the common length, in [0, 1] (default 0.5); 1 is Diffusion-DPO on the unpadded parts. */
  readonly alpha?: number;
}

/** Every batch brings `extras.winnerLength` and `extras.loserLength`, [B] each, in segments from the top. */
export function ldDpo({ segments, beta = 2000, alpha = 0.5 }: LdDpoOptions): Objective {
  checkErrorBeta("ldDpo", beta);
  checkRange("ldDpo", "alpha", alpha, { least: 0, most: 1 });
  checkRange("ldDpo", "segments", Number.isInteger(segments) ? segments : Number.NaN, { least: 1 });
  const length = { least: 1, most: segments };
  return {
    name: "ld-dpo",
    batch: "pair",
    usesReference: true,
    segments,
    inputs: { winnerLength: length, loserLength: length },
    loss: ctx => ldDpoLoss(ctx, { beta, alpha }),
  };
}

/** The loss for any scale. */
export function ldDpoLoss(ctx: ObjectiveContext, { beta, alpha }: { beta: number; alpha: number }): ObjectiveResult {
  const { winner, loser } = pairOf(given(ctx, "ldDpo", "segments"));
  const [batch = 0, segments = 1] = winner.D.shape;
  const column = (name: string): Tensor => reshape(givenInput(ctx, "ldDpo", name), [batch, 1]);
  const [winnerLength, loserLength] = [column("winnerLength"), column("loserLength")];
  const index = constant([...Array(segments).keys()], [1, segments], "f64");
  const common = greater(minimum(winnerLength, loserLength), index); // 1: both pictures reach into the segment
  const counted = (length: Tensor): Tensor => add(scale(greater(length, index), alpha), scale(common, 1 - alpha));
  const logRatio = (D: Tensor, length: Tensor): Tensor => perRow(mul(scale(D, -beta / 2 / segments), counted(length)));
  const margin = sub(logRatio(winner.D, winnerLength), logRatio(loser.D, loserLength));
  return pairResult(ctx, softplus(neg(margin)), margin);
}
