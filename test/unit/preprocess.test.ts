/** Resampling and preprocessing: laws of the filters, sizes, crops and scales that the goldens do not reach. */

import fc from "fast-check";
import type { Image } from "../../lib/data/image.js";
import { clipImages, clipSquare, imagesOf, trainingImage, trainingSquare, vaeImages } from "../../lib/data/preprocess.js";
import { bicubic, bilinear, lanczos, resize } from "../../lib/data/resample.js";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { Rng } from "../support/rng.js";

const { abs, floor, max } = Math; // locals: see rng.ts
const filters = [bilinear, bicubic, lanczos] as const;

function noise(width: number, height: number, seed = 1, channels: 1 | 3 = 3): Image {
  const rng = new Rng(seed);
  return { width, height, channels, data: Uint8Array.from({ length: width * height * channels }, () => rng.integer(256)) };
}

const sizes = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }));

describe.each(filters.map(filter => [filter.name, filter] as const))("%s", (_, filter) => {
  test("a flat picture stays flat: weights add up to one", () => {
    fc.assert(
      fc.property(sizes, fc.nat(255), ([width, height, w, h], value) => {
        const flat: Image = { width, height, channels: 1, data: new Uint8Array(width * height).fill(value) };
        expect(new Set(resize(flat, w, h, filter).data)).toEqual(new Set([value]));
      }),
    );
  });

  test("mirroring commutes with it, up to the rounding of a pass", () => {
    fc.assert(
      fc.property(sizes, ([width, height, w, h]) => {
        const image = noise(width, height);
        const mirror = ({ width: n, height: m, data }: Image): Image => ({
          width: n,
          height: m,
          channels: 3,
          data: Uint8Array.from(data, (_, i) => data[floor(i / (3 * n)) * 3 * n + (n - 1 - (floor(i / 3) % n)) * 3 + (i % 3)]!),
        });
        const [a, b] = [resize(mirror(image), w, h, filter).data, mirror(resize(image, w, h, filter)).data];
        // A sum that lies on a half is rounded the other way round on either side, in the first pass too, which the second carries over.
        let worst = 0;
        for (let i = 0; i < a.length; i++) worst = max(worst, abs(a[i]! - b[i]!));
        expect(worst).toBeLessThanOrEqual(2);
      }),
    );
  });

  test("each channel is what it is alone", () => {
    fc.assert(
      fc.property(sizes, fc.constantFrom(2 as const, 3 as const, 4 as const), ([width, height, w, h], channels) => {
        const { data } = noise(width * channels, height, 5, 1);
        const together = resize({ width, height, channels, data }, w, h, filter).data;
        for (let c = 0; c < channels; c++) {
          const of = (values: Uint8Array): Uint8Array => values.filter((_, i) => i % channels === c);
          expect(resize({ width, height, channels: 1, data: of(data) }, w, h, filter).data).toEqual(of(together));
        }
      }),
      { numRuns: 40 },
    );
  });

  test("the same size is the same picture", () => {
    const image = noise(13, 7);
    expect(resize(image, 13, 7, filter)).toEqual(image);
  });

  test.each([0, 1.5, -3, Number.NaN])("refuses the size %p", size => {
    expect(() => resize(noise(4, 4), size, 4, filter)).toThrow(ConfigError);
    expect(() => resize(noise(4, 4), 4, size, filter)).toThrow("height");
  });
});

test("halving by a triangle of two source pixels, by hand", () => {
  // Output centres 1 and 3 in source pixels, filter 1 - |d| / 2: weights (3, 3, 1) / 7 at the left end, (1, 3, 3) / 7 at the right.
  const row: Image = { width: 4, height: 1, channels: 1, data: Uint8Array.of(0, 70, 140, 210) };
  expect([...resize(row, 2, 1, bilinear).data]).toEqual([(3 * 70 + 140) / 7, (70 + 3 * 140 + 3 * 210) / 7]);
});

test("overshoot is clamped, not wrapped", () => {
  const edge: Image = { width: 8, height: 1, channels: 1, data: Uint8Array.of(0, 0, 0, 0, 255, 255, 255, 255) };
  const wide = [...resize(edge, 32, 1, lanczos).data];
  expect(wide.slice(0, 12).every(v => v < 40)).toBe(true);
  expect(wide.slice(20).every(v => v > 215)).toBe(true);
});

describe("training pictures", () => {
  test("the square lies where it is told, and SDXL is told where", () => {
    const image = noise(40, 32); // shortest side is the resolution: nothing is resized
    for (const [place, left] of [
      ["center", 4],
      [[0, 0], 0],
      [[0.999, 0.5], 8],
    ] as const) {
      const { pixels, originalSize, cropTopLeft } = trainingImage(image, { resolution: 32, crop: place });
      expect([pixels.shape, originalSize, cropTopLeft]).toEqual([
        [3, 32, 32],
        [32, 40],
        [0, left],
      ]);
      const value = image.data[(5 * 40 + left + 7) * 3 + 2]!;
      expect(pixels.data[(2 * 32 + 5) * 32 + 7]).toBeCloseTo(value / 127.5 - 1, 6);
    }
  });

  test.each([
    [1, 0],
    [3, 2],
    [5, 2],
    [7, 4],
    [4, 2],
  ])("a margin of %i puts the centre at %i: a half goes to the even side", (margin, left) => {
    expect(trainingSquare(noise(16 + margin, 16), { resolution: 16 }).left).toBe(left);
  });

  test("CLIP's centre rounds down", () => {
    const image = noise(19, 16);
    expect([...clipSquare(image, 16).data.subarray(0, 3)]).toEqual([...image.data.subarray(3, 6)]);
  });

  test("flip mirrors the square", () => {
    const image = noise(21, 16);
    const plain = trainingSquare(image, { resolution: 16, crop: [0.3, 0] }).image.data;
    const flipped = trainingSquare(image, { resolution: 16, crop: [0.3, 0], flip: true }).image.data;
    expect(flipped).not.toEqual(plain);
    for (let x = 0; x < 16; x++) expect([...flipped.subarray(3 * x, 3 * x + 3)]).toEqual([...plain.subarray(3 * (15 - x), 3 * (15 - x) + 3)]);
  });

  test.each([{ resolution: 0 }, { resolution: 7.5 }, { resolution: 16, crop: [1, 0] as const }, { resolution: 16, crop: [Number.NaN, 0] as const }])(
    "refuses %j",
    options => {
      expect(() => trainingImage(noise(20, 20), options)).toThrow(ConfigError);
    },
  );
});

describe("VAE pictures", () => {
  test("what goes in comes out", () => {
    const images = [noise(9, 5, 1), noise(9, 5, 2)];
    expect(imagesOf(vaeImages(images))).toEqual(images);
  });

  test("values beyond black and white are clamped, ties go to even", () => {
    const values = [-3, -1, 1, 7, 2 * (0.5 / 255) - 1, 2 * (127.5 / 255) - 1];
    const plane = Float64Array.from([...values, ...values, ...values]);
    const [image] = imagesOf(hostTensor("f64", [1, 3, 1, 6], plane));
    expect([...image!.data].filter((_, i) => i % 3 === 0)).toEqual([0, 0, 255, 255, 0, 128]);
  });

  test("refuses other shapes, dtypes and NaN", () => {
    expect(() => imagesOf(hostTensor("f32", [3, 2, 2]))).toThrow(ShapeError);
    expect(() => imagesOf(hostTensor("f32", [1, 4, 2, 2]))).toThrow("[1,4,2,2]");
    expect(() => imagesOf(hostTensor("u8", [1, 3, 2, 2]))).toThrow(ConfigError);
    expect(() => imagesOf(hostTensor("f32", [1, 3, 1, 1], Float32Array.of(0, Number.NaN, 0)))).toThrow("picture 0");
    expect(() => vaeImages([noise(4, 4), noise(4, 5)])).toThrow("expected 4 x 4 pixels as the first has, received 4 x 5");
  });
});

test("CLIP pictures of a batch are each what they are alone", () => {
  const images = [noise(30, 20, 1), noise(20, 50, 2), noise(7, 7, 3, 1)];
  const together = clipImages(images, { size: 16 });
  expect(together.shape).toEqual([3, 3, 16, 16]);
  expect([...together.data]).toEqual(images.flatMap(image => [...clipImages(image, { size: 16 }).data] as number[]));
  expect(clipImages([], { size: 16 }).shape[0]).toBe(0);
  expect(() => clipImages(images, { std: [1, 0, 1] })).toThrow(ConfigError);
});
