/** Diffusion-KTO, Li et al. 2024, arXiv:2404.04465, eq. 8, as released (jacklishufan/diffusion-kto): pictures are liked or not, no pairs are needed. Each
 *  has noise and timestep of its own, g = -D, u = beta (g - z0), v = +-u by its label, and L = mean lambda (1 - h(v)). z0, the batch's mean of g, stands
 *  for the KL to the reference; no gradient flows through it. There is no 1/2 before beta. z0 follows the micro-batch: below about 8 pictures it is noise. */

import { ConfigError } from "../errors.js";
import { abs, add, affine, div, greater, maximum, mean, mul, neg, scale, select, shift, sigmoid, softplus, sub } from "../graph/ops/elementwise.js";
import { sum } from "../graph/ops/reduce.js";
import { stopGradient } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, checkRange, givenInput } from "./checks.js";
import { errorMetrics, meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult } from "./objective.js";

/** h of v = w u, given with w = +-1. */
export type KtoUtility = (v: Tensor, w: Tensor) => Tensor;
/** sigmoid(v): risk-averse in gains, risk-seeking in losses; the paper's choice. */
export const prospectUtility: KtoUtility = v => sigmoid(v);
/** ln sigmoid(v): concave everywhere. */
export const lossAverseUtility: KtoUtility = v => neg(softplus(neg(v)));
/** -w ln sigmoid(-u): risk_seeking_1 of the release. */
export const riskSeekingUtility: KtoUtility = (v, w) => mul(w, softplus(mul(w, v)));
/** -ln sigmoid(-v): convex everywhere; risk_seeking_3 of the release. Its loss is unbounded below. */
export const convexUtility: KtoUtility = v => softplus(v);

/** The estimate of z0 from g and labels in {0, 1}, f64 [1]. */
export type KtoOffset = (g: Tensor, desirable: Tensor) => Tensor;
/** max(0, mean g): a KL is not negative. */
export const meanOffset: KtoOffset = g => maximum(mean(g), 0);
/** Mean of the two classes' means, not clamped: for label ratios far from 1/2. An absent class counts 0: the release adds 1e-6 to a count in float32, which
 *  makes it 2^-20 here. */
export const balancedOffset: KtoOffset = (g, desirable) => {
  const within = (member: Tensor): Tensor => div(sum(mul(g, member)), shift(sum(member), 2 ** -20));
  return scale(add(within(desirable), within(affine(desirable, { scale: -1, shift: 1 }))), 0.5);
};

export interface KtoOptions {
  /** Inverse temperature in units of 1 / (mean squared error), >= 10 (default 5000, the paper's; the released launcher leaves the code's default of 1000). */
  readonly beta?: number;
  readonly utility?: KtoUtility;
  readonly offset?: KtoOffset;
  /** Weights of liked and disliked pictures (default 1 each). */
  readonly desirableWeight?: number;
  readonly undesirableWeight?: number;
}

/** Every batch brings its pictures as `winners` and `extras.desirable`, [B]: 1 for liked, 0 for not. */
export function kto(options: KtoOptions = {}): Objective {
  const { beta = 5000, utility = prospectUtility, offset = meanOffset, desirableWeight = 1, undesirableWeight = 1 } = options;
  checkErrorBeta("kto", beta, { usual: "1000 to 5000" });
  checkRange("kto", "desirableWeight", desirableWeight, { least: 0 });
  checkRange("kto", "undesirableWeight", undesirableWeight, { least: 0 });
  return {
    name: "kto",
    batch: "single",
    usesReference: true,
    inputs: { desirable: { least: 0, most: 1 } },
    loss: ctx => ktoLoss(ctx, { beta, utility, offset, desirableWeight, undesirableWeight }),
  };
}

/** The loss for any scale. Throws ConfigError for one picture: its offset would be its own reward. */
export function ktoLoss(ctx: ObjectiveContext, { beta, utility, offset, desirableWeight, undesirableWeight }: Required<KtoOptions>): ObjectiveResult {
  const desirable = givenInput(ctx, "kto", "desirable");
  const count = ctx.sums.D.shape[0]!;
  if (count < 2) throw new ConfigError("kto", "batchSize", "at least 2: the offset is a mean over the micro-batch", count);
  const g = neg(ctx.sums.D);
  const z0 = stopGradient(offset(g, desirable));
  const w = affine(desirable, { scale: 2, shift: -1 });
  const v = mul(w, scale(sub(g, z0), beta));
  const weight = affine(desirable, { scale: desirableWeight - undesirableWeight, shift: undesirableWeight });
  const losses = mul(weight, affine(utility(v, w), { scale: -1, shift: 1 }));
  return { loss: meanLoss(ctx, losses), metrics: { ...labelMetrics(v), kl: z0, ...errorMetrics(ctx.sums) } };
}

/** Ties count one half, as in margin-metrics.ts. */
function labelMetrics(v: Tensor): Record<string, Tensor> {
  const half = select(greater(abs(v), 0), 0, 0.5);
  return { implicitAccuracy: mean(add(greater(v, 0), half)), margin: mean(v), saturation: mean(greater(abs(v), 5)) };
}
