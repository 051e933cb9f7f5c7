/** What a pairwise run reports besides its loss. The loss alone says little: a healthy Diffusion-DPO run often raises it. */

import { abs, greater, mean, scale, sub } from "../graph/ops/elementwise.js";
import { full } from "../graph/ops/leaf.js";
import type { Tensor } from "../graph/tensor.js";
import type { ErrorSums } from "./objective.js";

/** `implicitAccuracy` counts ties one half (the released DSPO and Diffusion-DPO code counts them 0); `saturation` is the share of |s| > 5;
 *  `winnerDrift`, `loserDrift` are error minus reference error: healthy training keeps the first <= 0. */
export function marginMetrics(margin: Tensor, winner: ErrorSums, loser: ErrorSums): Record<string, Tensor> {
  const zero = full(0, [1], "f64"),
    limit = full(5, [1], "f64");
  const positive = mean(greater(margin, zero)),
    negative = mean(greater(zero, margin));
  return {
    implicitAccuracy: scale(sub(positive, sub(negative, full(1, [1], "f64"))), 0.5),
    margin: mean(margin),
    saturation: mean(greater(abs(margin), limit)),
    winnerError: mean(winner.E),
    loserError: mean(loser.E),
    winnerDrift: mean(winner.D),
    loserDrift: mean(loser.D),
  };
}
