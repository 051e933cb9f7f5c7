/** What a preference objective is: a scalar function of per-sample sums. Every method of this family has a gradient of one shape,
 *  (alpha d + gamma p) / (B N) with per-sample scalars, so one fused pass over memory serves them all (pair_sums) and a method is a page of arithmetic on
 *  [B] numbers. Objectives never see a model. */

import { mean, scale, sub } from "../graph/ops/elementwise.js";
import type { PairSums } from "../graph/ops/preference.js";
import { reshape, slice } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";

/** Per-sample means over C, H, W in f64, each [B]. With e the prediction, y the target, r the reference's prediction, d = e - y, p = e - r:
 *  E = mean d^2, D = E - mean (r - y)^2 (formed without cancellation), P = mean p^2, C = mean d p. Without a reference D = P = C = 0. */
export interface ErrorSums {
  readonly E: Tensor;
  readonly D: Tensor;
  readonly P: Tensor;
  readonly C: Tensor;
}

export interface ObjectiveContext {
  /** Sums of every sample of the micro-batch. Pair objectives: winners first, then their losers in the same order. */
  readonly sums: ErrorSums;
}

export interface ObjectiveResult {
  /** f64 [1], the mean over pairs (or samples) of the micro-batch. */
  readonly loss: Tensor;
  /** f64 [1] each, means over the micro-batch. */
  readonly metrics: Readonly<Record<string, Tensor>>;
}

export interface Objective {
  readonly name: string;
  /** "pair": winners and losers share timestep and noise. "single": winners alone. */
  readonly batch: "pair" | "single";
  /** Whether the frozen reference has to be run. */
  readonly usesReference: boolean;
  loss(ctx: ObjectiveContext): ObjectiveResult;
}

/** Sums of `pairSums` with one segment, as [B] vectors. */
export function perSample(sums: PairSums): ErrorSums {
  const flat = (t: Tensor): Tensor => reshape(t, [t.shape[0]!]);
  return { E: flat(sums.E), D: flat(sums.D), P: flat(sums.P), C: flat(sums.C) };
}

/** Splits a batch of 2B sums into winners and losers, [B] each. */
export function pairOf(sums: ErrorSums): { readonly winner: ErrorSums; readonly loser: ErrorSums } {
  const pairs = sums.E.shape[0]! / 2;
  const half = (start: number): ErrorSums => {
    const part = (t: Tensor): Tensor => slice(t, { axis: 0, start, length: pairs });
    return { E: part(sums.E), D: part(sums.D), P: part(sums.P), C: part(sums.C) };
  };
  return { winner: half(0), loser: half(pairs) };
}

/** Mean squared errors of policy and reference over the whole batch, the field's `model_mse` and `ref_mse`. */
export function errorMetrics({ E, D }: ErrorSums): Record<string, Tensor> {
  return { modelMse: mean(E), referenceMse: mean(sub(E, D)) };
}

/** The implicit reward margin s = -(beta / 2) (D_w - D_l), [B]; s > 0: the policy prefers the winner more than the reference does.
 *  Diffusion-DPO's released code; its paper writes beta T in place of beta / 2. */
export function implicitMargin(winner: ErrorSums, loser: ErrorSums, beta: number): Tensor {
  return scale(sub(winner.D, loser.D), -beta / 2);
}
