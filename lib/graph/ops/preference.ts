/** The per-sample sums that every preference objective is a function of. */

import { defineOp } from "../op.js";
import { numel, type Tensor, typed } from "../tensor.js";
import { check, checkCount, checkShape, show } from "./check.js";
import { add, cast, mean, mul, scale, square, sub } from "./elementwise.js";
import { reshape } from "./shape.js";

export type PairSums = { readonly E: Tensor; readonly D: Tensor; readonly P: Tensor; readonly C: Tensor };

/** With d = prediction - target, p = prediction - reference (maps [B,H,W,C]) and means over each sample, or each of `segments` equal runs of rows of it:
 *  E = mean d^2, D = E - mean (reference - target)^2 = mean p (2d - p), P = mean p^2, C = mean d p, each f64 [B,segments]. Without a reference
 *  D = P = C = 0. Maps are f64, or f32 and bf16 in any mixture. D is formed without the difference, which would cancel: beta 5000 makes 2500 e of an error e in it. */
export function pairSums({
  prediction,
  target,
  reference,
  segments = 1,
}: {
  prediction: Tensor;
  target: Tensor;
  reference?: Tensor;
  segments?: number;
}): PairSums {
  const [E, D, P, C] = pairSumsOp({ segments }, prediction, target, reference);
  return { E, D, P, C };
}
type Segments = { segments: number };
const pairSumsOp = defineOp({
  name: "pair_sums",
  infer({ segments }: Segments, prediction: Tensor, target: Tensor, reference?: Tensor) {
    for (const [name, x] of Object.entries({ prediction, target, reference })) if (x) checkMap(name, x, prediction);
    checkCount("pair_sums", "segments", segments);
    check("pair_sums", prediction.shape[1]! % segments === 0, `the rows of ${show(prediction)} do not split into ${segments} segments`);
    const perSample = typed("f64", prediction.shape[0]!, segments);
    return [perSample, perSample, perSample, perSample]; // E, D, P, C
  },
  batchwise: () => [0, 1, 2],
  vjp({ attrs, inputs: [prediction, target, reference], grads: [dE, dD, dP, dC] }) {
    const dprediction = pairSumsVjp(attrs, dE, dD, dP, dC, prediction, target, reference)[0];
    const minus = (x: Tensor): Tensor => sub(prediction, cast(x, prediction.dtype));
    const d = minus(target);
    const at = (grad: Tensor, x: Tensor, factor: number): Tensor => weighted(attrs, grad, x, factor);
    if (!reference) return [dprediction, cast(at(dE, d, -2), target.dtype), null];
    const p = minus(reference);
    const dtarget = add(at(dE, d, -2), add(at(dD, p, -2), at(dC, p, -1)));
    const dreference = add(at(dD, sub(p, d), 2), add(at(dP, p, -2), at(dC, d, -1)));
    return [dprediction, cast(dtarget, target.dtype), cast(dreference, reference.dtype)];
  },
  decompose({ segments }, prediction, target, reference) {
    const sums = (x: Tensor): Tensor => reshape(mean(reshape(x, [x.shape[0]!, segments, -1]), [2]), [x.shape[0]!, segments]);
    const [y, t] = [cast(prediction, "f64"), cast(target, "f64")];
    const d = sub(y, t);
    const p = reference ? sub(y, cast(reference, "f64")) : scale(d, 0);
    return [sums(square(d)), sums(mul(p, sub(scale(d, 2), p))), sums(square(p)), sums(mul(d, p))];
  },
});

/** dprediction = (2 dE d + 2 dD d + 2 dP p + dC (d + p)) / N: in dD the terms in p cancel. */
export const pairSumsVjp = defineOp({
  name: "pair_sums_vjp",
  infer: (_: Segments, _dE: Tensor, _dD: Tensor, _dP: Tensor, _dC: Tensor, prediction: Tensor, _target: Tensor, _reference?: Tensor) => [prediction],
});

/** A map [B,H,W,C] as the prediction is one; bf16 and f32 mix. */
function checkMap(name: string, x: Tensor, prediction: Tensor): void {
  checkShape("pair_sums", name, x, x === prediction ? [null, null, null, null] : prediction.shape);
  const [dtype, other] = [x.dtype, prediction.dtype];
  const fits = dtype === "f64" ? other === "f64" : (dtype === "f32" || dtype === "bf16") && other !== "f64";
  check("pair_sums", fits, `expected maps in f64, or in f32 and bf16, received prediction ${show(prediction)} and ${name} ${show(x)}`);
}

/** factor / N * grad [B,segments], spread over the segments of x [B,H,W,C], times x. */
function weighted({ segments }: Segments, grad: Tensor, x: Tensor, factor: number): Tensor {
  const [batch = 0, height = 0, width = 0, channels = 0] = x.shape;
  const perRow = reshape(cast(scale(grad, (factor * batch * segments) / numel(x.shape)), x.dtype), [batch, segments, 1]);
  return reshape(mul(perRow, reshape(x, [batch, segments, (height / segments) * width * channels])), x.shape);
}
