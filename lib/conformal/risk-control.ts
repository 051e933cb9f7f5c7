/** Conformal risk control (Angelopoulos et al. 2022, arXiv:2208.02814): a threshold that bounds the expected loss of selecting one new unit,
 *  E[loss 1{s >= T}] <= alpha. A different promise from FDR: with loss 1 for units that are not aligned it is P(selected and not aligned) <= alpha over all units. */

import { ConfigError } from "../errors.js";
import { checkLength, checkLevel, checkRange, checkScores } from "./check.js";

export interface RiskControlInput {
  readonly scores: ArrayLike<number>;
  /** Loss of each calibration unit if it were selected, in [0, bound]. */
  readonly losses: ArrayLike<number>;
  readonly alpha: number;
  /** Largest loss of any unit. Default 1. */
  readonly bound?: number;
}

/** The smallest calibration score T with (sum of losses of units at or above T + bound) / (n + 1) <= alpha; Infinity where there is none. Select s >= T. */
export function riskThreshold({ scores, losses, alpha, bound = 1 }: RiskControlInput): number {
  const subject = "riskThreshold";
  if (!(bound > 0 && bound < Infinity)) throw new ConfigError(subject, "bound", "a positive number", bound);
  if (!(alpha > 0 && alpha < bound)) checkLevel(subject, "alpha / bound", alpha / bound);
  const s = checkScores(subject, "scores", scores);
  checkLength(subject, "losses", losses, s.length);
  const loss = checkRange(subject, "losses", losses, 0, bound);
  const order = Uint32Array.from(s.keys()).sort((a, b) => s[b]! - s[a]! || 0);
  let threshold = Infinity,
    sum = 0;
  for (let at = 0; at < order.length; ) {
    const score = s[order[at]!]!;
    for (; at < order.length && s[order[at]!] === score; at++) sum += loss[order[at]!]!;
    if (sum + bound > alpha * (order.length + 1) * (1 + 1e-12)) break;
    threshold = score;
  }
  return threshold;
}
