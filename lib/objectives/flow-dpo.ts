/** Flow-DPO, Liu et al. 2025 (VideoAlign), arXiv:2501.13918, as released (yifan123/flow_grpo): Diffusion-DPO on velocities, v = noise - x0 at x = (1
 *  - sigma) x0 + sigma noise, so that winner and loser share noise and sigma but not the target. No weight by sigma (the paper found a constant beta better
 *  than (1 - sigma)^2). The schedule (flowSchedule) makes the targets; this is the loss. */

import { checkErrorBeta } from "./checks.js";
import { diffusionDpoLoss } from "./diffusion-dpo.js";
import type { Objective } from "./objective.js";

/** beta: as diffusionDpo's, >= 10 (default 100 as for Stable Diffusion 3.5 medium; 500 to 2000 for FLUX). Errors of velocities are larger than those of
 *  noise by 1 / (1 - sigma)^2. */
export function flowDpo({ beta = 100 }: { beta?: number } = {}): Objective {
  checkErrorBeta("flowDpo", beta, { usual: "100 to 2000" });
  return { name: "flow-dpo", batch: "pair", usesReference: true, loss: ctx => diffusionDpoLoss(ctx, beta) };
}
