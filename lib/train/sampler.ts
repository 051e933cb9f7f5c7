/** Which pair stands where: the order of pairs is a function of (seed, epoch, index), so a resumed run, or one with another split into micro-batches,
 *  sees the pairs of an uninterrupted one. Every epoch is one permutation; batches run on across the border of epochs, so no pair is dropped. */

import { ConfigError } from "../errors.js";
import { Random } from "../util/random.js";

export interface PairOrder {
  /** Data indices of `count` consecutive draws, the first being draw number `position` since the start of the run. */
  at(position: number, count: number): number[];
}

/** Seeded sampling without replacement from `length` pairs. */
export function shuffledOrder({ length, seed }: { readonly length: number; readonly seed: number }): PairOrder {
  if (!Number.isSafeInteger(length) || length < 1) throw new ConfigError("shuffledOrder", "length", "a whole number >= 1", length);
  let epoch = -1;
  let order: Uint32Array = new Uint32Array();
  const draw = (position: number): number => {
    const wanted = Math.floor(position / length);
    if (wanted !== epoch) [epoch, order] = [wanted, permutation(length, new Random(seed, `pairs of epoch ${wanted}`))];
    return order[position % length]!;
  };
  return { at: (position, count) => Array.from({ length: count }, (_, i) => draw(position + i)) };
}

/** Fisher and Yates over 0..n-1, in four bytes per pair: data sets reach millions. */
function permutation(n: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order;
}
