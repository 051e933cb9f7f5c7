/** Effects on persistent buffers. Every number that changes from step to step is the name of a scalar slot. */

import { defineOp } from "../op.js";
import { currentGraph, sameShape, type Tensor } from "../tensor.js";
import { check, checkFloats, checkShape, isFloat, type NoAttrs, show } from "./check.js";

export type AdamwOptions = {
  /** Decay of the first and second moment, in [0, 1). */
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Decoupled: the weight shrinks by learningRate * weightDecay. */
  readonly weightDecay: number;
  /** Names of scalar slots; correction1 = 1 - beta1^t and correction2 = 1 - beta2^t at update t = 1, 2, ... */
  readonly learningRate?: string;
  readonly correction1?: string;
  readonly correction2?: string;
};

/** One AdamW update of param with its moments m and v, all of one shape, in place; the gradient is first multiplied by gradScale (f64 [1]).
 *  m += (1 - beta1) (g - m), v += (1 - beta2) (g^2 - v), param -= lr (weightDecay param + (m / correction1) / (sqrt(v / correction2) + eps)).
 *  Loshchilov & Hutter 2019, arXiv:1711.05101, in the order of operations of torch.optim.AdamW. */
export function adamw(
  { param, grad, m, v, gradScale }: { param: Tensor; grad: Tensor; m: Tensor; v: Tensor; gradScale?: Tensor },
  { beta1, beta2, eps, weightDecay, learningRate = "learningRate", correction1 = "correction1", correction2 = "correction2" }: AdamwOptions,
): { param: Tensor; m: Tensor; v: Tensor } {
  const slot = (name: string): number => currentGraph().scalarSlot(name);
  const slots = { lr: slot(learningRate), correction1: slot(correction1), correction2: slot(correction2) };
  const [paramAfter, mAfter, vAfter] = adamwOp({ beta1, beta2, eps, weightDecay, ...slots }, param, grad, m, v, gradScale);
  return { param: paramAfter, m: mAfter, v: vAfter };
}
type AdamwAttrs = { beta1: number; beta2: number; eps: number; weightDecay: number; lr: number; correction1: number; correction2: number };
const adamwOp = defineOp({
  name: "adamw",
  writes: [0, 2, 3],
  infer({ beta1, beta2, eps }: AdamwAttrs, param: Tensor, grad: Tensor, m: Tensor, v: Tensor, gradScale?: Tensor) {
    checkFloats("adamw", { param, grad, m, v });
    for (const [name, x] of Object.entries({ grad, m, v })) checkShape("adamw", name, x, param.shape);
    if (gradScale) check("adamw", gradScale.dtype === "f64" && sameShape(gradScale.shape, [1]), `expected gradScale f64 [1], received ${show(gradScale)}`);
    check("adamw", beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, `expected beta1 and beta2 in [0, 1), received ${beta1} and ${beta2}`);
    check("adamw", eps > 0, `expected eps > 0, received ${eps}`);
    return [param, m, v];
  },
});

/** shadow += (1 - decay) (param - shadow), in place; `decay` is the name of a scalar slot. */
export function ema(shadow: Tensor, param: Tensor, { decay = "emaDecay" }: { decay?: string } = {}): Tensor {
  return emaOp({ decay: currentGraph().scalarSlot(decay) }, shadow, param)[0];
}
const emaOp = defineOp({
  name: "ema",
  writes: [0],
  infer: (_: { decay: number }, shadow: Tensor, param: Tensor) => [likeTarget("ema", "param", shadow, param)],
});

/** total += x, in place; x may have another floating-point dtype. */
export function accumulate(total: Tensor, x: Tensor): Tensor {
  return accumulateOp({}, total, x)[0];
}
const accumulateOp = defineOp({
  name: "accumulate",
  writes: [0],
  infer: (_: NoAttrs, total: Tensor, x: Tensor) => [shapedLikeTarget("accumulate", total, x)],
});

/** target = x, in place; x may have another floating-point dtype and is then rounded. */
export function assign(target: Tensor, x: Tensor): Tensor {
  return assignOp({}, target, x)[0];
}
const assignOp = defineOp({
  name: "assign",
  writes: [0],
  infer: (_: NoAttrs, target: Tensor, x: Tensor) => [shapedLikeTarget("assign", target, x)],
});

/** target = value everywhere, in place: clears a buffer without a second one of its size. */
export function fill(target: Tensor, value: number): Tensor {
  return fillOp({ value }, target)[0];
}
const fillOp = defineOp({
  name: "fill",
  writes: [0],
  infer(_: { value: number }, target: Tensor) {
    checkFloats("fill", { target });
    return [target];
  },
});

function shapedLikeTarget(op: string, target: Tensor, x: Tensor): Tensor {
  return isFloat(x.dtype) && isFloat(target.dtype) && sameShape(x.shape, target.shape) ? target : likeTarget(op, "x", target, x);
}

function likeTarget(op: string, name: string, target: Tensor, x: Tensor): Tensor {
  check(op, x.dtype === target.dtype && sameShape(x.shape, target.shape), `expected ${name} like the buffer ${show(target)}, received ${show(x)}`);
  return target;
}
