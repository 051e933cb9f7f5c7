/** TGDPO, Zhu et al. 2025, arXiv:2506.14574: a frozen guide (a model aligned before, for one by diffusionDpo) says how much each token may move.
 *  Here tokens are segments of the latent, runs of rows whose log-ratios add up to the sample's: s = sum_p (1 + alpha g_wp) x_wp - (1 - alpha g_lp) x_lp
 *  with x = -(beta / 2) D_p / segments the segment's share of the margin and g the guide's. alpha = 0 is Diffusion-DPO. The mapping to segments is ours;
 *  the arithmetic is that of the release. */

import { affine, mul, neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, checkRange, given } from "./checks.js";
import { type ErrorSums, implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface TgdpoOptions {
  /** Segments of a sample, a divisor of its height (default 8: stripes of eight rows of an SD 1.5 latent). */
  readonly segments?: number;
  /** As diffusionDpo's, >= 10 (default 2000). */
  readonly beta?: number;
  /** Weight of the guidance (default 0.5, the release's). */
  readonly alpha?: number;
}

/** Needs a trainer with a `guide`. */
export function tgdpo({ segments = 8, beta = 2000, alpha = 0.5 }: TgdpoOptions = {}): Objective {
  checkErrorBeta("tgdpo", beta);
  checkRange("tgdpo", "alpha", alpha, { least: 0 });
  checkRange("tgdpo", "segments", Number.isInteger(segments) ? segments : Number.NaN, { least: 1 });
  return { name: "tgdpo", batch: "pair", usesReference: true, segments, uses: ["guide"], loss: ctx => tgdpoLoss(ctx, { beta, alpha }) };
}

/** The loss for any scale. */
export function tgdpoLoss(ctx: ObjectiveContext, { beta, alpha }: { beta: number; alpha: number }): ObjectiveResult {
  const own = pairOf(given(ctx, "tgdpo", "segments"));
  const guide = pairOf(given(ctx, "tgdpo", "guide"));
  const share = ({ D }: ErrorSums): Tensor => scale(D, -beta / 2 / D.shape[1]!);
  const guided = (arm: "winner" | "loser", sign: number): Tensor => perRow(mul(affine(share(guide[arm]), { scale: sign * alpha, shift: 1 }), share(own[arm])));
  const { winner, loser } = pairOf(ctx.sums);
  const s = sub(guided("winner", 1), guided("loser", -1));
  return pairResult(ctx, softplus(neg(s)), implicitMargin(winner, loser, beta));
}

/** [B, segments] added up to [B]. */
export function perRow(x: Tensor): Tensor {
  return reshape(sum(x, [1]), [x.shape[0]!]);
}
