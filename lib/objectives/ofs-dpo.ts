/** OFS-DPO and COFS-DPO, after Qi et al. 2024, arXiv:2406.05534: two adapters on one frozen model chase each other through a stream of preferences. With
 *  m_F, m_S their margins against the reference and chase = softplus(-(m_F - m_S)), the other module detached: L_fast = softplus(-m_F) + alpha chase,
 *  L_slow = softplus(-m_S) - alpha chase. Where the two agree the chase still pulls by alpha / 2, when DPO's own gradient has vanished. Roles are exchanged
 *  every so many steps: whoever has the lower DPO loss is fast. The equations are those of a third party's code; the authors' was not seen. */

import { add, mul, neg, scale, softplus, sub } from "../graph/ops/elementwise.js";
import { stopGradient } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { checkErrorBeta, checkRange, given, givenInput } from "./checks.js";
import { implicitMargin, type Objective, type ObjectiveContext, type ObjectiveResult, pairOf, perSample } from "./objective.js";
import { pairResult } from "./pair-result.js";

export interface OfsDpoOptions {
  /** As diffusionDpo's, >= 10 (default 2000). */
  readonly beta?: number;
  /** Strength of the chase, in [0, 1) (default 0: on noisy labels a single adapter did better in a small experiment; 0.5 is a strong one). */
  readonly alpha?: number;
}

/** The fast module's objective; its trainer's `guide` is the slow adapter. */
export function ofsFast(options: OfsDpoOptions = {}): Objective {
  return chaser("ofsFast", "ofs-dpo-fast", options, 1);
}

/** The slow module's objective; its trainer's `guide` is the fast adapter. */
export function ofsSlow(options: OfsDpoOptions = {}): Objective {
  return chaser("ofsSlow", "ofs-dpo-slow", options, -1);
}

function chaser(subject: string, name: string, { beta = 2000, alpha = 0 }: OfsDpoOptions, role: 1 | -1): Objective {
  checkErrorBeta(subject, beta);
  checkRange(subject, "alpha", alpha, { least: 0, below: 1 });
  return { name, batch: "pair", usesReference: true, uses: ["guide"], loss: ctx => ofsDpoLoss(ctx, { beta, alpha, role }) };
}

/** role 1: fast; -1: slow. */
export function ofsDpoLoss(ctx: ObjectiveContext, { beta, alpha, role }: { beta: number; alpha: number; role: 1 | -1 }): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  const own = implicitMargin(winner, loser, beta);
  const guide = pairOf(perSample(given(ctx, "ofsDpo", "guide")));
  const other = stopGradient(implicitMargin(guide.winner, guide.loser, beta));
  const lead: Tensor = scale(sub(own, other), role); // m_F - m_S
  return pairResult(ctx, add(softplus(neg(own)), scale(softplus(neg(lead)), role * alpha)), own);
}

/** The objective of the mixture of fast adapters, theta = sum_i lambda_i theta_i: DPO on the current domain and on pairs remembered of earlier ones.
 *  memoryWeight: what a remembered pair counts (default 1). Every batch brings `extras.remembered`, [B]: 1 for a pair from memory, else 0. */
export function cofsDpo({ beta = 2000, memoryWeight = 1 }: { beta?: number; memoryWeight?: number } = {}): Objective {
  checkErrorBeta("cofsDpo", beta);
  checkRange("cofsDpo", "memoryWeight", memoryWeight, { least: 0 });
  return {
    name: "cofs-dpo",
    batch: "pair",
    usesReference: true,
    inputs: { remembered: { least: 0, most: 1 } },
    loss(ctx) {
      const { winner, loser } = pairOf(ctx.sums);
      const margin = implicitMargin(winner, loser, beta);
      const loss = softplus(neg(margin));
      const remembered = givenInput(ctx, "cofsDpo", "remembered");
      return pairResult(ctx, add(loss, scale(mul(loss, remembered), memoryWeight - 1)), margin);
    },
  };
}
