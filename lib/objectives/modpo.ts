/** MODPO, Zhou et al. 2024, arXiv:2310.03708: preferences along one dimension, and frozen rewards along others as margins. With weights w_0 of what
 *  the pairs are labelled by and w_k of reward k, s = ((r_w - r_l) beta - sum_k w_k (R_k,w - R_k,l)) / w_0, L = mean softplus(-s): its optimum is that of
 *  the weighted sum of all rewards. One run per w traces the Pareto front. */

import { ConfigError } from "../errors.js";
import { mul, neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { constant } from "../graph/ops/leaf.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, givenInput } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface ModpoOptions {
  /** Weight of the dimension that the pairs are labelled by, > 0, then of each reward, >= 0; usually of sum 1. */
  readonly weights: readonly [number, ...number[]];
  /** As diffusionDpo's, >= 10 (default 2000): it sets what implicit reward is worth in units of the given ones. */
  readonly beta?: number;
}

/** Every batch brings `extras.margins`, [B, weights.length - 1]: reward of the winner minus that of the loser, one column per reward. */
export function modpo({ weights, beta = 2000 }: ModpoOptions): Objective {
  checkErrorBeta("modpo", beta);
  const [own, ...others] = weights;
  const fits = own > 0 && others.length > 0 && weights.every(w => Number.isFinite(w) && w >= 0);
  if (!fits) throw new ConfigError("modpo", "weights", "finite numbers: one above 0, then at least one that is not negative", weights);
  return {
    name: "modpo",
    batch: "pair",
    usesReference: true,
    inputs: { margins: { size: others.length } },
    loss: ctx => modpoLoss(ctx, { weights, beta }),
  };
}

/** The loss for any scale. */
export function modpoLoss(ctx: ObjectiveContext, { weights: [own, ...others], beta }: Required<ModpoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const margin = implicitMargin(winner, loser, beta);
  const given = weighted(givenInput(ctx, "modpo", "margins"), others);
  return pairResult(ctx, softplus(neg(scale(sub(margin, given), 1 / own))), margin);
}

/** sum_k w_k x_k of x [B, k] (or [B] of one), [B]. */
function weighted(x: Tensor, weights: readonly number[]): Tensor {
  const batch = x.shape[0]!;
  return reshape(sum(mul(reshape(x, [batch, weights.length]), constant(weights, [1, weights.length], "f64")), [1]), [batch]);
}
