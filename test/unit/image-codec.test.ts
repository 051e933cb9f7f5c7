/** Pictures of any format: PNG by our decoder, the rest by sharp, damaged ones refused, and what is said where sharp is missing. */

import sharp from "sharp";
import { encodePng, type Image } from "../../lib/data/image.js";
import { decodeImage, encodeImage } from "../../lib/data/image-codec.js";
import { ConfigError, DataError } from "../../lib/errors.js";

const smooth = (channels: 1 | 3 | 4): Image => ({
  width: 32,
  height: 24,
  channels,
  data: Uint8Array.from({ length: 32 * 24 * channels }, (_, i) =>
    channels === 4 && i % 4 === 3 ? 128 : 60 + 3 * (Math.floor(i / channels) % 32) + 10 * (i % channels),
  ),
});

function worst(a: Uint8Array, b: Uint8Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

test("PNG keeps every channel and value", async () => {
  for (const channels of [1, 3, 4] as const) expect(await decodeImage(await encodeImage(smooth(channels)))).toEqual(smooth(channels));
});

test("JPEG and WebP of a smooth picture stay near it", async () => {
  for (const format of ["jpeg", "webp"] as const) {
    const image = smooth(3);
    const back = await decodeImage(await encodeImage(image, { format, quality: 95 }));
    expect([back.width, back.height, back.channels]).toEqual([32, 24, 3]);
    expect(worst(back.data, image.data)).toBeLessThan(12);
  }
});

test("JPEG has no alpha, WebP has", async () => {
  expect((await decodeImage(await encodeImage(smooth(4), { format: "jpeg" }))).channels).toBe(3);
  expect((await decodeImage(await encodeImage(smooth(4), { format: "webp" }))).channels).toBe(4);
});

test("neither a colour profile nor an orientation changes the stored pixels, as in Pillow", async () => {
  const { data, width, height, channels } = smooth(3);
  const raw = () => sharp(data, { raw: { width, height, channels } });
  const plain = await decodeImage(await raw().jpeg({ quality: 100 }).toBuffer());
  const turned = await decodeImage(await raw().jpeg({ quality: 100 }).withMetadata({ orientation: 6 }).toBuffer());
  expect([turned.width, turned.height]).toEqual([32, 24]);
  expect(turned).toEqual(plain);
  const red = Uint8Array.from(data, (_, i) => [220, 30, 40][i % 3]!);
  const file = await sharp(red, { raw: { width, height, channels } }).jpeg({ quality: 100 }).withIccProfile("p3").toBuffer();
  const { data: stored } = await sharp(file, { ignoreIcc: true }).raw().toBuffer({ resolveWithObject: true });
  expect((await decodeImage(file)).data).toEqual(new Uint8Array(stored));
  expect(worst((await decodeImage(file)).data, new Uint8Array(await sharp(file).raw().toBuffer()))).toBeGreaterThan(2); // sharp alone would convert
});

test("CMYK: each colour is what its ink leaves of what black leaves", async () => {
  const { data, width, height, channels } = smooth(3);
  const file = await sharp(data, { raw: { width, height, channels } }).toColourspace("cmyk").jpeg().toBuffer();
  const inks = await sharp(file, { ignoreIcc: true }).pipelineColourspace("cmyk").toColourspace("cmyk").raw().toBuffer();
  const image = await decodeImage(file);
  expect([image.channels, inks.length, new Set(inks).size > 20]).toEqual([3, 4 * width * height, true]);
  const exact = Array.from(image.data, (_, i) => 255 * (1 - inks[4 * Math.floor(i / 3) + (i % 3)]! / 255) * (1 - inks[4 * Math.floor(i / 3) + 3]! / 255));
  expect(Math.max(...exact.map((value, i) => Math.abs(value - image.data[i]!)))).toBeLessThanOrEqual(0.5 + 1e-9);
});

test.each([
  ["no bytes", new Uint8Array(0)],
  ["text", Buffer.from("hello")],
  ["a damaged PNG", encodePng(smooth(3)).subarray(0, 60)],
])("%s: a DataError that names the file", async (_, bytes) => {
  await expect(decodeImage(bytes, "a.jpg")).rejects.toThrow(DataError);
  await expect(decodeImage(bytes, "a.jpg")).rejects.toThrow(/^a\.jpg/);
});

test("a JPEG that was cut off is refused, not filled with grey", async () => {
  const file = await encodeImage({ ...smooth(3) }, { format: "jpeg" });
  await expect(decodeImage(file.subarray(0, file.length - 200), "a.jpg")).rejects.toThrow(DataError);
});

test("refuses options out of range", async () => {
  await expect(encodeImage(smooth(3), { format: "gif" as "png" })).rejects.toThrow(ConfigError);
  await expect(encodeImage(smooth(3), { format: "jpeg", quality: 0 })).rejects.toThrow("quality");
  await expect(encodeImage({ ...smooth(3), width: 31 }, { format: "webp" })).rejects.toThrow("31 x 24 x 3 values");
});

describe("without sharp", () => {
  test("PNG is read and written, and the error for others says what to install", async () => {
    jest.resetModules();
    jest.doMock("sharp", () => {
      throw Object.assign(new Error("Cannot find module 'sharp'"), { code: "MODULE_NOT_FOUND" });
    });
    const alone = require("../../lib/data/image-codec.js") as typeof import("../../lib/data/image-codec.js");
    expect(await alone.decodeImage(await alone.encodeImage(smooth(4)))).toEqual(smooth(4));
    await expect(alone.decodeImage(Buffer.from("\xff\xd8\xff", "latin1"), "a.jpg")).rejects.toThrow(/decode a\.jpg.*not installed.*npm install sharp/);
    await expect(alone.encodeImage(smooth(3), { format: "webp" })).rejects.toThrow(/npm install sharp/);
    jest.dontMock("sharp");
  });
});
