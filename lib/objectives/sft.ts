/** Supervised fine-tuning on the winners: the denoising mean squared error, with no reference and no loser. The baseline that every preference
 *  method has to beat; dspo with beta -> 0 is this. */

import { mean } from "../graph/ops/elementwise.js";
import type { Objective } from "./objective.js";

export function sft(): Objective {
  return {
    name: "sft",
    batch: "single",
    usesReference: false,
    loss: ({ sums }) => ({ loss: mean(sums.E), metrics: { modelMse: mean(sums.E) } }),
  };
}
