/** Comparing tensors: by relative L2, with a message from which the error can be found. */

const { is } = Object; // a local: see rng.ts

export type Values = ArrayLike<number>;

/** ||actual - expected|| / ||expected||, in f64; the plain distance where expected is all zeros. NaN where lengths differ or a value is NaN. */
export function relL2(actual: Values, expected: Values): number {
  if (actual.length !== expected.length) return Number.NaN;
  let distance = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    distance += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(distance) / (norm === 0 ? 1 : Math.sqrt(norm));
}

/** Fails unless relL2(actual, expected) <= bound. The message names the label, both numbers, and the first index that strays: by more than
 *  `bound` of the root mean square of what was expected, or by being NaN. */
export function expectClose(actual: Values, expected: Values, bound: number, label: string): void {
  const error = relL2(actual, expected);
  if (error <= bound) return;
  if (actual.length !== expected.length) throw new Error(`${label}: expected ${expected.length} elements, received ${actual.length}`);
  const scale = Math.sqrt(squares(expected) / expected.length) || 1;
  let first = 0;
  while (first < expected.length - 1 && Math.abs(actual[first]! - expected[first]!) <= bound * scale) first++;
  const values = `expected ${expected[first]}, received ${actual[first]}`;
  throw new Error(`${label}: relative L2 ${error.toExponential(3)} above ${bound.toExponential(3)}; first at [${first}] of ${expected.length}: ${values}`);
}

/** Fails unless all values are equal, NaN to NaN included. */
export function expectSame(actual: Values, expected: Values, label: string): void {
  if (actual.length !== expected.length) throw new Error(`${label}: expected ${expected.length} elements, received ${actual.length}`);
  for (let i = 0; i < expected.length; i++)
    if (!is(actual[i], expected[i])) throw new Error(`${label}: first differs at [${i}]: expected ${expected[i]}, received ${actual[i]}`);
}

export function dot(a: Values, b: Values): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

export function norm(a: Values): number {
  return Math.sqrt(squares(a));
}

function squares(a: Values): number {
  return dot(a, a);
}
