/** MaPO, Hong et al. 2024, arXiv:2406.06424, as released (mapo-t2i/mapo train.py): no reference. The likelihood of a sample is stood for by phi(x) = x /
 *  (e^x - 1) of its error x = snr E, and the winner's is pulled above the loser's while its error is denoised: L = mean E_w + beta mean softplus(-T (phi_w
 *  - phi_l)), T = 1000. The paper's second version has phi^beta and no T; the release is followed. Its exp(x) - 1 in f32 loses what small errors have; here
 *  phi is a series there. */

import { add, div, greater, maximum, mean, neg, scale, select, shift, softplus, square, sub, tanh } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { checkRange } from "./checks.js";
import { meanLoss, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";

export interface MapoOptions {
  /** Weight of the margin term in units of the denoising loss, in (0, 10) (default 0.1). */
  readonly beta?: number;
  /** Factor of the error before phi (default 0.5, the release's snr_value). */
  readonly snr?: number;
  /** Factor of the margin (default 1000, the number of timesteps). */
  readonly steps?: number;
}

export function mapo({ beta = 0.1, snr = 0.5, steps = 1000 }: MapoOptions = {}): Objective {
  checkRange("mapo", "beta", beta, {
    above: 0,
    below: 10,
    hint: "it weighs the margin term against the denoising loss; 500 to 5000 is the scale of diffusionDpo",
  });
  checkRange("mapo", "snr", snr, { above: 0 });
  checkRange("mapo", "steps", steps, { above: 0 });
  return { name: "mapo", batch: "pair", usesReference: false, loss: ctx => mapoLoss(ctx, { beta, snr, steps }) };
}

/** The loss for any scale. */
export function mapoLoss(ctx: ObjectiveContext, { beta, snr, steps }: Required<MapoOptions>): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const likelihood = (E: Tensor): Tensor => decay(scale(E, snr));
  const margin = scale(sub(likelihood(winner.E), likelihood(loser.E)), steps);
  const losses = add(winner.E, scale(softplus(neg(margin)), beta));
  return { loss: meanLoss(ctx, losses), metrics: referenceFreeMetrics(margin, winner.E, loser.E) };
}

/** What can be said without a reference. */
export function referenceFreeMetrics(margin: Tensor, winnerError: Tensor, loserError: Tensor): Record<string, Tensor> {
  return { margin: mean(margin), marginAccuracy: mean(greater(margin, 0)), winnerError: mean(winnerError), loserError: mean(loserError) };
}

/** x / (e^x - 1) for x >= 0, and its gradient, to the rounding of 1 and of x: (x / 2) / tanh(x / 2) - x / 2, and a series below 0.01. */
export function decay(x: Tensor): Tensor {
  const small = add(shift(scale(x, -0.5), 1), sub(scale(square(x), 1 / 12), scale(square(square(x)), 1 / 720)));
  const half = scale(maximum(x, 0.01), 0.5);
  return select(greater(x, 0.01), sub(div(half, tanh(half)), half), small);
}
