/** The random ops: Philox's published vectors, the moments of what is drawn, and draws that do not know how a batch was cut. */

import { randomInt, randomNormal, randomUniform } from "../../lib/graph/ops/random.js";
import { Session } from "../../lib/graph/session.js";
import type { Tensor } from "../../lib/graph/tensor.js";
import { philox4x32 } from "../../lib/util/random.js";
import { expectSame, type Values } from "../support/compare.js";
import { philox } from "../support/philox.js";
import { runOnce } from "../support/run.js";

let session: Session;
beforeAll(() => {
  session = Session.open({ backend: "cpu", threads: 2 });
});
afterAll(() => session.close());

// Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
const vectors = [
  ["00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
  ["ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"],
  ["243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"],
] as const;

test.each(vectors)("Philox4x32-10 of counter %s and key %s", (counter, key, result) => {
  const words = (text: string): bigint[] => text.split(" ").map(word => BigInt(`0x${word}`));
  expect(philox(words(counter), words(key))).toEqual(words(result));
  expect(philox4x32(words(counter).map(Number), words(key).map(Number))).toEqual(words(result).map(Number));
});

interface At {
  readonly seed?: number;
  readonly step?: number;
  readonly sampleOffset?: number;
}

async function draw(make: () => Tensor, { seed = 11, step = 2, sampleOffset = 0 }: At = {}): Promise<Values> {
  const { y } = await runOnce(session, graph => graph.output("y", make()), { scalars: { seed, step, sampleOffset } });
  return y!.data as unknown as Values;
}

const count = 1 << 18;

/** Mean of f over the values, in standard errors of a mean whose terms vary by `deviation`. */
function stray(values: Values, f: (x: number) => number, mean: number, deviation: number): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += f(values[i]!);
  return Math.abs(sum / values.length - mean) / (deviation / Math.sqrt(values.length));
}

// Five standard errors: a right generator fails once in two million draws, and this draw is fixed.
test("normals have the moments of normals", async () => {
  const x = await draw(() => randomNormal([count], { stream: 1 }));
  expect(stray(x, v => v, 0, 1)).toBeLessThan(5);
  expect(stray(x, v => v ** 2, 1, Math.sqrt(2))).toBeLessThan(5);
  expect(stray(x, v => v ** 3, 0, Math.sqrt(15))).toBeLessThan(5);
  expect(stray(x, v => v ** 4, 3, Math.sqrt(96))).toBeLessThan(5);
  expect(stray(x, v => Number(Math.abs(v) > 3), 0.0026998, Math.sqrt(0.0026998))).toBeLessThan(5);
});

test("neighbours are uncorrelated, and so are streams, steps and seeds", async () => {
  const make = (stream: number) => () => randomNormal([count], { stream });
  const x = await draw(make(1));
  const others = [await draw(make(2)), await draw(make(1), { step: 3 }), await draw(make(1), { seed: 12 }), await draw(make(1), { seed: 11 + 2 ** 40 })];
  const shifted = [1, 2, 3, 4].map(lag => Float64Array.from({ length: count - lag }, (_, i) => x[i + lag]!));
  for (const y of [...others, ...shifted]) {
    const products = Float64Array.from({ length: y.length }, (_, i) => x[i]! * y[i]!);
    expect(stray(products, v => v, 0, 1)).toBeLessThan(5);
  }
});

test("uniforms and integers fill their range evenly", async () => {
  const u = await draw(() => randomUniform([count], { stream: 1 }));
  expect(stray(u, v => v, 0.5, Math.sqrt(1 / 12))).toBeLessThan(5);
  expect(Math.min(...chunk(u))).toBeGreaterThanOrEqual(0);
  expect(Math.max(...chunk(u))).toBeLessThan(1);
  const n = await draw(() => randomInt([count], { low: -3, high: 4, stream: 1 }));
  for (let value = -3; value < 4; value++) expect(stray(n, v => Number(v === value), 1 / 7, Math.sqrt(6 / 49))).toBeLessThan(5);
  expect(stray(n, v => Number(v >= -3 && v < 4), 1, 1)).toBe(0);
});

const kinds: Readonly<Record<string, (samples: number) => Tensor>> = {
  random_normal: samples => randomNormal([samples, 3, 5], { stream: 6 }),
  random_uniform: samples => randomUniform([samples, 3, 5], { stream: 6 }),
  random_int: samples => randomInt([samples, 3, 5], { low: 0, high: 1000, stream: 6 }),
};

test.each(Object.entries(kinds))("%s: micro-batches draw what one batch draws", async (name, make) => {
  const whole = await draw(() => make(8));
  for (const size of [1, 2, 4])
    for (let first = 0; first < 8; first += size) {
      const part = await draw(() => make(size), { sampleOffset: first });
      expectSame(part, chunk(whole, 15 * first, 15 * (first + size)), `${name}: ${size} samples from ${first}`);
    }
});

function chunk(values: Values, start = 0, end = 1 << 16): number[] {
  return Array.from(values).slice(start, end);
}
