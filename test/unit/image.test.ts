/** PNG: what is written is read back exactly, what others write is read as sharp (libpng) reads it, and damaged files end in a DataError. */

import { deflateSync } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { decodePng, encodePng, type Image, toRgb } from "../../lib/data/image.js";
import { DataError } from "../../lib/errors.js";

const images = fc
  .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }), fc.constantFrom(1 as const, 2 as const, 3 as const, 4 as const))
  .chain(([width, height, channels]) =>
    fc.uint8Array({ minLength: width * height * channels, maxLength: width * height * channels }).map((data): Image => ({ width, height, channels, data })),
  );

test("decode undoes encode for every channel count", () => {
  fc.assert(fc.property(images, image => expect(decodePng(encodePng(image))).toEqual({ ...image, data: new Uint8Array(image.data) })));
});

test("libpng reads the files as they were meant", async () => {
  for (const channels of [1, 2, 3, 4] as const) {
    const image = gradient(13, 7, channels);
    const coloured = channels >= 3;
    const alpha = channels % 2 === 0;
    const { data, info } = await sharp(encodePng(image)).raw().toBuffer({ resolveWithObject: true }); // sharp widens grey to RGB
    expect([info.width, info.height, info.channels]).toEqual([13, 7, alpha ? 4 : 3]);
    const wide = (p: number) => [0, 1, 2].map(c => image.data[p * channels + (coloured ? c : 0)]!).concat(alpha ? [image.data[(p + 1) * channels - 1]!] : []);
    expect([...data]).toEqual(Array.from({ length: 13 * 7 }, (_, p) => wide(p)).flat());
  }
});

describe("files of other writers", () => {
  const source = gradient(23, 17, 4);
  const input = () => sharp(source.data, { raw: { width: 23, height: 17, channels: 4 } });
  const reference = async (file: Buffer) => new Uint8Array(await sharp(file).raw().toBuffer());

  test("adaptive filters", async () => {
    const file = await input().png({ adaptiveFiltering: true }).toBuffer();
    expect(decodePng(file).data).toEqual(source.data);
  });

  test("palettes of 1, 2, 4 and 8 bits, with and without alpha", async () => {
    for (const colours of [2, 4, 16, 200])
      for (const opaque of [true, false]) {
        const file = await (opaque ? input().flatten() : input()).png({ palette: true, colours, dither: 0 }).toBuffer();
        expect(file[25]).toBe(3); // the colour type really is a palette
        expect(decodePng(file).data).toEqual(await reference(file));
      }
  });

  test("of 16 bits per sample the upper byte counts, as sharp takes it", async () => {
    const grey = png({ width: 4, height: 1, depth: 16, colourType: 0 }, [0, 0x00, 0x80, 0x01, 0x7f, 0x7f, 0xff, 0xff, 0xff]);
    expect([...decodePng(grey).data]).toEqual([0, 1, 127, 255]);
    const rgba = png({ width: 1, height: 1, depth: 16, colourType: 6 }, [0, 0x00, 0xff, 0x01, 0x80, 0xfe, 0xff, 0x7f, 0x80]);
    expect(decodePng(rgba)).toEqual({ width: 1, height: 1, channels: 4, data: Uint8Array.of(0, 1, 254, 127) });
    expect(await reference(Buffer.from(rgba))).toEqual(Uint8Array.of(0, 1, 254, 127));
  });

  test("interlaced files of every size up to three blocks", async () => {
    for (const [width, height] of [...Array.from({ length: 24 }, (_, i) => [i + 1, 1 + ((i * 5) % 11)] as const), [1, 1], [1, 17], [2, 9], [64, 33]] as const) {
      const image = gradient(width, height, 4);
      const file = await sharp(image.data, { raw: { width, height, channels: 4 } })
        .png({ progressive: true })
        .toBuffer();
      expect(file[28]).toBe(1); // Adam7
      expect(decodePng(file)).toEqual(image);
    }
  });

  test("interlaced palettes of 1, 2 and 4 bits, and 16 bits", async () => {
    for (const colours of [2, 4, 16]) {
      const file = await input().flatten().png({ palette: true, colours, dither: 0, progressive: true }).toBuffer();
      expect([file[24]! < 8, file[28]]).toEqual([true, 1]);
      expect(decodePng(file).data).toEqual(await reference(file));
    }
    const deep = await input().toColourspace("rgb16").png({ progressive: true }).toBuffer();
    expect([deep[24], deep[28]]).toEqual([16, 1]);
    expect(decodePng(deep).data).toEqual(source.data);
  });

  test("grey of 1 bit and a colour key", () => {
    const file = png({ width: 10, height: 1, depth: 1, colourType: 0 }, [0, 0b10110000, 0b01000000], [["tRNS", [0, 1]]]);
    const image = decodePng(file);
    expect(image.channels).toBe(2);
    expect([...image.data].filter((_, i) => i % 2 === 0)).toEqual([255, 0, 255, 255, 0, 0, 0, 0, 0, 255]);
    expect([...image.data].filter((_, i) => i % 2 === 1)).toEqual([0, 255, 0, 0, 255, 255, 255, 255, 255, 0]);
  });
});

test("RGB as Pillow converts to it: grey repeated, alpha dropped", () => {
  const picture = (channels: 1 | 2 | 3 | 4, ...data: number[]): Image => ({ width: 1, height: 1, channels, data: Uint8Array.from(data) });
  expect([...toRgb(picture(1, 7)).data]).toEqual([7, 7, 7]);
  expect([...toRgb(picture(2, 7, 0)).data]).toEqual([7, 7, 7]);
  expect([...toRgb(picture(3, 1, 2, 3)).data]).toEqual([1, 2, 3]);
  expect([...toRgb(picture(4, 1, 2, 3, 0)).data]).toEqual([1, 2, 3]);
});

describe("every filter", () => {
  // One row per filter, the same pixel row below the same row: the filtered bytes are written out by hand from the specification.
  const up = [20, 25, 30, 40]; // second pixel: the Paeth distances to left and corner are equal
  const row = [10, 18, 33, 250];
  const paeth = (a: number, b: number, c: number) => {
    const p = a + b - c;
    const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
  };
  const predictions: Record<number, (i: number) => number> = {
    0: () => 0,
    1: i => row[i - 1] ?? 0,
    2: i => up[i]!,
    3: i => Math.floor(((row[i - 1] ?? 0) + up[i]!) / 2),
    4: i => paeth(row[i - 1] ?? 0, up[i]!, up[i - 1] ?? 0),
  };
  test.each([0, 1, 2, 3, 4])("filter %i", filter => {
    const bytes = row.map((value, i) => (value - predictions[filter]!(i)) & 255);
    const file = png({ width: 4, height: 2, depth: 8, colourType: 0 }, [0, ...up, filter, ...bytes]);
    expect([...decodePng(file).data]).toEqual([...up, ...row]);
  });
});

describe("hostile files", () => {
  const grey = { width: 4, height: 1, depth: 8, colourType: 0 };
  const cases: [string, Uint8Array, RegExp][] = [
    ["empty", new Uint8Array(0), /signature/],
    ["another format", Buffer.from("GIF89a and then some more bytes"), /signature/],
    ["cut off", encodePng(gradient(4, 4, 3)).subarray(0, 50), /does not fit|ends before/],
    ["a flipped bit", flipped(encodePng(gradient(4, 4, 3)), 45), /checksum/],
    ["a bomb", png(grey, new Uint8Array(10_000_000)), /larger than the header says/],
    ["too little data", png({ ...grey, height: 9 }, [0, 1, 2, 3, 4]), /expected 45 bytes of pixel data, received 5/],
    ["garbage instead of deflate", file(grey, [["IDAT", [1, 2, 3, 4]]]), /does not inflate/],
    ["a gigantic picture", png({ ...grey, width: 2 ** 30, height: 2 ** 30 }, []), /more than/],
    ["zero pixels", png({ ...grey, width: 0 }, []), /0 x 1 pixels/],
    ["an unknown interlace method", png({ ...grey, interlace: 2 }, [0, 1, 2, 3, 4]), /unknown interlace method 2/],
    ["interlaced, with the data of a plain file", png({ ...grey, interlace: 1 }, [0, 1, 2, 3, 4]), /expected 7 bytes of pixel data, received 5/],
    ["interlaced, with a bad filter in the second pass", png({ ...grey, width: 5, interlace: 1 }, [0, 1, 9, 2, 0, 3, 0, 4, 5]), /unknown row filter 9/],
    ["an impossible depth", png({ ...grey, depth: 3 }, []), /colour type 0 with 3 bits/],
    ["an unknown filter", png(grey, [7, 1, 2, 3, 4]), /unknown row filter 7/],
    ["a palette picture without palette", png({ ...grey, colourType: 3 }, [0, 0, 0, 0, 0]), /without a palette/],
    ["a colour outside the palette", png({ ...grey, colourType: 3 }, [0, 0, 1, 2, 0], [["PLTE", [0, 0, 0, 9, 9, 9]]]), /colour 2 of a palette of 2/],
    ["a palette of 4 bytes", png({ ...grey, colourType: 3 }, [0, 0, 0, 0, 0], [["PLTE", [0, 0, 0, 9]]]), /palette of 4 bytes/],
    [
      "more alpha values than colours",
      png(
        { ...grey, colourType: 3 },
        [0, 0, 0, 0, 0],
        [
          ["PLTE", [0, 0, 0]],
          ["tRNS", [1, 2]],
        ],
      ),
      /2 alpha values/,
    ],
    ["an unknown critical chunk", png(grey, [0, 1, 2, 3, 4], [["ABcD", []]]), /unknown critical chunk ABcD/],
    ["no pixel data", file(grey, []), /no pixel data/],
    ["a second header", png(grey, [0, 1, 2, 3, 4], [["IHDR", header(grey)]]), /second IHDR/],
    [
      "split pixel data",
      file(grey, [
        ["IDAT", [...deflateSync(Uint8Array.of(0, 1, 2, 3, 4))]],
        ["tEXt", [65]],
        ["IDAT", []],
      ]),
      /not consecutive/,
    ],
  ];
  test.each(cases)("%s", (_, bytes, message) => {
    expect(() => decodePng(bytes, "a.png")).toThrow(DataError);
    expect(() => decodePng(bytes, "a.png")).toThrow(message);
  });

  test.each([false, true])("no damage whatever leads to anything but a picture or a DataError (interlaced: %p)", fromInterlaced => {
    const plain = encodePng(gradient(6, 5, 4));
    const interlaced = png({ width: 5, height: 3, depth: 2, colourType: 0, interlace: 1 }, [0, 64, 0, 128, 0, 64, 0, 16, 2, 64, 4, 96, 1, 7, 3]);
    const good = fromInterlaced ? interlaced : plain;
    expect(decodePng(good).width).toBeGreaterThan(4);
    const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(damage, fc.nat(good.length), (changes, keep) => {
        const bytes = good.slice(0, keep);
        for (const [at, value] of changes) if (at < keep) bytes[at] = value;
        try {
          decodePng(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DataError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

function gradient(width: number, height: number, channels: 1 | 2 | 3 | 4): Image {
  const data = Uint8Array.from({ length: width * height * channels }, (_, i) => (i * 7 + Math.floor(i / (width * channels)) * 31 + (i % channels) * 60) & 255);
  return { width, height, channels, data };
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = bytes.slice();
  copy[at] = copy[at]! ^ 4;
  return copy;
}

interface Shape {
  width: number;
  height: number;
  depth: number;
  colourType: number;
  interlace?: number;
}

function header({ width, height, depth, colourType, interlace = 0 }: Shape): number[] {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(width, 0);
  bytes.writeUInt32BE(height, 4);
  return [...bytes, depth, colourType, 0, 0, interlace];
}

/** A PNG of raw, already filtered rows, chunks of `extra` before the pixel data. */
function png(shape: Shape, rows: ArrayLike<number>, extra: [string, number[]][] = []): Uint8Array {
  return file(shape, [...extra, ["IDAT", [...deflateSync(Uint8Array.from(rows))]]]);
}

function file(shape: Shape, chunks: [string, number[]][]): Uint8Array {
  const all: [string, number[]][] = [["IHDR", header(shape)], ...chunks, ["IEND", []]];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...all.map(([type, body]) => framed(type, body))]);
}

function framed(type: string, body: number[]): Buffer {
  const payload = Buffer.concat([Buffer.from(type, "latin1"), Buffer.from(body)]);
  const out = Buffer.alloc(8 + payload.length);
  out.writeUInt32BE(body.length, 0);
  payload.copy(out, 4);
  out.writeUInt32BE(crc(payload), 4 + payload.length);
  return out;
}

/** CRC-32, bit by bit: slow, and independent of the table under test. */
function crc(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) {
    c ^= byte;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  }
  return ~c >>> 0;
}
