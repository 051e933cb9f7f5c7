/** 8-bit pictures and the PNG file format (W3C PNG, third edition), read and written with node:zlib alone.
 *  Reading takes every colour type and bit depth, all five filters, palettes, transparency and interlacing.
 *  Files are treated as hostile: each length is checked before it is used and the pixel data can never inflate past the size in the header. */

import { deflateSync, inflateSync } from "node:zlib";
import { ConfigError, DataError } from "../errors.js";
import { chunk, type Header, isSize, readChunks, signature } from "./png-chunks.js";
import { passesOf, scatter } from "./png-interlace.js";

/** Rows top to bottom, channels interleaved: grey, grey + alpha, RGB, RGBA; alpha is not premultiplied. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 2 | 3 | 4;
  /** width * height * channels values in 0..255. */
  readonly data: Uint8Array;
}

const colourTypes = { 1: 0, 2: 4, 3: 2, 4: 6 } as const;

/** The same picture as RGB, alpha dropped, as Pillow's convert("RGB") has it: what is under transparent parts shows. */
export function toRgb(image: Image): Image {
  const { width, height, channels, data } = image;
  if (channels === 3) return image;
  const rgb = new Uint8Array(width * height * 3);
  const coloured = channels === 4;
  for (let p = 0; p < width * height; p++) for (let c = 0; c < 3; c++) rgb[3 * p + c] = data[p * channels + (coloured ? c : 0)]!;
  return { width, height, channels: 3, data: rgb };
}

/** The same picture as RGB, transparent parts over white. */
export function overWhite(image: Image): Image {
  const { width, height, channels, data } = image;
  if (channels === 3) return image;
  const rgb = new Uint8Array(width * height * 3);
  const coloured = channels === 4;
  for (let p = 0; p < width * height; p++) {
    const alpha = channels === 1 ? 1 : data[(p + 1) * channels - 1]! / 255;
    for (let c = 0; c < 3; c++) rgb[3 * p + c] = Math.round(255 + (data[p * channels + (coloured ? c : 0)]! - 255) * alpha);
  }
  return { width, height, channels: 3, data: rgb };
}

/** A PNG file holding `image`. The filter of a row is the one with the least sum of absolute differences, as libpng chooses it. */
export function encodePng(image: Image): Uint8Array {
  const { width, height, channels, data } = image;
  if (!isSize(width) || !isSize(height) || data.length !== width * height * channels)
    throw new ConfigError("encodePng", "data", `${width} x ${height} x ${channels} values`, data.length);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, colourTypes[channels], 0, 0, 0], 8);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(filtered(image))), chunk("IEND", new Uint8Array(0))]);
}

/** The picture in a PNG file: 8 bits per channel (of 16-bit samples the upper byte, as libpng and Pillow take them), palettes expanded, transparency as an
 *  alpha channel. `source` names the file in errors. Throws DataError for anything that is not a complete, valid PNG. */
export function decodePng(file: Uint8Array, source = "png"): Image {
  const { header, palette, transparency, compressed } = readChunks(file, source);
  return expand(storedSamples(header, compressed, source), header, palette, transparency, source);
}

/** One number per sample, as stored: 0 .. 2^depth - 1. */
function storedSamples(header: Header, compressed: Uint8Array, source: string): Uint8Array | Uint16Array {
  const { width, height, depth, samples, interlaced } = header;
  const passes = passesOf(width, height, interlaced).map(pass => ({ pass, rowBytes: Math.ceil((pass.width * samples * depth) / 8) }));
  const total = passes.reduce((sum, { pass, rowBytes }) => sum + (rowBytes + 1) * pass.height, 0);
  const raw = inflate(compressed, total, source);
  const pixelBytes = Math.max(1, (samples * depth) / 8);
  const whole = interlaced ? new (depth === 16 ? Uint16Array : Uint8Array)(width * height * samples) : undefined;
  let at = 0;
  for (const { pass, rowBytes } of passes) {
    const size = (rowBytes + 1) * pass.height;
    const rows = unfilter(raw.subarray(at, at + size), rowBytes, pass.height, pixelBytes, source);
    const values = unpack(rows, { ...header, width: pass.width, height: pass.height }, rowBytes);
    if (!whole) return values;
    scatter(values, pass, whole, width, samples);
    at += size;
  }
  return whole!;
}

function inflate(compressed: Uint8Array, expected: number, source: string): Uint8Array {
  let raw: Uint8Array;
  try {
    raw = inflateSync(compressed, { maxOutputLength: expected });
  } catch (cause) {
    const tooLarge = (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    throw new DataError(
      source,
      tooLarge ? `the pixel data is larger than the header says (${expected} bytes)` : "the pixel data does not inflate",
      { field: "IDAT" },
      { cause },
    );
  }
  if (raw.length !== expected) throw new DataError(source, `expected ${expected} bytes of pixel data, received ${raw.length}`, { field: "IDAT" });
  return raw;
}

/** Undoes the row filters: 0 none, 1 left, 2 up, 3 mean of both, 4 Paeth. Bytes before the first pixel and above the first row are 0. */
function unfilter(raw: Uint8Array, rowBytes: number, height: number, pixelBytes: number, source: string): Uint8Array {
  const out = new Uint8Array(rowBytes * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (rowBytes + 1)]!;
    const from = y * (rowBytes + 1) + 1;
    const to = y * rowBytes;
    if (filter > 4) throw new DataError(source, `unknown row filter ${filter}`, { row: y });
    for (let i = 0; i < rowBytes; i++) {
      const left = i >= pixelBytes ? out[to + i - pixelBytes]! : 0;
      const up = y > 0 ? out[to + i - rowBytes]! : 0;
      const corner = y > 0 && i >= pixelBytes ? out[to + i - rowBytes - pixelBytes]! : 0;
      out[to + i] = raw[from + i]! + predict(filter, left, up, corner);
    }
  }
  return out;
}

function predict(filter: number, left: number, up: number, corner: number): number {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const dl = Math.abs(up - corner);
  const du = Math.abs(left - corner);
  const dc = Math.abs(left + up - 2 * corner); // Paeth: the nearest to left + up - corner
  return dl <= du && dl <= dc ? left : du <= dc ? up : corner;
}

/** The samples of unfiltered rows, each row padded to whole bytes. */
function unpack(rows: Uint8Array, { width, height, depth, samples }: Header, rowBytes: number): Uint8Array | Uint16Array {
  if (depth === 8) return rows;
  const perRow = width * samples;
  if (depth === 16) return Uint16Array.from({ length: perRow * height }, (_, i) => (rows[2 * i]! << 8) | rows[2 * i + 1]!);
  const out = new Uint8Array(perRow * height);
  const mask = (1 << depth) - 1;
  const perByte = 8 / depth;
  for (let y = 0; y < height; y++)
    for (let i = 0; i < perRow; i++) {
      const shift = 8 - depth * ((i % perByte) + 1);
      out[y * perRow + i] = (rows[y * rowBytes + Math.floor(i / perByte)]! >> shift) & mask;
    }
  return out;
}

/** Stored samples to 8-bit channels: palette and colour key applied, shallower depths scaled to 0..255. */
function expand(
  stored: Uint8Array | Uint16Array,
  header: Header,
  palette: Uint8Array | undefined,
  transparency: Uint8Array | undefined,
  source: string,
): Image {
  const { width, height, depth, samples } = header;
  if (header.palette) return expandPalette(stored, header, palette, transparency, source);
  const top = 2 ** depth - 1;
  const to8 = (value: number) => (depth === 8 ? value : depth === 16 ? value >> 8 : (value * 255) / top);
  const key = colourKey(header, transparency, source);
  if (!key) return { width, height, channels: samples, data: depth === 8 ? (stored as Uint8Array) : Uint8Array.from(stored, to8) };
  const channels = (samples + 1) as 2 | 4;
  const data = new Uint8Array(width * height * channels);
  for (let p = 0; p < width * height; p++) {
    for (let c = 0; c < samples; c++) data[p * channels + c] = to8(stored[p * samples + c]!);
    data[p * channels + samples] = key.every((value, c) => stored[p * samples + c] === value) ? 0 : 255;
  }
  return { width, height, channels, data };
}

function colourKey({ samples, depth }: Header, transparency: Uint8Array | undefined, source: string): number[] | undefined {
  if (!transparency) return undefined;
  if (samples === 2 || samples === 4 || transparency.length !== 2 * samples)
    throw new DataError(source, `${transparency.length} bytes of transparency for ${samples} samples per pixel`, { field: "tRNS" });
  return Array.from({ length: samples }, (_, c) => ((transparency[2 * c]! << 8) | transparency[2 * c + 1]!) & (2 ** depth - 1));
}

function expandPalette(
  stored: Uint8Array | Uint16Array,
  { width, height }: Header,
  palette: Uint8Array | undefined,
  alpha: Uint8Array | undefined,
  source: string,
): Image {
  if (!palette) throw new DataError(source, "a palette picture without a palette", { field: "PLTE" });
  const colours = palette.length / 3;
  if (alpha && alpha.length > colours) throw new DataError(source, `${alpha.length} alpha values for ${colours} colours`, { field: "tRNS" });
  const channels = alpha ? 4 : 3;
  const data = new Uint8Array(width * height * channels);
  for (const [p, index] of stored.entries()) {
    if (index >= colours) throw new DataError(source, `colour ${index} of a palette of ${colours}`, { row: Math.floor(p / width) });
    data.set(palette.subarray(3 * index, 3 * index + 3), p * channels);
    if (alpha) data[p * channels + 3] = alpha[index] ?? 255;
  }
  return { width, height, channels, data };
}

function filtered({ width, height, channels, data }: Image): Uint8Array {
  const rowBytes = width * channels;
  const out = new Uint8Array((rowBytes + 1) * height);
  const trial = new Uint8Array(rowBytes);
  for (let y = 0; y < height; y++) {
    let best = Infinity;
    for (let filter = 0; filter <= 4; filter++) {
      let cost = 0;
      for (let i = 0; i < rowBytes; i++) {
        const at = y * rowBytes + i;
        const left = i >= channels ? data[at - channels]! : 0;
        const up = y > 0 ? data[at - rowBytes]! : 0;
        const corner = y > 0 && i >= channels ? data[at - rowBytes - channels]! : 0;
        trial[i] = data[at]! - predict(filter, left, up, corner);
        cost += Math.abs((trial[i]! << 24) >> 24); // as a signed byte
      }
      if (cost >= best) continue;
      best = cost;
      out[y * (rowBytes + 1)] = filter;
      out.set(trial, y * (rowBytes + 1) + 1);
    }
  }
  return out;
}
