/** Products with what surrounds them: the same values as the plain ops of their decompositions, without the maps in between. No model asks for one;
 *  fuse-epilogues.ts makes them where a backend has the kernel. */

import { defineOp } from "../op.js";
import { type DType, sameShape, type Tensor, type TensorType, typed } from "../tensor.js";
import { check, checkBesideVectors, checkFloats, checkShape, rows, show, wide, width } from "./check.js";
import { type ConvAttrs, conv2d, convFlops, convType } from "./conv.js";
import { add, cast, gelu, geluTanh, mean, quickGelu, silu, square, sub } from "./elementwise.js";
import { geglu } from "./gate.js";
import { linear } from "./matmul.js";
import { groupNorm, groupNormTypes } from "./norm.js";
import { sum } from "./reduce.js";
import { upsampleNearest } from "./resample.js";
import { concat, reshape } from "./shape.js";

const activations = { none: (x: Tensor) => x, silu, gelu, gelu_tanh: geluTanh, quick_gelu: quickGelu, geglu } as const;
export type Activation = keyof typeof activations;

/** x [..,K], weight [N,K], bias? [N], residual? [..,N] -> activation(x weight^T + bias) + residual; geglu: weight [2N,K], values first, then gates. */
export const linearFused = defineOp({
  name: "linear_fused",
  fused: true,
  infer({ activation }: { activation: Activation }, x: Tensor, weight: Tensor, bias?: Tensor, residual?: Tensor) {
    checkFloats("linear_fused", { x, weight, residual });
    checkBesideVectors("linear_fused", { x }, { bias });
    checkShape("linear_fused", "weight", weight, [null, width(x)]);
    if (bias) checkShape("linear_fused", "bias", bias, [weight.shape[0]!]);
    const channels = weight.shape[0]! / (activation === "geglu" ? 2 : 1);
    const y = typed(x.dtype, ...x.shape.slice(0, -1), channels);
    if (residual) checkShape("linear_fused", "residual", residual, y.shape);
    return [y];
  },
  decompose({ activation }, x, weight, bias, residual) {
    const y = activations[activation](linear(x, weight, bias));
    return [residual ? add(y, residual) : y];
  },
  flops: (_, x, weight) => 2 * rows(x) * weight.shape[0]! * width(weight),
});

/** What a fused convolution reads in place: two maps as one, joined along the channels, each pixel of it `upsample` times in both directions. */
export type Loading = { readonly upsample: number };

/** statistics: groups whose partial sums are wanted, or 0. */
export type ConvFusedAttrs = ConvAttrs & Loading & { readonly activation: Activation; readonly statistics: number };

/** Pixels of a sample over which one pair of partial statistics is taken. */
export const slab = 128;

/** x [B,H,W,I], x2? [B,H,W,I2], weight [O,kh,kw,I+I2], bias? [O], perSample? [B,1,1,O], residual? [B,H',W',O]
 *  -> activation(conv(what is loaded of x and x2) + bias + perSample) + residual [B,H',W',O];
 *  if statistics > 0 also partials [B, H'W' / 128, groups, 2]: mean, and sum of squared differences from it, of each group of channels over each slab. */
export const conv2dFused = defineOp({
  name: "conv2d_fused",
  fused: true,
  infer(attrs: ConvFusedAttrs, x: Tensor, x2: Tensor | undefined, weight: Tensor, bias?: Tensor, perSample?: Tensor, residual?: Tensor): readonly TensorType[] {
    const { activation, statistics } = attrs;
    checkFloats("conv2d_fused", { x, x2, perSample, residual });
    check("conv2d_fused", activation === "none" || activation === "silu", `expected activation none or silu, received ${activation}`);
    const y = convType("conv2d_fused", attrs, loadedType("conv2d_fused", attrs, x, x2), weight, bias);
    const [batch = 0, height = 0, columns = 0, channels = 0] = y.shape;
    if (perSample) checkShape("conv2d_fused", "perSample", perSample, [batch, 1, 1, channels]);
    if (residual) checkShape("conv2d_fused", "residual", residual, y.shape);
    if (statistics === 0) return [y];
    const fits = (height * columns) % slab === 0 && channels % statistics === 0;
    check("conv2d_fused", fits, `expected slabs of ${slab} pixels and ${statistics} groups to divide the result, received ${show(y)}`);
    return [y, typed(wide(y.dtype), batch, (height * columns) / slab, statistics, 2)];
  },
  decompose({ stride, padding, upsample, activation, statistics }, x, x2, weight, bias, perSample, residual) {
    let y = conv2d(loaded({ upsample }, x, x2), weight, bias, { stride, padding });
    if (perSample) y = add(y, perSample);
    y = activations[activation](y);
    if (residual) y = add(y, residual);
    return statistics === 0 ? [y] : [y, partialStatistics(y, statistics)];
  },
  flops(attrs, x, x2, weight) {
    return convFlops(convType("conv2d_fused", attrs, loadedType("conv2d_fused", attrs, x, x2), weight).shape, weight.shape);
  },
});

/** group_norm of the result of a convolution, whose statistics are merged from the partials that it left: x, gamma, beta, partials -> y, mean, rstd. */
export const groupNormFromPartials = defineOp({
  name: "group_norm_from_partials",
  fused: true,
  infer(attrs: { groups: number; eps: number; silu: boolean }, x: Tensor, gamma: Tensor, beta: Tensor, partials: Tensor) {
    checkShape("group_norm_from_partials", "partials", partials, [x.shape[0]!, null, attrs.groups, 2]);
    return groupNormTypes("group_norm_from_partials", attrs, x, gamma, beta);
  },
  decompose(attrs, x, gamma, beta) {
    const [y, mean, rstd] = groupNorm(x, gamma, beta, attrs).node.outputs;
    return [y!, mean!, rstd!];
  },
});

/** The map that a fused convolution loads, as a tensor. */
export function loaded({ upsample }: Loading, x: Tensor, x2: Tensor | undefined): Tensor {
  const joined = x2 ? concat([x, x2], 3) : x;
  return upsample === 1 ? joined : upsampleNearest(joined, { height: upsample * x.shape[1]!, width: upsample * x.shape[2]! });
}

export function loadedType(op: string, { upsample }: Loading, x: TensorType, x2: TensorType | undefined): TensorType {
  check(op, upsample === 1 || upsample === 2, `expected upsample 1 or 2, received ${upsample}`);
  const [batch = 0, height = 0, columns = 0, channels = 0] = x.shape;
  check(op, !x2 || sameShape(x2.shape.slice(0, 3), x.shape.slice(0, 3)), `expected maps of one size, received x ${show(x)} and x2 ${x2 ? show(x2) : ""}`);
  return typed(x.dtype, batch, upsample * height, upsample * columns, channels + (x2 ? width(x2) : 0));
}

function partialStatistics(y: Tensor, groups: number): Tensor {
  const [batch = 0, height = 0, columns = 0, channels = 0] = y.shape;
  const type: DType = wide(y.dtype);
  const slabs = (height * columns) / slab;
  const grouped = reshape(cast(y, type), [batch, slabs, slab, groups, channels / groups]);
  const centre = mean(grouped, [2, 4]); // [B, slabs, 1, groups, 1]
  const squares = sum(square(sub(grouped, centre)), [2, 4]);
  return reshape(concat([centre, squares], 4), [batch, slabs, groups, 2]);
}
