/** Pictures and masks as what autoencoder and sampler take: as diffusers' VaeImageProcessor prepares them, but that transparent parts are white. */

import { type Image, overWhite } from "../data/image.js";
import { vaeImages } from "../data/preprocess.js";
import { lanczos, resize } from "../data/resample.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";

/** A picture of any size, resized -> [1, 3, height, width] in [-1, 1]. */
export function pixelsOf(image: Image, height: number, width: number): HostTensor {
  return vaeImages(overWhite(image), { height, width });
}

/** Where a mask is white, at the size of the picture: 1 is painted anew, 0 is kept; half grey is white. [1, 1, height, width]. */
export function maskOf(mask: Image, height: number, width: number): HostTensor {
  const { data } = resize(grey(overWhite(mask)), width, height, lanczos);
  return hostTensor(
    "f32",
    [1, 1, height, width],
    Float32Array.from(data, v => (v / 255 >= 0.5 ? 1 : 0)),
  );
}

/** A mask at the size of the latents, each the pixel at its upper left. */
export function latentMask(mask: HostTensor, factor: number): HostTensor {
  const [, , height, width] = mask.shape as [number, number, number, number];
  const [h, w] = [height / factor, width / factor];
  const at = (i: number): number => Number(mask.data[Math.floor(i / w) * factor * width + (i % w) * factor]);
  return hostTensor(
    "f32",
    [1, 1, h, w],
    Float32Array.from({ length: h * w }, (_, i) => at(i)),
  );
}

/** A picture [1, 3, H, W] with grey where the mask is 1. */
export function masked(pixels: HostTensor, mask: HostTensor): HostTensor {
  const size = mask.data.length;
  return hostTensor(
    "f32",
    pixels.shape,
    (pixels.data as Float32Array).map((v, i) => (mask.data[i % size] === 1 ? 0 : v)),
  );
}

/** Luma of ITU-R 601-2, as PIL rounds it. */
function grey({ width, height, data }: Image): Image {
  const luma = (p: number): number => (data[3 * p]! * 19595 + data[3 * p + 1]! * 38470 + data[3 * p + 2]! * 7471 + 0x8000) >> 16;
  return { width, height, channels: 1, data: Uint8Array.from({ length: width * height }, (_, p) => luma(p)) };
}
