/** Pictures to a model's pixels one at a time: a large picture takes tens of milliseconds to resize, and between two of them the event loop is free. */

import type { Image } from "../data/image.js";
import { ShapeError } from "../errors.js";
import { convert, type HostTensor, hostTensor } from "../util/host-tensor.js";

/** [B, 3, S, S] f32 of what `preprocess` makes of each picture alone. Throws ShapeError where it gives another shape than [1, 3, S, S], and the signal's reason. */
export async function pixelsOf(images: readonly Image[], preprocess: (images: readonly Image[]) => HostTensor, signal?: AbortSignal): Promise<HostTensor> {
  let out = new Float32Array(0);
  let shape: readonly number[] = [];
  for (const [i, image] of images.entries()) {
    signal?.throwIfAborted();
    const one = convert(preprocess([image]), "f32");
    if (i === 0) {
      if (one.shape.length !== 4 || one.shape[0] !== 1) throw new ShapeError("preprocess", `expected [1, C, S, S] of one picture, received [${one.shape}]`);
      shape = one.shape;
      out = new Float32Array(images.length * one.data.length);
    } else if (one.shape.some((n, k) => n !== shape[k]))
      throw new ShapeError("preprocess", `expected [${shape}] as of the first picture, received [${one.shape}]`);
    out.set(one.data as Float32Array, i * one.data.length);
    await new Promise<void>(resolve => setImmediate(resolve));
  }
  return hostTensor("f32", [images.length, ...shape.slice(1)], out);
}
