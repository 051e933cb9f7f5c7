/** Effects on persistent buffers. Every number that changes from step to step is the name of a scalar slot. */

import { defineOp } from "../op.js";
import { randomSlots } from "../scalars.js";
import { currentGraph, type DType, numel, sameShape, type Tensor } from "../tensor.js";
import { check, checkFloats, checkShape, type NoAttrs, show } from "./check.js";

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
export function adamw({ param, grad, m, v, gradScale }: AdamwTensors, options: AdamwOptions): { param: Tensor; m: Tensor; v: Tensor } {
  const [paramAfter, mAfter, vAfter] = adamwOp(adamwAttrs(options), param, grad, m, v, gradScale);
  return { param: paramAfter, m: mAfter, v: vAfter };
}
/** Parameters and moments are f32 or f64; the gradient is of the same dtype, or bf16. */
export type AdamwTensors = { param: Tensor; grad: Tensor; m: Tensor; v: Tensor; gradScale?: Tensor };
type AdamwAttrs = { beta1: number; beta2: number; eps: number; weightDecay: number; lr: number; correction1: number; correction2: number };
const adamwOp = defineOp({
  name: "adamw",
  writes: [0, 2, 3],
  infer(attrs: AdamwAttrs, param: Tensor, grad: Tensor, m: Tensor, v: Tensor, gradScale?: Tensor) {
    checkAdamw("adamw", attrs, { param, grad, m, v, ...(gradScale && { gradScale }) });
    return [param, m, v];
  },
});

/** The same update, which also writes the new parameters to `copy` (bf16, what the model computes with): they need no second pass over memory. */
export function adamwMixed(
  { param, grad, m, v, copy, gradScale }: AdamwTensors & { copy: Tensor },
  options: AdamwOptions,
): { param: Tensor; m: Tensor; v: Tensor; copy: Tensor } {
  const [paramAfter, mAfter, vAfter, copyAfter] = adamwMixedOp(adamwAttrs(options), param, grad, m, v, copy, gradScale);
  return { param: paramAfter, m: mAfter, v: vAfter, copy: copyAfter };
}
const adamwMixedOp = defineOp({
  name: "adamw_mixed",
  writes: [0, 2, 3, 4],
  infer(attrs: AdamwAttrs, param: Tensor, grad: Tensor, m: Tensor, v: Tensor, copy: Tensor, gradScale?: Tensor) {
    checkAdamw("adamw_mixed", attrs, { param, grad, m, v, ...(gradScale && { gradScale }) });
    const fits = copy.dtype === "bf16" && sameShape(copy.shape, param.shape);
    check("adamw_mixed", fits, `expected copy bf16 [${param.shape}], received ${show(copy)}`);
    return [param, m, v, copy];
  },
});

/** Elements that share one largest magnitude per moment. */
export const adamw8Block = 256;

export type Adamw8Tensors = {
  /** f32 or bf16. */
  param: Tensor;
  grad: Tensor;
  /** Codes, u8 like param, and the largest magnitude of each block of 256 elements, f32 [ceil(n / 256)]; zeros at the start. */
  m: Tensor;
  v: Tensor;
  mMax: Tensor;
  vMax: Tensor;
  gradScale?: Tensor;
};

/** The update of adamw with moments in 8 bits: Dettmers et al. 2022, arXiv:2110.02861, in the code books of bitsandbytes. A moment is stored as its block's largest
 *  magnitude times a code, off by at most 0.7 % (m) and 0.35 % (v) of that magnitude; a v that is not 0 is never stored as 0. Parameters in bf16 are rounded
 *  stochastically by the slots seed and step and `stream`: without a copy in f32, updates below half a bf16 step would be lost. Arithmetic is f32. */
export function adamw8(
  { param, grad, m, v, mMax, vMax, gradScale }: Adamw8Tensors,
  { stream, ...options }: AdamwOptions & { stream: number },
): { param: Tensor; m: Tensor; v: Tensor; mMax: Tensor; vMax: Tensor } {
  const slot = (name: string): number => currentGraph().scalarSlot(name);
  const draw = { seed: slot(randomSlots.seed), step: slot(randomSlots.step), stream };
  const attrs = { ...adamwAttrs(options), ...draw, stochastic: param.dtype === "bf16" };
  const after = adamw8Op(attrs, param, grad, m, v, mMax, vMax, gradScale);
  return { param: after[0], m: after[1], v: after[2], mMax: after[3], vMax: after[4] };
}
const adamw8Op = defineOp({
  name: "adamw8",
  writes: [0, 2, 3, 4, 5],
  infer(
    attrs: AdamwAttrs & { seed: number; step: number; stream: number; stochastic: boolean },
    param: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    mMax: Tensor,
    vMax: Tensor,
    gradScale?: Tensor,
  ) {
    const narrow = (x: Tensor): boolean => x.dtype === "f32" || x.dtype === "bf16";
    check("adamw8", narrow(param) && narrow(grad), `expected param and grad in f32 or bf16, received ${show(param)} and ${show(grad)}`);
    for (const [name, x] of Object.entries({ m, v })) check("adamw8", x.dtype === "u8", `expected ${name} in u8, received ${show(x)}`);
    for (const [name, x] of Object.entries({ grad, m, v })) checkShape("adamw8", name, x, param.shape);
    const blocks = [Math.ceil(numel(param.shape) / adamw8Block)];
    for (const [name, x] of Object.entries({ mMax, vMax }))
      check("adamw8", x.dtype === "f32" && sameShape(x.shape, blocks), `expected ${name} f32 [${blocks}], received ${show(x)}`);
    checkOptions("adamw8", attrs, gradScale);
    return [param, m, v, mMax, vMax];
  },
});

function adamwAttrs({
  beta1,
  beta2,
  eps,
  weightDecay,
  learningRate = "learningRate",
  correction1 = "correction1",
  correction2 = "correction2",
}: AdamwOptions): AdamwAttrs {
  const slot = (name: string): number => currentGraph().scalarSlot(name);
  return { beta1, beta2, eps, weightDecay, lr: slot(learningRate), correction1: slot(correction1), correction2: slot(correction2) };
}

function checkAdamw(op: string, attrs: AdamwAttrs, { param, grad, m, v, gradScale }: AdamwTensors): void {
  checkFloats(op, { param, m, v });
  check(op, param.dtype === "f32" || param.dtype === "f64", `expected param in f32 or f64, received ${show(param)}`);
  check(op, grad.dtype === param.dtype || grad.dtype === "bf16", `expected grad in ${param.dtype} or bf16, received ${show(grad)}`);
  for (const [name, x] of Object.entries({ grad, m, v })) checkShape(op, name, x, param.shape);
  checkOptions(op, attrs, gradScale);
}

function checkOptions(op: string, { beta1, beta2, eps }: AdamwAttrs, gradScale: Tensor | undefined): void {
  if (gradScale) check(op, gradScale.dtype === "f64" && sameShape(gradScale.shape, [1]), `expected gradScale f64 [1], received ${show(gradScale)}`);
  check(op, beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, `expected beta1 and beta2 in [0, 1), received ${beta1} and ${beta2}`);
  check(op, eps > 0, `expected eps > 0, received ${eps}`);
}

/** shadow += (1 - decay) (param - shadow), in place; `decay` is the name of a scalar slot. Either may be bf16 beside the other, as in the two below. */
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
  infer: (_: NoAttrs, total: Tensor, x: Tensor) => [likeTarget("accumulate", "x", total, x)],
});

/** target = x, in place, rounded to the dtype of the target. */
export function assign(target: Tensor, x: Tensor): Tensor {
  return assignOp({}, target, x)[0];
}
const assignOp = defineOp({
  name: "assign",
  writes: [0],
  infer: (_: NoAttrs, target: Tensor, x: Tensor) => [likeTarget("assign", "x", target, x)],
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

function likeTarget(op: string, name: string, target: Tensor, x: Tensor): Tensor {
  const fits = (x.dtype === target.dtype || mixes(x.dtype, target.dtype)) && sameShape(x.shape, target.shape);
  check(op, fits, `expected ${name} like the buffer ${show(target)}, received ${show(x)}`);
  return target;
}

/** bf16 beside f32 or f64: gradients and compute copies of masters. */
function mixes(a: DType, b: DType): boolean {
  const masters = [a, b].filter(dtype => dtype === "f32" || dtype === "f64");
  return masters.length === 1 && (a === "bf16" || b === "bf16");
}
