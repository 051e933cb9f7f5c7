/** Between pictures and the model's tensors: 8-bit RGB here, [B, 3, H, W] in [-1, 1] there. */

import type { Image } from "../../lib/data/image.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { side } from "./drawings.js";

const area = side * side;

/** Pictures to [B, 3, H, W], values in [-1, 1]. */
export function toTensor(images: readonly Image[]): HostTensor {
  const data = new Float32Array(images.length * 3 * area);
  for (const [i, image] of images.entries())
    for (let p = 0; p < area; p++) for (let c = 0; c < 3; c++) data[(i * 3 + c) * area + p] = image.data[p * 3 + c]! / 127.5 - 1;
  return hostTensor("f32", [images.length, 3, side, side], data);
}

/** [B, 3, H, W] to pictures, values beyond [-1, 1] cut off. */
export function toImages({ data, shape }: HostTensor): Image[] {
  const values = data as Float32Array;
  return Array.from({ length: shape[0]! }, (_, i) => {
    const pixels = new Uint8Array(3 * area);
    for (let p = 0; p < area; p++)
      for (let c = 0; c < 3; c++) pixels[p * 3 + c] = Math.round(Math.min(1, Math.max(0, values[(i * 3 + c) * area + p]! / 2 + 0.5)) * 255);
    return { width: side, height: side, channels: 3, data: pixels };
  });
}
