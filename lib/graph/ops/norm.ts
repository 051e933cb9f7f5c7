/** Normalisations and softmax. Variances are two-pass: E[x^2] - mean^2 keeps no digits in f32 once |mean| / std nears 2^12. */

import { defineOp } from "../op.js";
import { type Tensor, type TensorType, typed } from "../tensor.js";
import { besideLastAxis, check, checkBesideVectors, checkCount, checkFloats, checkShape, type NoAttrs, show, wide, width } from "./check.js";
import { add, cast, div, exp, maximum, mean, mul, rsqrt, shift, silu as siluOf, sqrt, square, sub } from "./elementwise.js";
import { max, sum } from "./reduce.js";
import { reshape, stopGradient } from "./shape.js";

type GroupNormAttrs = { groups: number; eps: number; silu: boolean };

/** Group normalisation of x [B,H,W,C] or [B,N,C] over groups of C / groups channels, times gamma [C] plus beta [C], then SiLU if `silu`.
 *  Saves mean and rstd [B,groups]. gamma, beta and statistics are f32 beside bf16, as are their gradients. Wu & He 2018, arXiv:1803.08494. */
export function groupNorm(x: Tensor, gamma: Tensor, beta: Tensor, { groups, eps, silu = false }: { groups: number; eps: number; silu?: boolean }): Tensor {
  return groupNormOp({ groups, eps, silu }, x, gamma, beta)[0];
}
const groupNormOp = defineOp({
  name: "group_norm",
  inplace: 0, // statistics are complete before anything is written
  infer: (attrs: GroupNormAttrs, x: Tensor, gamma: Tensor, beta: Tensor) => groupNormTypes("group_norm", attrs, x, gamma, beta),
  batchwise: () => [0],
  vjp: ({ attrs, inputs: [x, gamma, beta], outputs: [, mu, rstd], grads: [dy] }) => groupNormVjpOp(attrs, dy, x, gamma, beta, mu, rstd),
  decompose({ groups, eps, silu }, x, gamma, beta) {
    const batch = x.shape[0]!;
    const grouped = reshape(cast(x, wide(x.dtype)), [batch, -1, groups, width(x) / groups]); // [B, P, groups, C / groups]
    const { centred, mu, rstd } = standardise(grouped, [1, 3], eps);
    const y = scaledAndShifted(reshape(mul(centred, rstd), x.shape), gamma, beta);
    return [cast(silu ? siluOf(y) : y, x.dtype), reshape(mu, [batch, groups]), reshape(rstd, [batch, groups])];
  },
});

/** y, mean, rstd; all operands checked. */
export function groupNormTypes(
  op: string,
  { groups, eps }: GroupNormAttrs,
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
): readonly [TensorType, TensorType, TensorType] {
  checkAffine(op, x, gamma, beta, eps);
  checkCount(op, "groups", groups);
  check(op, x.shape.length >= 3, `expected x [B,H,W,C] or [B,N,C], received ${show(x)}`);
  check(op, width(x) % groups === 0, `${width(x)} channels do not split into ${groups} groups`);
  const statistics = typed(wide(x.dtype), x.shape[0]!, groups);
  return [x, statistics, statistics];
}

const groupNormVjpOp = defineOp({
  name: "group_norm_vjp",
  inplace: 0,
  infer: (_: GroupNormAttrs, _dy: Tensor, x: Tensor, _gamma: Tensor, _beta: Tensor, _mean: Tensor, _rstd: Tensor) => withVectors(x), // dx, dgamma, dbeta
});

/** Layer normalisation of x [..,C] over its last axis, times gamma [C] plus beta [C]. Saves mean and rstd [..]. Ba et al. 2016, arXiv:1607.06450. */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, { eps }: { eps: number }): Tensor {
  return layerNormOp({ eps }, x, gamma, beta)[0];
}
const layerNormOp = defineOp({
  name: "layer_norm",
  inplace: 0,
  infer({ eps }: { eps: number }, x: Tensor, gamma: Tensor, beta: Tensor) {
    checkAffine("layer_norm", x, gamma, beta, eps);
    check("layer_norm", x.shape.length >= 2, `expected x [..,C], received ${show(x)}`);
    const statistics = typed(wide(x.dtype), ...x.shape.slice(0, -1));
    return [x, statistics, statistics]; // y, mean, rstd
  },
  batchwise: () => [0],
  vjp: ({ attrs, inputs: [x, gamma], outputs: [, mu, rstd], grads: [dy] }) => layerNormVjpOp(attrs, dy, x, gamma, mu, rstd),
  decompose({ eps }, x, gamma, beta) {
    const { centred, mu, rstd } = standardise(cast(x, wide(x.dtype)), [-1], eps);
    const saved = x.shape.slice(0, -1);
    return [cast(scaledAndShifted(mul(centred, rstd), gamma, beta), x.dtype), reshape(mu, saved), reshape(rstd, saved)];
  },
});

const layerNormVjpOp = defineOp({
  name: "layer_norm_vjp",
  inplace: 0,
  infer: (_: { eps: number }, _dy: Tensor, x: Tensor, _gamma: Tensor, _mean: Tensor, _rstd: Tensor) => withVectors(x), // dx, dgamma, dbeta
});

/** e^x / sum e^x over the last axis; the largest element is subtracted first. */
export function softmax(x: Tensor): Tensor {
  return softmaxOp({}, x)[0];
}
const softmaxOp = defineOp({
  name: "softmax",
  inplace: 0,
  infer(_: NoAttrs, x: Tensor) {
    checkFloats("softmax", { x });
    return [x];
  },
  batchwise: (_, x) => besideLastAxis(x),
  vjp: ({ outputs: [y], grads: [dy] }) => [softmaxVjpOp({}, dy, y)[0]],
  decompose(_, x) {
    const logits = cast(x, wide(x.dtype));
    const powers = exp(sub(logits, stopGradient(max(logits, [-1]))));
    return [cast(div(powers, sum(powers, [-1])), x.dtype)];
  },
});

const softmaxVjpOp = defineOp({
  name: "softmax_vjp",
  inplace: 0,
  infer: (_: NoAttrs, dy: Tensor, _y: Tensor) => [dy],
});

/** x over its Euclidean length along the last axis, which counts as at least `eps`. */
export function l2Normalize(x: Tensor, { eps = 1e-12 }: { eps?: number } = {}): Tensor {
  return div(x, sqrt(maximum(sum(square(x), [-1]), eps * eps)));
}

/** dx, and two sums over rows [C]. */
function withVectors(x: Tensor): readonly [TensorType, TensorType, TensorType] {
  const vector = typed(wide(x.dtype), width(x));
  return [x, vector, vector];
}

function scaledAndShifted(x: Tensor, gamma: Tensor, beta: Tensor): Tensor {
  return add(mul(x, cast(gamma, x.dtype)), cast(beta, x.dtype));
}

function checkAffine(op: string, x: Tensor, gamma: Tensor, beta: Tensor, eps: number): void {
  checkBesideVectors(op, { x }, { gamma, beta });
  checkShape(op, "gamma", gamma, [width(x)]);
  checkShape(op, "beta", beta, [width(x)]);
  check(op, eps > 0 && Number.isFinite(eps), `expected eps > 0, received ${eps}`);
}

function standardise(x: Tensor, axes: readonly number[], eps: number): { centred: Tensor; mu: Tensor; rstd: Tensor } {
  const mu = mean(x, axes);
  const centred = sub(x, mu);
  return { centred, mu, rstd: rsqrt(shift(mean(square(centred), axes), eps)) };
}
