/** From what a VAE decodes to what a reward model sees, inside a graph: gradients of a reward go through it to the picture, and on to the latents. ReFL (arXiv:2304.05977)
 *  does the same with torchvision: to [0, 1], clamped, bicubic on the tensor, the centre square, standardised. */

import { resizeMatrix } from "../data/float-resample.js";
import { clipMean, clipStd } from "../data/preprocess.js";
import { ConfigError, ShapeError } from "../errors.js";
import { affine, clamp, mul, sub } from "../graph/ops/elementwise.js";
import { constant } from "../graph/ops/leaf.js";
import { linear } from "../graph/ops/matmul.js";
import { transpose } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import type { HostTensor } from "../util/host-tensor.js";

type Rgb = readonly [number, number, number];

/** Inputs of a graph that resizes height x width pictures to the centre square: fed with every run, since a program should not hold so many numbers. */
export function rewardResize(
  { height, width }: { readonly height: number; readonly width: number },
  { size = 224, antialias = true }: { readonly size?: number; readonly antialias?: boolean } = {},
): { readonly rows: HostTensor; readonly columns: HostTensor } {
  const short = Math.min(height, width);
  if (!(Number.isSafeInteger(short) && short >= 1)) throw new ConfigError("rewardResize", "height, width", "whole numbers >= 1", [height, width]);
  const along = (side: number): HostTensor => {
    const to = side === short ? size : Math.trunc((size * side) / short);
    const room = to - size;
    const half = room >> 1;
    return resizeMatrix(side, to, { antialias, start: room % 2 === 1 && half % 2 === 1 ? half + 1 : half, length: size }); // torchvision's centre
  };
  return { rows: along(height), columns: along(width) };
}

/** decoded [B, H, W, 3] with [-1, 1] as black to white -> standardised pixels [B, S, S, 3]; rows [S, H] and columns [S, W] of `rewardResize`, in its dtype. Throws ShapeError. */
export function rewardPixels(
  decoded: Tensor,
  { rows, columns }: { readonly rows: Tensor; readonly columns: Tensor },
  { mean = clipMean, std = clipStd }: { readonly mean?: Rgb; readonly std?: Rgb } = {},
): Tensor {
  const [, height, width, channels] = decoded.shape;
  if (
    decoded.shape.length !== 4 ||
    channels !== 3 ||
    rows.shape[1] !== height ||
    columns.shape[1] !== width ||
    rows.shape.length !== 2 ||
    columns.shape.length !== 2
  )
    throw new ShapeError("rewardPixels", `expected [B, H, W, 3], [S, H] and [S, W], received [${decoded.shape}], [${rows.shape}] and [${columns.shape}]`);
  const unit = clamp(affine(decoded, { scale: 0.5, shift: 0.5 }), { min: 0, max: 1 });
  const tall = linear(transpose(unit, [0, 2, 3, 1]), rows); //       [B, W, 3, S]
  const both = linear(transpose(tall, [0, 3, 2, 1]), columns); //    [B, S, 3, S]
  const perChannel = (values: readonly number[]): Tensor => constant(values, [1, 1, 1, 3], decoded.dtype);
  return mul(sub(transpose(both, [0, 1, 3, 2]), perChannel(mean)), perChannel(std.map(s => 1 / s)));
}
