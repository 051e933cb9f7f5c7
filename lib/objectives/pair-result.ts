/** The result of an objective whose loss is a function of each pair, with the metrics that all of them report. */

import type { Tensor } from "../graph/tensor.js";
import { marginMetrics } from "./margin-metrics.js";
import { errorMetrics, meanLoss, type ObjectiveContext, type ObjectiveResult, pairOf } from "./objective.js";

/** `losses` and `margin` [B]. */
export function pairResult(ctx: ObjectiveContext, losses: Tensor, margin: Tensor, metrics: Readonly<Record<string, Tensor>> = {}): ObjectiveResult {
  const { winner, loser } = pairOf(ctx.sums);
  return { loss: meanLoss(ctx, losses), metrics: { ...marginMetrics(margin, winner, loser), ...errorMetrics(ctx.sums), ...metrics } };
}
