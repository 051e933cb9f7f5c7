/** Permutation importance (Breiman 2001; Fisher, Rudin & Dominici 2019): how much a measure drops when one feature's values are dealt out anew. Asks nothing
 *  of the predictor; use rows that it was not trained on. */

import { ConfigError, ShapeError } from "../../errors.js";
import { Random } from "../../util/random.js";
import { areaUnderRoc } from "../metrics-ranking.js";
import type { FittedPredictor } from "./predictor.js";

export interface PermutationImportanceOptions {
  /** Larger is better. Default: area under the ROC curve. */
  readonly measure?: (scores: Float64Array, y: Float64Array) => number;
  /** Shuffles per feature. Default 5. */
  readonly repeats?: number;
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

export interface PermutationImportance {
  /** Mean drop of the measure per feature; about 0, of either sign, for a feature that tells nothing beyond the others. */
  readonly mean: Float64Array;
  /** Standard deviation over repeats. */
  readonly deviation: Float64Array;
  /** The measure with all features in place. */
  readonly baseline: number;
}

export function permutationImportance(
  predictor: FittedPredictor,
  { x, y }: { readonly x: readonly Float64Array[]; readonly y: Float64Array },
  { measure = areaUnderRoc, repeats = 5, seed = 0, signal }: PermutationImportanceOptions = {},
): PermutationImportance {
  if (!(Number.isInteger(repeats) && repeats >= 1)) throw new ConfigError("permutationImportance", "repeats", "a whole number >= 1", repeats);
  if (x.length === 0 || y.length !== x.length)
    throw new ShapeError("permutationImportance", `expected one label per row and at least one, received ${x.length} rows and ${y.length} labels`);
  const width = x[0]!.length,
    baseline = measure(predictor.predict(x), y);
  const drops = Array.from({ length: width }, (_, f) =>
    Array.from({ length: repeats }, (_, repeat) => {
      signal?.throwIfAborted();
      const order = new Random(seed, f * repeats + repeat).shuffle([...x.keys()]);
      const shuffled = x.map((row, i) => row.with(f, x[order[i]!]![f]!));
      return baseline - measure(predictor.predict(shuffled), y);
    }),
  );
  const mean = Float64Array.from(drops, d => d.reduce((a, b) => a + b, 0) / repeats);
  const deviation = Float64Array.from(drops, (d, f) => Math.sqrt(d.reduce((a, b) => a + (b - mean[f]!) ** 2, 0) / repeats));
  return { mean, deviation, baseline };
}
