/** Divergences between policy and reference, as f-DPO needs them: f'(u) of the likelihood ratio u = e^r, up to a constant, as a function of the log-ratio r.
 *  Wang et al. 2023, arXiv:2309.16240. */

import { clamp, exp, neg, scale, softplus } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { checkRange } from "./checks.js";

export interface Divergence {
  readonly name: string;
  /** f'(e^r), increasing in r. */
  score(r: Tensor): Tensor;
}

/** KL(policy || reference): mode-seeking, what DPO has. */
export const reverseKl: Divergence = { name: "reverse-kl", score: r => r };

/** KL(reference || policy): mass-covering. A sample that the policy has all but lost weighs e^-r. */
export const forwardKl: Divergence = { name: "forward-kl", score: r => neg(power(neg(r))) };

/** Jensen-Shannon: log sigmoid(r); of the four the most peaked optimum. */
export const jensenShannon: Divergence = { name: "jensen-shannon", score: r => neg(softplus(neg(r))) };

/** Between the two: -e^(-alpha r) / alpha with alpha in (0, 1); alpha -> 0 is reverse KL, 1 forward KL. TRL's parameter is 1 - alpha. */
export function alphaDivergence(alpha: number): Divergence {
  checkRange("alphaDivergence", "alpha", alpha, { above: 0, below: 1, hint: "its ends are reverseKl and forwardKl" });
  return { name: `alpha-${alpha}`, score: r => scale(power(scale(r, -alpha)), -1 / alpha) };
}

/** e^x, held from x = 80 on, where its gradient is 0: TRL's limit, far from overflow even when squared. */
function power(x: Tensor): Tensor {
  return exp(clamp(x, { min: -700, max: 80 }));
}
