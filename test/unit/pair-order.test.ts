/** The order of pairs is a function of (seed, epoch, index): what resuming and micro-batching rest on. */

import fc from "fast-check";
import { shuffledOrder } from "../../lib/train/sampler.js";

const lengths = fc.integer({ min: 1, max: 60 });
const seeds = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

test("every epoch holds every pair once", () => {
  fc.assert(
    fc.property(lengths, seeds, fc.integer({ min: 0, max: 4 }), (length, seed, epoch) => {
      const drawn = shuffledOrder({ length, seed }).at(epoch * length, length);
      expect(drawn.toSorted((a, b) => a - b)).toEqual(Array.from({ length }, (_, i) => i));
    }),
  );
});

test("draws do not depend on how they are cut into batches, nor on what was drawn before", () => {
  fc.assert(
    fc.property(lengths, seeds, fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 12 }), (length, seed, sizes) => {
      const total = sizes.reduce((a, b) => a + b, 0);
      const whole = shuffledOrder({ length, seed }).at(0, total);
      const cut = shuffledOrder({ length, seed });
      let position = 0;
      for (const size of sizes) {
        expect(cut.at(position, size)).toEqual(whole.slice(position, position + size));
        expect(shuffledOrder({ length, seed }).at(position, size)).toEqual(whole.slice(position, position + size));
        position += size;
      }
    }),
  );
});

test("epochs and seeds differ, and every pair comes first equally often", () => {
  const length = 50;
  const order = shuffledOrder({ length, seed: 1 });
  expect(order.at(0, length)).not.toEqual(order.at(length, length));
  expect(order.at(0, length)).not.toEqual(shuffledOrder({ length, seed: 2 }).at(0, length));
  const first = new Array<number>(5).fill(0);
  const runs = 4000;
  for (let seed = 0; seed < runs; seed++) first[shuffledOrder({ length: 5, seed }).at(0, 1)[0]!]!++;
  const chiSquared = first.reduce((sum, n) => sum + (n - runs / 5) ** 2 / (runs / 5), 0);
  expect(chiSquared).toBeLessThan(18.47); // the 0.1 % quantile at 4 degrees of freedom; the seeds are fixed
});
