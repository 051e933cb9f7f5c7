/** Gradients of weights with what surrounds them: read from where a fused convolution reads, added where they are summed. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { check, checkFloats, checkShape, rows, show, wide, width } from "./check.js";
import { type ConvAttrs, conv2dDw, convFlops } from "./conv.js";
import { type Loading, loaded, loadedType } from "./fused.js";
import { linearDw } from "./matmul.js";
import { accumulate } from "./optimizer.js";

/** total [N,K] += dy^T x: total, dy [..,N], x [..,K] -> writes total. */
export const linearDwAccumulate = defineOp({
  name: "linear_dw_accumulate",
  fused: true,
  writes: [0],
  infer(_: Record<never, never>, total: Tensor, dy: Tensor, x: Tensor) {
    checkFloats("linear_dw_accumulate", { dy, x });
    checkTotal("linear_dw_accumulate", total, dy);
    checkShape("linear_dw_accumulate", "total", total, [width(dy), width(x)]);
    check("linear_dw_accumulate", rows(dy) === rows(x), `expected as many rows in both, received dy ${show(dy)} and x ${show(x)}`);
    return [total];
  },
  decompose: (_, total, dy, x) => [accumulate(total, linearDw(dy, x))],
  flops: (_, _total, dy, x) => 2 * rows(x) * width(dy) * width(x),
});

/** dy [B,H',W',O], x [B,H,W,I], x2? [B,H,W,I2] -> dweight [O, kernelHeight, kernelWidth, I + I2] of a convolution that loads x and x2 so. */
export const conv2dDwFused = defineOp({
  name: "conv2d_dw_fused",
  fused: true,
  infer({ kernelHeight, kernelWidth, ...attrs }: ConvAttrs & Loading & { kernelHeight: number; kernelWidth: number }, dy: Tensor, x: Tensor, x2?: Tensor) {
    checkFloats("conv2d_dw_fused", { dy, x, x2 });
    const { shape } = loadedType("conv2d_dw_fused", attrs, x, x2);
    check("conv2d_dw_fused", dy.shape[0] === shape[0], `expected one batch, received dy ${show(dy)} and x ${show(x)}`);
    return [typed(wide(dy.dtype), width(dy), kernelHeight, kernelWidth, shape[3]!)];
  },
  decompose: ({ upsample, ...attrs }, dy, x, x2) => [conv2dDw(attrs, dy, loaded({ upsample }, x, x2))],
  flops: (attrs, dy, x, x2) => convFlops(dy.shape, [width(dy), attrs.kernelHeight, attrs.kernelWidth, loadedType("conv2d_dw_fused", attrs, x, x2).shape[3]!]),
});

/** total [O,kh,kw,I+I2] += that: total, dy, x, x2? -> writes total. */
export const conv2dDwAccumulate = defineOp({
  name: "conv2d_dw_accumulate",
  fused: true,
  writes: [0],
  infer(attrs: ConvAttrs & Loading, total: Tensor, dy: Tensor, x: Tensor, x2?: Tensor) {
    checkFloats("conv2d_dw_accumulate", { dy, x, x2 });
    checkTotal("conv2d_dw_accumulate", total, dy);
    const { shape } = loadedType("conv2d_dw_accumulate", attrs, x, x2);
    checkShape("conv2d_dw_accumulate", "total", total, [width(dy), null, null, shape[3]!]);
    check("conv2d_dw_accumulate", dy.shape[0] === shape[0], `expected one batch, received dy ${show(dy)} and x ${show(x)}`);
    return [total];
  },
  decompose({ upsample, stride, padding }, total, dy, x, x2) {
    const [, kernelHeight = 0, kernelWidth = 0] = total.shape;
    return [accumulate(total, conv2dDw({ stride, padding, kernelHeight, kernelWidth }, dy, loaded({ upsample }, x, x2)))];
  },
  flops: (_, total, dy) => convFlops(dy.shape, total.shape),
});

function checkTotal(op: string, total: Tensor, dy: Tensor): void {
  check(op, total.dtype === wide(dy.dtype), `expected total in ${wide(dy.dtype)} for the sum of products of ${show(dy)}, received ${show(total)}`);
}
