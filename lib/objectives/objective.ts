/** What a preference objective is: a scalar function of per-sample sums. Every method of this family has a gradient of one shape,
 *  (alpha d + gamma p) / (B N) with per-sample scalars, so one fused pass over memory serves them all (pair_sums) and a method is a page of arithmetic on
 *  [B] numbers. Objectives never see a model: what else they need (labels, rewards, a guide's sums) they declare, and the step hands it to them. */

import { mean, mul, scale, sub } from "../graph/ops/elementwise.js";
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

/** One of the samples that are noised alike and compared: which picture, under which condition. */
export interface Arm {
  /** "winners", "losers", or a name of the batch's `samples`. */
  readonly sample: string;
  /** A name of the batch's `conditions`; absent: the pair's own condition. */
  readonly condition?: string;
}

/** A number, or a few, that the data give for every pair. */
export interface PairInput {
  /** Numbers per pair (default 1). */
  readonly size?: number;
  /** Range of every number, ends included (default: any finite number). */
  readonly least?: number;
  readonly most?: number;
}

export interface ObjectiveContext {
  /** Sums of every sample of the micro-batch, arm by arm. Pair objectives: winners first, then their losers in the same order. */
  readonly sums: ErrorSums;
  /** What the objective declared in `inputs`: f64 [B], or [B, size]. */
  readonly inputs?: Readonly<Record<string, Tensor>>;
  /** Factor of every pair's loss, f64 [B]; absent: 1 (weighting.ts). */
  readonly weights?: Tensor;
  /** The sums of each of `segments` equal runs of rows, [arms * B, segments]: means over the segment, so that `sums` are their means. */
  readonly segments?: ErrorSums;
  /** A guide's sums against the same reference, [arms * B, segments]; no gradient flows. */
  readonly guide?: ErrorSums;
  /** Mean over C, H, W of d_w d_l, f64 [B]; no gradient flows. */
  readonly cross?: Tensor;
  /** Signal-to-noise ratio at the pair's timestep, f64 [B]. */
  readonly snr?: Tensor;
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
  /** Other arms than winners and, for pairs, losers; all share timestep and noise. */
  readonly arms?: readonly Arm[];
  /** Numbers that every batch must bring as `extras`, by name. */
  readonly inputs?: Readonly<Record<string, PairInput>>;
  /** Segments of each sample that sums are asked for (default 1); divides the height of the samples. */
  readonly segments?: number;
  /** Parts of the context that cost something and are made only where asked for. */
  readonly uses?: readonly ("guide" | "cross" | "snr")[];
  loss(ctx: ObjectiveContext): ObjectiveResult;
}

/** What is compared where an objective does not say. */
export function armsOf({ arms, batch }: Objective): readonly Arm[] {
  return arms ?? (batch === "pair" ? [{ sample: "winners" }, { sample: "losers" }] : [{ sample: "winners" }]);
}

/** Whether the sums of winners and losers are all that it is given. */
export function needsSumsAlone({ arms, inputs, segments, uses = [] }: Objective): boolean {
  return !arms && !inputs && !segments && uses.length === 0;
}

/** Sums of `pairSums` as [B] vectors: means over its segments. */
export function perSample(sums: PairSums): ErrorSums {
  const flat = (t: Tensor): Tensor => reshape(t.shape[1] === 1 ? t : mean(t, [1]), [t.shape[0]!]);
  return mapSums(sums, flat);
}

export function mapSums({ E, D, P, C }: ErrorSums, to: (t: Tensor) => Tensor): ErrorSums {
  return { E: to(E), D: to(D), P: to(P), C: to(C) };
}

/** Splits sums of `count` arms, [count * B] or [count * B, segments], into those of each. */
export function byArm(sums: ErrorSums, count: number): ErrorSums[] {
  const length = sums.E.shape[0]! / count;
  return Array.from({ length: count }, (_, arm) => mapSums(sums, t => slice(t, { axis: 0, start: arm * length, length })));
}

/** Splits a batch of 2B sums into winners and losers, [B] each. */
export function pairOf(sums: ErrorSums): { readonly winner: ErrorSums; readonly loser: ErrorSums } {
  const [winner, loser] = byArm(sums, 2);
  return { winner: winner!, loser: loser! };
}

/** Mean of the pairs' losses [B], each with its weight. */
export function meanLoss({ weights }: ObjectiveContext, losses: Tensor): Tensor {
  return mean(weights ? mul(losses, weights) : losses);
}

/** Mean squared errors of policy and reference over the whole batch, the field's `model_mse` and `ref_mse`. */
export function errorMetrics({ E, D }: Pick<ErrorSums, "E" | "D">): Record<string, Tensor> {
  return { modelMse: mean(E), referenceMse: mean(sub(E, D)) };
}

/** The implicit reward margin s = -(beta / 2) (D_w - D_l), [B]; s > 0: the policy prefers the winner more than the reference does.
 *  Diffusion-DPO's released code; its paper writes beta T in place of beta / 2. */
export function implicitMargin(winner: Pick<ErrorSums, "D">, loser: Pick<ErrorSums, "D">, beta: number): Tensor {
  return scale(sub(winner.D, loser.D), -beta / 2);
}
