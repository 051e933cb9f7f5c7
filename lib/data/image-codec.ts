/** Pictures from and to file bytes, whatever the format: PNG by this library, JPEG, WebP and the rest by sharp, an optional peer dependency that is loaded when
 *  the first such file comes. As in Pillow, colour profiles and orientation tags are not applied: the stored pixels are what models were trained on. */

import { ConfigError, DataError } from "../errors.js";
import { decodePng, encodePng, type Image } from "./image.js";
import { signature } from "./png-chunks.js";

/** The same limit as for PNG. */
const maxPixels = 2 ** 28;

/** The picture in a file's bytes; of an animation the first frame. `source` names the file in errors. Throws DataError for a damaged or unknown file,
 *  ConfigError if it is not a PNG and sharp is not installed. */
export async function decodeImage(bytes: Uint8Array, source = "image"): Promise<Image> {
  if (signature.every((byte, i) => bytes[i] === byte)) return decodePng(bytes, source);
  if (bytes.length === 0) throw new DataError(source, "expected a picture, received no bytes");
  const sharp = loadSharp(`decode ${source}`);
  const open = () => sharp(bytes, { ignoreIcc: true, failOn: "error", limitInputPixels: maxPixels });
  try {
    const inks = (await open().metadata()).space === "cmyk"; // sharp would convert by a profile of a press
    const pixels = inks ? open().pipelineColourspace("cmyk").toColourspace("cmyk") : open().toColourspace("srgb");
    const { data, info } = await pixels.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
    const { width, height, channels } = info;
    const values = new Uint8Array(data.buffer, data.byteOffset, data.length);
    return inks ? fromInks(values, width, height) : { width, height, channels: channels as Image["channels"], data: values };
  } catch (cause) {
    throw new DataError(source, `cannot be decoded: ${(cause as Error).message}`, {}, { cause });
  }
}

/** CMYK to RGB as Pillow does it: each colour is what its ink leaves of what black leaves, in 8 bits. */
function fromInks(inks: Uint8Array, width: number, height: number): Image {
  const data = new Uint8Array(width * height * 3);
  for (let p = 0; p < width * height; p++) {
    const light = 255 - inks[4 * p + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = inks[4 * p + c]! * light + 128;
      data[3 * p + c] = light - ((product + (product >> 8)) >> 8); // light * ink / 255, rounded
    }
  }
  return { width, height, channels: 3, data };
}

export interface EncodeImageOptions {
  readonly format?: "png" | "jpeg" | "webp";
  /** 1 .. 100, of JPEG and WebP. */
  readonly quality?: number;
}

/** A file of the picture: PNG (lossless, alpha kept), JPEG (no alpha) or WebP. Throws ConfigError for options out of range, and for formats other than PNG
 *  if sharp is not installed. */
export async function encodeImage(image: Image, { format = "png", quality = 95 }: EncodeImageOptions = {}): Promise<Uint8Array> {
  if (format === "png") return encodePng(image);
  if (format !== "jpeg" && format !== "webp") throw new ConfigError("encodeImage", "format", '"png", "jpeg" or "webp"', format);
  if (!Number.isInteger(quality) || quality < 1 || quality > 100) throw new ConfigError("encodeImage", "quality", "a whole number in 1 .. 100", quality);
  const { width, height, channels, data } = image;
  if (data.length !== width * height * channels) throw new ConfigError("encodeImage", "data", `${width} x ${height} x ${channels} values`, data.length);
  const raw = loadSharp(`encode a ${format}`)(data, { raw: { width, height, channels } });
  return await (format === "jpeg" ? raw.removeAlpha().jpeg({ quality }) : raw.webp({ quality })).toBuffer();
}

type Sharp = typeof import("sharp");

/** require, not import(): found when it is needed, and missing only for those who need it. */
function loadSharp(purpose: string): Sharp {
  try {
    return require("sharp") as Sharp;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = code === "MODULE_NOT_FOUND" ? "the package is not installed" : `it cannot be loaded: ${message.split("\n")[0]}`;
    throw new ConfigError(
      "images",
      `sharp, which is needed to ${purpose}`,
      "installed",
      reason,
      "run `npm install sharp`, or use PNG files, which need nothing",
    );
  }
}
