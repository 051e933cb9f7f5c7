/** 8-bit pictures and the PNG file format (W3C PNG, third edition), read and written with node:zlib alone.
 *  Reading takes every colour type and bit depth, all five filters, palettes and transparency; interlaced files are refused by name.
 *  Files are treated as hostile: each length is checked before it is used and the pixel data can never inflate past the size in the header. */

import { deflateSync, inflateSync } from "node:zlib";
import { ConfigError, DataError } from "../errors.js";

/** Rows top to bottom, channels interleaved: grey, grey + alpha, RGB, RGBA; alpha is not premultiplied. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 2 | 3 | 4;
  /** width * height * channels values in 0..255. */
  readonly data: Uint8Array;
}

/** More pixels than this are refused: 16384 x 16384, a gigabyte once decoded to RGBA. */
const maxPixels = 2 ** 28;
const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const colourTypes = { 1: 0, 2: 4, 3: 2, 4: 6 } as const;

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

/** The picture in a PNG file: 8 bits per channel (16-bit samples are rounded), palettes expanded, transparency as an alpha channel.
 *  `source` names the file in errors. Throws DataError for anything that is not a complete, valid, non-interlaced PNG. */
export function decodePng(file: Uint8Array, source = "png"): Image {
  const { header, palette, transparency, compressed } = readChunks(file, source);
  const { width, height, depth, samples } = header;
  const rowBytes = Math.ceil((width * samples * depth) / 8);
  const raw = inflate(compressed, (rowBytes + 1) * height, source);
  const pixelBytes = Math.max(1, (samples * depth) / 8);
  const rows = unfilter(raw, rowBytes, height, pixelBytes, source);
  return expand(unpack(rows, header, rowBytes), header, palette, transparency, source);
}

interface Header {
  readonly width: number;
  readonly height: number;
  /** Bits per sample: 1, 2, 4, 8 or 16. */
  readonly depth: number;
  readonly palette: boolean;
  /** Samples per pixel in the file. */
  readonly samples: 1 | 2 | 3 | 4;
}

interface Chunks {
  readonly header: Header;
  readonly palette: Uint8Array | undefined;
  readonly transparency: Uint8Array | undefined;
  readonly compressed: Uint8Array;
}

function readChunks(file: Uint8Array, source: string): Chunks {
  let header: Header | undefined;
  let palette: Uint8Array | undefined;
  let transparency: Uint8Array | undefined;
  const parts: Uint8Array[] = [];
  let dataEnd = -1; // where the last IDAT ended: data chunks must be consecutive
  for (const { type, body, at } of chunks(file, source)) {
    const fail = (detail: string) => new DataError(source, detail, { offset: at });
    if (!header && type !== "IHDR") throw fail(`expected IHDR first, received ${type}`);
    if (type === "IHDR") {
      if (header) throw fail("a second IHDR chunk");
      header = parseHeader(body, source);
    } else if (type === "PLTE") {
      if (palette || parts.length > 0) throw fail("PLTE must come once, before the pixel data");
      if (body.length === 0 || body.length % 3 !== 0 || body.length > 768) throw fail(`a palette of ${body.length} bytes`);
      palette = body;
    } else if (type === "tRNS") {
      if (parts.length > 0) throw fail("tRNS must come before the pixel data");
      transparency = body;
    } else if (type === "IDAT") {
      if (parts.length > 0 && dataEnd !== at) throw fail("IDAT chunks are not consecutive");
      parts.push(body);
      dataEnd = at + 12 + body.length;
    } else if (/^[A-Z]/.test(type) && type !== "IEND") throw fail(`unknown critical chunk ${type}`);
  }
  if (!header || parts.length === 0) throw new DataError(source, "no pixel data");
  return { header, palette, transparency, compressed: Buffer.concat(parts) };
}

/** The chunks of a file up to IEND, lengths and checksums verified. */
function* chunks(file: Uint8Array, source: string): Generator<{ type: string; body: Uint8Array; at: number }> {
  const fail = (detail: string, offset: number) => new DataError(source, detail, { offset });
  if (file.length < 8 || signature.some((byte, i) => file[i] !== byte)) throw fail("not a PNG file: the signature is missing", 0);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = 8, type = ""; type !== "IEND"; ) {
    if (file.length - at < 12) throw fail("the file ends before its IEND chunk", at);
    const length = view.getUint32(at);
    if (length > file.length - at - 12) throw fail(`a chunk of ${length} bytes does not fit the ${file.length - at - 12} bytes left`, at);
    type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw fail("a chunk type is not four letters", at);
    if (crc32(file.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) throw fail(`the checksum of chunk ${type} does not match`, at);
    yield { type, body: file.subarray(at + 8, at + 8 + length), at };
    at += 12 + length;
  }
}

/** Bit depths each colour type may have, and its samples per pixel. */
const formats: { readonly [colourType: number]: { readonly depths: readonly number[]; readonly samples: 1 | 2 | 3 | 4 } } = {
  0: { depths: [1, 2, 4, 8, 16], samples: 1 },
  2: { depths: [8, 16], samples: 3 },
  3: { depths: [1, 2, 4, 8], samples: 1 },
  4: { depths: [8, 16], samples: 2 },
  6: { depths: [8, 16], samples: 4 },
};

function parseHeader(body: Uint8Array, source: string): Header {
  const fail = (detail: string) => new DataError(source, detail, { field: "IHDR" });
  if (body.length !== 13) throw fail(`expected 13 bytes, received ${body.length}`);
  const view = new DataView(body.buffer, body.byteOffset, 13);
  const width = view.getUint32(0);
  const height = view.getUint32(4);
  const [depth = 0, colourType = 0, compression, filter, interlace] = body.subarray(8);
  if (!isSize(width) || !isSize(height)) throw fail(`a picture of ${width} x ${height} pixels`);
  if (width * height > maxPixels) throw fail(`${width} x ${height} pixels are more than ${maxPixels}`);
  const format = formats[colourType];
  if (!format?.depths.includes(depth)) throw fail(`colour type ${colourType} with ${depth} bits per sample does not exist`);
  if (compression !== 0 || filter !== 0) throw fail(`unknown compression ${compression} or filter method ${filter}`);
  if (interlace !== 0) throw fail(interlace === 1 ? "interlaced (Adam7) files are not supported" : `unknown interlace method ${interlace}`);
  return { width, height, depth, palette: colourType === 3, samples: format.samples };
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

/** One number per sample, as stored: 0 .. 2^depth - 1. */
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

/** Stored samples to 8-bit channels: palette and colour key applied, other depths scaled to 0..255 with rounding. */
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
  const to8 = (value: number) => (depth === 8 ? value : Math.round((value * 255) / top));
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

function chunk(type: string, body: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + body.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  out.set(
    [...type].map(letter => letter.charCodeAt(0)),
    4,
  );
  out.set(body, 8);
  view.setUint32(8 + body.length, crc32(out.subarray(4, 8 + body.length)));
  return out;
}

function isSize(n: number): boolean {
  return Number.isInteger(n) && n >= 1 && n <= 2 ** 31 - 1;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

/** CRC-32 of ISO 3309, as PNG and zip use it. */
function crc32(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) c = crcTable[(c ^ byte) & 0xff]! ^ (c >>> 8);
  return ~c >>> 0;
}
