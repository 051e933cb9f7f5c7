/** Pictures to the tensors that models read, as the Python libraries do it on Pillow pictures: CLIP's image processor (transformers), the training transform
 *  of Diffusion-DPO and DSPO (torchvision), and diffusers' VaeImageProcessor. Pictures are brought to RGB first, alpha dropped. */

import { ConfigError, ShapeError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { type Image, toRgb } from "./image.js";
import { bicubic, bilinear, lanczos, type ResampleFilter, resize } from "./resample.js";

type Rgb = readonly [number, number, number];

export interface ClipImageOptions {
  /** Side of the square that the model sees, in pixels. */
  readonly size?: number;
  /** Per channel, of values in [0, 1]. */
  readonly mean?: Rgb;
  readonly std?: Rgb;
  /** Where an odd margin is split: the lesser half first, as transformers does (the default), or rounded to even, as torchvision and so OpenAI's and ImageReward's code do. */
  readonly centre?: "transformers" | "torchvision";
}

/** OpenAI's statistics, which every CLIP of the field uses. */
export const clipMean: Rgb = [0.48145466, 0.4578275, 0.40821073];
export const clipStd: Rgb = [0.26862954, 0.26130258, 0.27577711];

/** f32 [B, 3, size, size]: shortest side to `size` (bicubic), the centre square, (x / 255 - mean) / std. Throws ConfigError for an option out of range. */
export function clipImages(
  images: Image | readonly Image[],
  { size = 224, mean = clipMean, std = clipStd, centre = "transformers" }: ClipImageOptions = {},
): HostTensor {
  const { fround } = Math;
  const [m, s] = [mean.map(fround), std.map(fround)];
  if (!s.every(x => x > 0)) throw new ConfigError("clipImages", "std", "three numbers > 0", std);
  const scale = (value: number, c: number): number => fround(fround(fround(value * (1 / 255)) - m[c]!) / s[c]!);
  return batch(
    listOf(images).map(image => clipSquare(image, size, centre)),
    scale,
  );
}

/** The 8-bit picture that clipImages normalizes. */
export function clipSquare(image: Image, size: number, centre: ClipImageOptions["centre"] = "transformers"): Image {
  if (centre !== "transformers" && centre !== "torchvision") throw new ConfigError("clipImages", "centre", '"transformers" or "torchvision"', centre);
  const scaled = resizeShortest(toRgb(image), size, bicubic);
  const offset = (room: number): number => (centre === "transformers" ? room >> 1 : halfEven(room));
  return crop(scaled, offset(scaled.width - size), offset(scaled.height - size), size, size);
}

export interface TrainingOptions {
  /** Side of the square that the model is trained on, in pixels. */
  readonly resolution: number;
  /** Where the square lies: in the centre, or at these fractions (across, down) in [0, 1) of the places it can have. */
  readonly crop?: "center" | readonly [number, number];
  /** Mirrored left to right, after the crop. */
  readonly flip?: boolean;
}

export interface TrainingImage {
  /** f32 [3, resolution, resolution] in [-1, 1]. */
  readonly pixels: HostTensor;
  /** [height, width] in pixels before anything was done: what SDXL is told. */
  readonly originalSize: readonly [number, number];
  /** [top, left] of the square in the resized picture: what SDXL is told. */
  readonly cropTopLeft: readonly [number, number];
}

/** One picture for training: shortest side to `resolution` (bilinear), a square, to [-1, 1]. Nothing is drawn here: the caller says crop and flip.
 *  Throws ConfigError for an option out of range. */
export function trainingImage(image: Image, { resolution, crop: place = "center", flip = false }: TrainingOptions): TrainingImage {
  const square = trainingSquare(image, { resolution, crop: place, flip });
  const { fround } = Math;
  const scale = (value: number): number => fround(fround(fround(value / 255) - 0.5) / 0.5);
  const pixels = batch([square.image], scale);
  return {
    pixels: hostTensor("f32", pixels.shape.slice(1), pixels.data),
    originalSize: [image.height, image.width],
    cropTopLeft: [square.top, square.left],
  };
}

/** The 8-bit picture that trainingImage scales, and where it was. */
export function trainingSquare(image: Image, { resolution, crop: place = "center", flip = false }: TrainingOptions) {
  const scaled = resizeShortest(toRgb(image), resolution, bilinear);
  const room = [scaled.width - resolution, scaled.height - resolution] as const;
  if (place !== "center" && !(place.length === 2 && place.every(u => u >= 0 && u < 1)))
    throw new ConfigError("trainingImage", "crop", '"center" or two numbers in [0, 1)', place);
  const offset = (axis: 0 | 1): number => (place === "center" ? halfEven(room[axis]) : Math.floor(place[axis] * (room[axis] + 1)));
  const [left, top] = [offset(0), offset(1)];
  const square = crop(scaled, left, top, resolution, resolution);
  return { image: flip ? mirrored(square) : square, left, top };
}

/** n / 2, a half to the even side: Python's round, by which torchvision centres. */
function halfEven(n: number): number {
  const half = n >> 1;
  return n % 2 === 1 && half % 2 === 1 ? half + 1 : half;
}

/** f32 [B, 3, height, width] in [-1, 1]: what a VAE encodes. Pictures are resized to these sizes (Lanczos), aspect not kept; without sizes they must be
 *  alike and stay as they are. Throws ShapeError if they are not, ConfigError for a size out of range. */
export function vaeImages(images: Image | readonly Image[], size?: { readonly width: number; readonly height: number }): HostTensor {
  const { fround } = Math;
  const scale = (value: number): number => fround(fround(2 * fround(value / 255)) - 1);
  const rgb = listOf(images).map(toRgb);
  return batch(size ? rgb.map(image => resize(image, size.width, size.height, lanczos)) : rgb, scale);
}

/** Pictures of a VAE's output, f32 or f64 [B, 3, H, W] with [-1, 1] as black to white: clamped, rounded to nearest, ties to even. Throws ShapeError for other
 *  shapes, ConfigError for a value that is not a number. */
export function imagesOf(pixels: HostTensor): Image[] {
  const [count = 0, channels = 0, height = 0, width = 0] = pixels.shape;
  if (pixels.shape.length !== 4 || channels !== 3) throw new ShapeError("imagesOf", `expected [B, 3, H, W], received [${pixels.shape}]`);
  if (pixels.dtype !== "f32" && pixels.dtype !== "f64") throw new ConfigError("imagesOf", "dtype", "f32 or f64", pixels.dtype);
  const data = pixels.data as Float32Array;
  const { fround } = Math;
  const plane = height * width;
  return Array.from({ length: count }, (_, b) => {
    const out = new Uint8ClampedArray(3 * plane); // rounds ties to even
    for (let c = 0; c < 3; c++)
      for (let p = 0; p < plane; p++) {
        const value = data[(b * 3 + c) * plane + p]!;
        if (Number.isNaN(value)) throw new ConfigError("imagesOf", `picture ${b}`, "numbers", value);
        out[p * 3 + c] = fround(Math.min(1, Math.max(0, fround(value / 2 + 0.5))) * 255);
      }
    return { width, height, channels: 3, data: new Uint8Array(out.buffer) };
  });
}

/** Shortest side to `size`, the other in proportion, rounded down: the rule of transformers and torchvision. */
function resizeShortest(image: Image, size: number, filter: ResampleFilter): Image {
  if (!Number.isSafeInteger(size) || size < 1 || size > 1 << 15) throw new ConfigError("resize", "the shortest side", "a whole number in 1 .. 32768", size);
  const { width, height } = image;
  const long = Math.floor((size * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? resize(image, size, long, filter) : resize(image, long, size, filter);
}

function crop({ width: from, channels, data }: Image, left: number, top: number, width: number, height: number): Image {
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const at = ((top + y) * from + left) * channels;
    out.set(data.subarray(at, at + width * channels), y * width * channels);
  }
  return { width, height, channels, data: out };
}

function mirrored({ width, height, channels, data }: Image): Image {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) for (let c = 0; c < channels; c++) out[(y * width + x) * channels + c] = data[(y * width + width - 1 - x) * channels + c]!;
  return { width, height, channels, data: out };
}

/** RGB pictures of one size to f32 [B, 3, H, W], each of the 256 values of a channel scaled once. */
function batch(images: readonly Image[], scale: (value: number, channel: number) => number): HostTensor {
  const { width = 0, height = 0 } = images[0] ?? {};
  const odd = images.find(image => image.width !== width || image.height !== height);
  if (odd) throw new ShapeError("images", `expected ${width} x ${height} pixels as the first has, received ${odd.width} x ${odd.height}`);
  const tables = [0, 1, 2].map(c => Float32Array.from({ length: 256 }, (_, value) => scale(value, c)));
  const plane = width * height;
  const out = new Float32Array(images.length * 3 * plane);
  for (const [b, { data }] of images.entries())
    for (const [c, table] of tables.entries()) {
      const at = (b * 3 + c) * plane;
      for (let p = 0; p < plane; p++) out[at + p] = table[data[3 * p + c]!]!;
    }
  return hostTensor("f32", [images.length, 3, height, width], out);
}

function listOf(images: Image | readonly Image[]): readonly Image[] {
  return Array.isArray(images) ? images : [images as Image];
}
