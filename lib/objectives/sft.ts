/** Supervised fine-tuning on the winners: the denoising mean squared error, with no reference and no loser. The baseline that every preference
 *  method has to beat; dspo with beta -> 0 is this. */

import { mean } from "../graph/ops/elementwise.js";
import { meanLoss, type Objective } from "./objective.js";

export function sft(): Objective {
  return {
    name: "sft",
    batch: "single",
    usesReference: false,
    loss: ctx => ({ loss: meanLoss(ctx, ctx.sums.E), metrics: { modelMse: mean(ctx.sums.E) } }),
  };
}
