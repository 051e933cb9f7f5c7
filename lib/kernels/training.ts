/** The preference loss with its gradient, and the optimizer's update, as kernels. */

import { ConfigError } from "../errors.js";
import { grad } from "../graph/grad.js";
import { adamw as adamwOp, ema as emaOp } from "../graph/ops/optimizer.js";
import { pairSums } from "../graph/ops/preference.js";
import { needsSumsAlone, type Objective, perSample } from "../objectives/objective.js";
import type { Kernel } from "./kernel.js";

const maps = { layout: "bchw" } as const;

/** A preference objective and its gradient in two passes over memory. prediction, target, reference? [2B, C, H, W] (winners, then their losers; [B, ..] for
 *  an objective on single samples) -> loss f64 [1], the mean over pairs, and gradient = d loss / d prediction. Objectives that ask for more than sums
 *  (labels, other arms, segments, a guide) are a trainer's business. */
export const preferenceLoss: Kernel<"prediction" | "target" | "reference", "loss" | "gradient", { readonly objective: Objective }> = {
  name: "preferenceLoss",
  inputs: { prediction: maps, target: { ...maps, frozen: true }, reference: { ...maps, optional: true, frozen: true } },
  outputs: { loss: "plain", gradient: "bchw" },
  shapeOf: ({ objective }) => objective.loss,
  build({ prediction, target, reference }, { objective }) {
    if (!needsSumsAlone(objective)) throw new ConfigError("preferenceLoss", "objective", "one of the sums of pairs or single samples alone", objective.name);
    const sums = perSample(pairSums({ prediction, target, ...(reference && { reference }) }));
    const { loss } = objective.loss({ sums });
    return { loss, gradient: grad(loss, [prediction])[0]! };
  },
};

export interface AdamWStep {
  readonly learningRate: number;
  /** Number of this update, from 1. */
  readonly step: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
}

/** One AdamW update in place (Loshchilov & Hutter 2019, arXiv:1711.05101): param, m, v are tensors on the device, grad of the same shape. */
export const adamW: Kernel<"param" | "grad" | "m" | "v", "param", AdamWStep> = {
  name: "adamW",
  inputs: { param: {}, grad: {}, m: {}, v: {} },
  outputs: { param: "plain" },
  writes: ["param", "m", "v"],
  scalars: ({ learningRate, step, beta1 = 0.9, beta2 = 0.999 }) => ({ learningRate, correction1: 1 - beta1 ** step, correction2: 1 - beta2 ** step }),
  shapeOf: ({ beta1, beta2, eps, weightDecay }) => [beta1, beta2, eps, weightDecay],
  build: ({ param, grad: gradient, m, v }, { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0.01 }) => ({
    param: adamwOp({ param, grad: gradient, m, v }, { beta1, beta2, eps, weightDecay }).param,
  }),
};

/** shadow += (1 - decay) (param - shadow), in place on the device. */
export const ema: Kernel<"shadow" | "param", "shadow", { readonly decay: number }> = {
  name: "ema",
  inputs: { shadow: {}, param: {} },
  outputs: { shadow: "plain" },
  writes: ["shadow"],
  scalars: ({ decay }) => ({ emaDecay: decay }),
  shapeOf: () => null,
  build: ({ shadow, param }) => ({ shadow: emaOp(shadow, param) }),
};
