/** Dense f64 arrays for reference computations: written by index, slow, and plain enough to be believed. */

import type { Rng } from "./rng.js";

export interface Nd {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** The array whose element at each index is `at(index)`. */
export function nd(shape: readonly number[], at: (...index: number[]) => number): Nd {
  const data = new Float64Array(shape.reduce((n, d) => n * d, 1));
  let i = 0;
  everyIndex(shape, index => {
    data[i++] = at(...index);
  });
  return { shape, data };
}

/** x at an index; an axis of length 1 and axes that x lacks in front repeat, as numpy broadcasts. */
export function get(x: Nd, ...index: number[]): number {
  const skipped = index.length - x.shape.length;
  let flat = 0;
  for (const [axis, n] of x.shape.entries()) flat = flat * n + (n === 1 ? 0 : index[axis + skipped]!);
  return x.data[flat]!;
}

/** The sum of `term` over every index of `shape`. */
export function total(shape: readonly number[], term: (...index: number[]) => number): number {
  let value = 0;
  everyIndex(shape, index => {
    value += term(...index);
  });
  return value;
}

export function map(x: Nd, f: (value: number) => number): Nd {
  return { shape: x.shape, data: x.data.map(f) };
}

export function gaussian(shape: readonly number[], random: Rng): Nd {
  return nd(shape, () => random.normal());
}

function everyIndex(shape: readonly number[], visit: (index: number[]) => void): void {
  const count = shape.reduce((n, d) => n * d, 1);
  const index = shape.map(() => 0);
  for (let i = 0; i < count; i++) {
    visit(index);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
}
