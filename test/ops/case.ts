/** What a case is: inputs, a graph over them, and a reference in plain f64. */

import type { DType, Tensor } from "../../lib/graph/tensor.js";
import { type Nd, nd } from "../support/nd.js";
import { Rng } from "../support/rng.js";

const { fround } = Math; // a local: see support/rng.ts

export interface CaseInput {
  readonly shape: readonly number[];
  /** Element by element; standard normal by default. */
  readonly values?: (random: Rng, i: number) => number;
  /** A fixed dtype; by default the dtype that the case runs in. */
  readonly dtype?: DType;
  /** No gradient flows to it. */
  readonly frozen?: true;
  /** It lies in a persistent arena: effects may overwrite it. */
  readonly persistent?: true;
}

export interface OpCase {
  /** "conv2d 3x3 stride 2": the op first. */
  readonly name: string;
  readonly inputs: readonly CaseInput[];
  readonly scalars?: Readonly<Record<string, number>>;
  /** `dtype` is the dtype that the case runs in, for ops without inputs. */
  build(x: readonly Tensor[], dtype: "f32" | "f64"): readonly Tensor[];
  /** The outputs, by loops. */
  reference(x: readonly Nd[]): readonly Nd[];
  /** Roundings an element goes through besides sums: the amplification of rounding by the function, 4 by default. */
  readonly roundings?: number;
  /** Terms of the longest sum, forward or backward; 1 by default. */
  readonly terms?: number;
  /** For ops that sum in f64 whatever their inputs: sum of absolute terms over the absolute sum, by which the roundings of the sum grow; 1 by default. */
  readonly cancellation?: number;
}

/** What float32 may lose against float64, relative L2. A sum of n random terms formed one after the other loses about sqrt(n) / 3 roundings of its
 *  own size (a random walk of rounding errors), a chain of elementwise steps one each; blockwise sums lose less, correlated errors more: twice the sum. */
export function f32Bound({ roundings = 4, terms = 1 }: OpCase): number {
  return 2 * (roundings + Math.sqrt(terms)) * 2 ** -24;
}

/** What float64 may differ from the reference by: both round, and neither to better than float32's law for float64. */
export function f64Bound(c: OpCase): number {
  return f32Bound({ ...c, terms: (c.terms ?? 1) * (c.cancellation ?? 1) ** 2 }) * 2 ** -29 * 4;
}

const inputs = new Map<OpCase, readonly Nd[]>();

/** The inputs of a case, rounded to float32, so that every dtype starts from the same numbers. */
export function caseInputs(c: OpCase): readonly Nd[] {
  const known = inputs.get(c) ?? c.inputs.map((input, k) => drawn(input, new Rng(1, `${c.name} ${k}`)));
  inputs.set(c, known);
  return known;
}

function drawn({ shape, values = normal }: CaseInput, random: Rng): Nd {
  let i = 0;
  return nd(shape, () => fround(values(random, i++)));
}

export const normal = (random: Rng): number => random.normal();
/** In (0.3, 3.3): logarithms, roots, quotients. */
export const positive = (random: Rng): number => 0.3 + 3 * random.uniform();
/** |x| in (0.2, 2.2): away from a kink at 0. */
export const awayFromZero = (random: Rng): number => (random.uniform() < 0.5 ? -1 : 1) * (0.2 + 2 * random.uniform());
/** Far into both tails of an activation, but not with the first element: alone it would be judged by a value that is nearly 0. */
export const wide = (random: Rng, i: number): number => (i === 0 ? 1 : 6) * random.normal();
/** Integers in [0, n). */
export const below =
  (n: number) =>
  (random: Rng): number =>
    random.integer(n);
/** Values half a unit apart in shuffled order, no two alike: maxima keep their place under a small step. */
export const distinct =
  (count: number) =>
  (_random: Rng, i: number): number =>
    (((i * 7919) % count) - count / 2) / 2;
/** 0 or 1. */
export const bit = (random: Rng): number => Number(random.uniform() < 0.5);

/** Shapes that elementwise kernels stumble over: one element, less than a vector, odd tails, a small map of Stable Diffusion. */
export const oddShapes: readonly (readonly number[])[] = [[1], [7], [2, 3, 5], [3, 1, 33], [2, 5, 7, 64]];
