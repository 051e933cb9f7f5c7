/** Convolution of channels-last maps. */

import { defineOp } from "../op.js";
import { type DType, numel, type Tensor, type TensorType, typed } from "../tensor.js";
import { check, checkBesideVectors, checkCount, checkFloats, checkShape, productType, show, wide, width } from "./check.js";
import { cast } from "./elementwise.js";
import { otherType, type ProductOptions } from "./matmul.js";
import { sumRows } from "./reduce.js";

/** padding: zeros at [top, bottom, left, right]; one number stands for all four. */
export type ConvOptions = { readonly stride?: number; readonly padding?: number | readonly number[] } & ProductOptions;
export type ConvAttrs = { readonly stride: number; readonly padding: readonly number[] };

/** x [B,H,W,I] with weight [O,kh,kw,I] (cross-correlation, as everywhere in the field) and bias [O] -> [B,H',W',O],
 *  H' = floor((H + top + bottom - kh) / stride) + 1. The bias may be f32 beside bf16. */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor, { stride = 1, padding = 0, dtype }: ConvOptions = {}): Tensor {
  const sides = typeof padding === "number" ? [padding, padding, padding, padding] : padding;
  return conv2dOp({ stride, padding: sides, ...otherType(x, dtype) }, x, weight, bias)[0];
}
const conv2dOp = defineOp({
  name: "conv2d",
  infer: (attrs: ConvAttrs & { dtype?: DType }, x: Tensor, weight: Tensor, bias?: Tensor) => [convType("conv2d", attrs, x, weight, bias)],
  batchwise: () => [0],
  vjp({ attrs: { stride, padding }, inputs: [x, weight, bias], grads: [cotangent] }) {
    const dy = cast(cotangent, x.dtype);
    return [
      conv2dDxOp({ stride, padding, height: x.shape[1]!, width: x.shape[2]! }, dy, weight)[0],
      conv2dDw({ stride, padding, kernelHeight: weight.shape[1]!, kernelWidth: weight.shape[2]! }, dy, x),
      bias ? sumRows(cotangent) : null,
    ];
  },
  flops: (attrs, x, weight) => convFlops(convShape(attrs.padding, attrs.stride, x, weight), weight.shape),
});

/** The result of a convolution, all operands checked. */
export function convType(
  op: string,
  { stride, padding, dtype }: ConvAttrs & { readonly dtype?: DType },
  x: TensorType,
  weight: TensorType,
  bias?: TensorType,
): TensorType {
  checkFloats(op, { x, weight });
  checkBesideVectors(op, { x }, { bias });
  checkShape(op, "x", x, [null, null, null, null]);
  checkShape(op, "weight", weight, [null, null, null, width(x)]);
  if (bias) checkShape(op, "bias", bias, [weight.shape[0]!]);
  checkCount(op, "stride", stride);
  const fits = padding.length === 4 && padding.every(n => Number.isInteger(n) && n >= 0);
  check(op, fits, `expected padding [top, bottom, left, right] of counts, received [${padding}]`);
  const shape = convShape(padding, stride, x, weight);
  check(
    op,
    shape.every(n => n >= 1),
    `kernel ${weight.shape[1]}x${weight.shape[2]} does not fit into ${show(x)} with padding [${padding}]`,
  );
  return typed(productType(op, x, dtype), ...shape);
}

function convShape([top = 0, bottom = 0, left = 0, right = 0]: readonly number[], stride: number, x: TensorType, weight: TensorType): number[] {
  const [batch = 0, height = 0, columns = 0] = x.shape;
  const [channels = 0, kh = 0, kw = 0] = weight.shape;
  return [batch, Math.floor((height + top + bottom - kh) / stride) + 1, Math.floor((columns + left + right - kw) / stride) + 1, channels];
}

/** dy [B,H',W',O], weight [O,kh,kw,I] -> dx [B, height, width, I]. */
const conv2dDxOp = defineOp({
  name: "conv2d_dx",
  infer({ height, width: columns }: ConvAttrs & { height: number; width: number }, dy: Tensor, weight: Tensor) {
    checkFloats("conv2d_dx", { dy, weight });
    checkShape("conv2d_dx", "weight", weight, [width(dy), null, null, null]);
    return [typed(dy.dtype, dy.shape[0]!, height, columns, width(weight))];
  },
  flops: (_, dy, weight) => convFlops(dy.shape, weight.shape),
});

/** dy [B,H',W',O], x [B,H,W,I] -> dweight [O, kernelHeight, kernelWidth, I], in f32 from bf16. */
export function conv2dDw(attrs: ConvAttrs & { kernelHeight: number; kernelWidth: number }, dy: Tensor, x: Tensor): Tensor {
  return conv2dDwOp(attrs, dy, x)[0];
}
const conv2dDwOp = defineOp({
  name: "conv2d_dw",
  infer({ kernelHeight, kernelWidth }: ConvAttrs & { kernelHeight: number; kernelWidth: number }, dy: Tensor, x: Tensor) {
    checkFloats("conv2d_dw", { dy, x });
    check("conv2d_dw", dy.shape[0] === x.shape[0], `expected one batch, received dy ${show(dy)} and x ${show(x)}`);
    return [typed(wide(dy.dtype), width(dy), kernelHeight, kernelWidth, width(x))];
  },
  flops: ({ kernelHeight, kernelWidth }, dy, x) => convFlops(dy.shape, [width(dy), kernelHeight, kernelWidth, width(x)]),
});

/** Two per multiply-add: each output element [B,H',W',O] sums kh * kw * I products. */
export function convFlops(output: readonly number[], weight: readonly number[]): number {
  return 2 * numel(output) * numel(weight.slice(1));
}
