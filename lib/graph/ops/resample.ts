/** Changing the size of channels-last maps. */

import { defineOp } from "../op.js";
import { type Tensor, typed } from "../tensor.js";
import { check, checkCount, checkFloats, checkShape, show } from "./check.js";

type Size = { height: number; width: number };

/** x [B,H,W,C] -> [B,height,width,C] by repetition: row i is row floor(i * H / height) of x. */
export function upsampleNearest(x: Tensor, { height, width }: Size): Tensor {
  return upsampleNearestOp({ height, width }, x)[0];
}
const upsampleNearestOp = defineOp({
  name: "upsample_nearest",
  infer({ height, width }: Size, x: Tensor) {
    checkFloats("upsample_nearest", { x });
    checkShape("upsample_nearest", "x", x, [null, null, null, null]);
    checkCount("upsample_nearest", "height", height);
    checkCount("upsample_nearest", "width", width);
    return [typed(x.dtype, x.shape[0]!, height, width, x.shape[3]!)];
  },
  batchwise: () => [0],
  vjp: ({ inputs: [x], grads: [dy] }) => [upsampleNearestVjpOp({ height: x.shape[1]!, width: x.shape[2]! }, dy)[0]],
});

const upsampleNearestVjpOp = defineOp({
  name: "upsample_nearest_vjp",
  infer: ({ height, width }: Size, dy: Tensor) => [typed(dy.dtype, dy.shape[0]!, height, width, dy.shape[3]!)],
});

type Pooling = { kernel: number; stride: number };

/** Means of kernel x kernel windows, `stride` apart, without padding: x [B,H,W,C] -> [B, floor((H - kernel) / stride) + 1, .., C]. */
export function avgPool2d(x: Tensor, { kernel, stride = kernel }: { kernel: number; stride?: number }): Tensor {
  return avgPool2dOp({ kernel, stride }, x)[0];
}
const avgPool2dOp = defineOp({
  name: "avg_pool2d",
  infer({ kernel, stride }: Pooling, x: Tensor) {
    checkFloats("avg_pool2d", { x });
    checkShape("avg_pool2d", "x", x, [null, null, null, null]);
    checkCount("avg_pool2d", "kernel", kernel);
    checkCount("avg_pool2d", "stride", stride);
    const [batch = 0, height = 0, width = 0, channels = 0] = x.shape;
    check("avg_pool2d", height >= kernel && width >= kernel, `a ${kernel}x${kernel} window does not fit into ${show(x)}`);
    return [typed(x.dtype, batch, Math.floor((height - kernel) / stride) + 1, Math.floor((width - kernel) / stride) + 1, channels)];
  },
  batchwise: () => [0],
  vjp: ({ attrs, inputs: [x], grads: [dy] }) => [avgPool2dVjpOp({ ...attrs, height: x.shape[1]!, width: x.shape[2]! }, dy)[0]],
});

const avgPool2dVjpOp = defineOp({
  name: "avg_pool2d_vjp",
  infer: ({ height, width }: Pooling & Size, dy: Tensor) => [typed(dy.dtype, dy.shape[0]!, height, width, dy.shape[3]!)],
});
