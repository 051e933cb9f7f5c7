/** Host tensors: conversions round to nearest even between all dtypes, layouts turn axes and back. */

import { ConfigError, ShapeError } from "../../lib/errors.js";
import { fromBf16, fromF16, toBf16, toF16 } from "../../lib/util/half.js";
import { convert, type HostDType, hostTensor, insideShape, outsideShape, toInside, toOutside } from "../../lib/util/host-tensor.js";

const halves = [
  { name: "bf16", from: fromBf16, to: toBf16, infinity: 0x7f80 },
  { name: "f16", from: fromF16, to: toF16, infinity: 0x7c00 },
] as const;

describe.each(halves)("$name", ({ name, from, to, infinity }) => {
  const patterns = Array.from({ length: 1 << 16 }, (_, bits) => bits);
  const isNaNPattern = (bits: number): boolean => (bits & 0x7fff) > infinity;

  test("every pattern survives the way to float64 and back", () => {
    expect(patterns.filter(bits => (isNaNPattern(bits) ? !Number.isNaN(from(bits)) : to(from(bits)) !== bits))).toEqual([]);
    expect(isNaNPattern(to(Number.NaN))).toBe(true);
  });

  test("patterns are in the order of their values", () => {
    const positive = patterns.slice(0, infinity + 1).map(from);
    expect(positive.every((v, i) => i === 0 || v > positive[i - 1]!)).toBe(true);
    expect(patterns.slice(0, infinity + 1).every(bits => from(bits | 0x8000) === -from(bits))).toBe(true);
  });

  // Between two neighbours: below the midpoint the lower one, above it the upper one, on it the even pattern. The nudges are far below float32's
  // resolution, so that rounding by way of float32 would see the midpoint in all three.
  test("rounds to nearest, ties to even, straight from float64", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits + 1 < infinity; bits++) {
      const middle = (from(bits) + from(bits + 1)) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const nudge = 2 ** -45;
      for (const sign of [1, -1])
        for (const [value, wanted] of [
          [middle, even],
          [middle * (1 - nudge), bits],
          [middle * (1 + nudge), bits + 1],
        ] as const)
          if (to(sign * value) !== (sign < 0 ? wanted | 0x8000 : wanted)) wrong.push(sign * value);
    }
    expect(wrong).toEqual([]);
  });

  test("overflows to infinity half a step past the largest finite value", () => {
    const largest = from(infinity - 1);
    const step = largest - from(infinity - 2);
    expect(to(largest + step / 2)).toBe(infinity);
    expect(to((largest + step / 2) * (1 - 2 ** -45))).toBe(infinity - 1);
    expect(to(-Number.MAX_VALUE)).toBe(infinity | 0x8000);
    expect(to(Number.POSITIVE_INFINITY)).toBe(infinity);
  });

  test("underflows to zero with its sign", () => {
    const smallest = from(1);
    expect(to(smallest / 2)).toBe(0);
    expect(to(-smallest / 2)).toBe(0x8000);
    expect(to((smallest / 2) * (1 + 2 ** -45))).toBe(1);
    expect(to(5e-324)).toBe(0);
  });

  test("convert uses it, in both directions", () => {
    const x = hostTensor("f64", [3], [1 / 3, -2, 1e9]);
    expect([...convert(x, name).data]).toEqual([1 / 3, -2, 1e9].map(to));
    expect([...convert(convert(x, name), "f64").data]).toEqual([1 / 3, -2, 1e9].map(v => from(to(v))));
  });
});

describe("convert", () => {
  const dtypes: readonly HostDType[] = ["f64", "f32", "bf16", "f16", "i32", "u8", "i64"];

  test("keeps small integers between all pairs of dtypes", () => {
    for (const a of dtypes)
      for (const b of dtypes) {
        const there = convert(hostTensor(a, [4], [0, 1, 7, 128]), b);
        expect([a, b, there.dtype, ...convert(there, "f64").data]).toEqual([a, b, b, 0, 1, 7, 128]);
      }
  });

  test("returns the tensor itself where nothing changes", () => {
    const x = hostTensor("f32", [2]);
    expect(convert(x, "f32")).toBe(x);
  });

  test("truncates towards zero and refuses what does not fit an integer", () => {
    expect([...convert(hostTensor("f64", [4], [1.9, -1.9, -0.5, 2147483647.5]), "i32").data]).toEqual([1, -1, 0, 2147483647]);
    expect([...convert(hostTensor("f32", [2], [-(2 ** 62), 3.7]), "i64").data]).toEqual([-(2n ** 62n), 3n]);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31, -(2 ** 31) - 1])
      expect(() => convert(hostTensor("f64", [1], [value]), "i32")).toThrow(ConfigError);
    expect(() => convert(hostTensor("i32", [1], [256]), "u8")).toThrow(ConfigError);
    expect(() => convert(hostTensor("i32", [1], [-1]), "u8")).toThrow(ConfigError);
    expect(() => convert(hostTensor("f64", [1], [2 ** 63]), "i64")).toThrow(ConfigError);
    expect(() => convert(hostTensor("i64", [1], BigInt64Array.of(2n ** 40n)), "i32")).toThrow(ConfigError);
  });
});

describe("hostTensor", () => {
  test("keeps the array it is given, zeros without one", () => {
    const data = Float32Array.of(1, 2);
    expect(hostTensor("f32", [2], data).data).toBe(data);
    expect(hostTensor("i64", [1, 2]).data).toEqual(BigInt64Array.of(0n, 0n));
    expect(hostTensor("f32", []).data.length).toBe(1);
    expect(hostTensor("f32", [3, 0]).data.length).toBe(0);
  });

  test("refuses other lengths, other arrays, shapes that are none", () => {
    expect(() => hostTensor("f32", [3], Float32Array.of(1, 2))).toThrow(ShapeError);
    expect(() => hostTensor("f32", [2], Float64Array.of(1, 2))).toThrow("expected the data of f32 to be a Float32Array, received");
    expect(() => hostTensor("bf16", [1], Float32Array.of(1))).toThrow(ConfigError);
    for (const shape of [[-1], [1.5], [Number.NaN]]) expect(() => hostTensor("f32", shape)).toThrow(ShapeError);
  });
});

describe("layouts", () => {
  test("bchw and oihw bring the second axis to the end; element by element", () => {
    const [b, c, h, w] = [2, 3, 4, 35];
    const outside = hostTensor(
      "f32",
      [b, c, h, w],
      Float32Array.from({ length: b * c * h * w }, (_, i) => i),
    );
    for (const layout of ["bchw", "oihw"] as const) {
      const inside = toInside(outside, layout);
      expect(inside.shape).toEqual([b, h, w, c]);
      for (let i = 0; i < outside.data.length; i++) {
        const [x, y, k, n] = [i % w, Math.floor(i / w) % h, Math.floor(i / (w * h)) % c, Math.floor(i / (w * h * c))];
        expect(inside.data[((n * h + y) * w + x) * c + k]).toBe(i);
      }
      expect(toOutside(inside, layout)).toEqual(outside);
    }
  });

  test("work for every dtype, and for views of a larger buffer", () => {
    for (const dtype of ["f64", "bf16", "i32", "u8", "i64"] as const) {
      const x = hostTensor(dtype, [1, 2, 1, 2], [0, 1, 2, 3]);
      expect([...toInside(x, "bchw").data].map(Number)).toEqual([...hostTensor(dtype, [4], [0, 2, 1, 3]).data].map(Number));
    }
    const view = new Float32Array(new ArrayBuffer(64), 16, 4).fill(0).map((_, i) => i);
    expect([...toInside(hostTensor("f32", [1, 2, 2, 1], view), "bchw").data]).toEqual([0, 2, 1, 3]);
  });

  test("plain is the identity; shapes go both ways; other ranks are refused", () => {
    const x = hostTensor("f32", [2, 3]);
    expect(toInside(x, "plain")).toBe(x);
    expect(insideShape([1, 2, 3, 4], "bchw")).toEqual([1, 3, 4, 2]);
    expect(outsideShape(insideShape([1, 2, 3, 4], "oihw"), "oihw")).toEqual([1, 2, 3, 4]);
    expect(() => toInside(x, "bchw")).toThrow(ShapeError);
  });
});
