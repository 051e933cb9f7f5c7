/** The container of PNG files: signature, chunks with checksums, and the header. Pixels are image.ts' business. */

import { DataError } from "../errors.js";

/** More pixels than this are refused: 16384 x 16384, a gigabyte once decoded to RGBA. */
const maxPixels = 2 ** 28;
export const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

export interface Header {
  readonly width: number;
  readonly height: number;
  /** Bits per sample: 1, 2, 4, 8 or 16. */
  readonly depth: number;
  readonly palette: boolean;
  /** Samples per pixel in the file. */
  readonly samples: 1 | 2 | 3 | 4;
  readonly interlaced: boolean;
}

export interface Chunks {
  readonly header: Header;
  readonly palette: Uint8Array | undefined;
  readonly transparency: Uint8Array | undefined;
  readonly compressed: Uint8Array;
}

/** What the chunks of a file say. Throws DataError. */
export function readChunks(file: Uint8Array, source: string): Chunks {
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
  if (interlace !== 0 && interlace !== 1) throw fail(`unknown interlace method ${interlace}`);
  return { width, height, depth, palette: colourType === 3, samples: format.samples, interlaced: interlace === 1 };
}

/** A chunk as it stands in a file: length, type, body, checksum. */
export function chunk(type: string, body: Uint8Array): Uint8Array {
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

/** Sizes that the format can hold. */
export function isSize(n: number): boolean {
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
