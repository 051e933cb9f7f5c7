/** The safeguard of Diffusion-SDPO, Fu et al. 2025, arXiv:2511.03317, as released (AIDC-AI/Diffusion-SDPO): the loser's gradient is scaled down by one
 *  number per micro-batch so that, to first order in the last layer's output, a step does not raise the winner's error: lambda = clamp((1 - mu) <d_w, d_w>
 *  / <d_w, d_l>, 0, 1), 1 where the two residuals point apart. Values are unchanged, and any pair objective can be worn over. The release adds 1e-9 to the
 *  denominator; only a positive one is divided by here. */

import { ConfigError } from "../errors.js";
import { add, clamp, div, greater, maximum, mul, scale, select, sub } from "../graph/ops/elementwise.js";
import { sum } from "../graph/ops/reduce.js";
import { concat, stopGradient } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkRange, given } from "./checks.js";
import { type ErrorSums, type Objective, type ObjectiveContext, pairOf } from "./objective.js";

/** mu in [0, 1): the larger, the more of the loser's gradient is held back (default 0.9, as released for Diffusion-DPO and DMPO on SD 1.5; 0.2 for DSPO, 0.6
 *  on SDXL). */
export function sdpo(objective: Objective, { mu = 0.9 }: { mu?: number } = {}): Objective {
  checkRange("sdpo", "mu", mu, { least: 0, below: 1 });
  if (objective.batch !== "pair" || objective.arms) throw new ConfigError("sdpo", "objective", "one on pairs of winner and loser", objective.name);
  return {
    ...objective,
    name: `sdpo-${objective.name}`,
    uses: [...(objective.uses ?? []), "cross"],
    loss(ctx) {
      const lambda = loserScale(ctx, mu);
      const { loss, metrics } = objective.loss({ ...ctx, sums: withLoserScaled(ctx.sums, lambda) });
      return { loss, metrics: { ...metrics, loserScale: lambda } };
    },
  };
}

/** lambda, f64 [1], without gradient. */
function loserScale(ctx: ObjectiveContext, mu: number): Tensor {
  const own = sum(stopGradient(pairOf(ctx.sums).winner.E));
  const cross = sum(given(ctx, "sdpo", "cross"));
  const ratio = div(scale(own, 1 - mu), maximum(cross, 1e-300));
  return select(greater(cross, 0), clamp(ratio, { min: 0, max: 1 }), 1);
}

/** Sums of the same values through which losers pass on `lambda` times their gradient. */
function withLoserScaled(sums: ErrorSums, lambda: Tensor): ErrorSums {
  const { winner, loser } = pairOf(sums);
  const joined = (name: keyof ErrorSums): Tensor => {
    const still = stopGradient(loser[name]);
    return concat([winner[name], add(still, mul(sub(loser[name], still), lambda))], 0);
  };
  return { E: joined("E"), D: joined("D"), P: joined("P"), C: joined("C") };
}
