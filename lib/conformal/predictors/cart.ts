/** One decision tree: Gini impurity, exact splits. Breiman, Friedman, Olshen & Stone 1984, with scikit-learn's rules and tie-free structure equal to its own. */

import { ConfigError } from "../../errors.js";
import { type CodedRows, GiniGrower, type GrownTree } from "./gini.js";
import type { FittedPredictor, PredictorOf } from "./predictor.js";
import { rankColumns } from "./ranked-columns.js";
import { steppedPredictor } from "./steps.js";
import { type Columns, checkRows, trainingColumns } from "./training-data.js";
import { addTree, normalised, packRows, type Tree } from "./tree.js";

export interface CartOptions {
  /** Default: none. */
  readonly maxDepth?: number;
  /** Least number of rows in a leaf. Default 1. */
  readonly minSamplesLeaf?: number;
}

export interface FittedCart extends FittedPredictor {
  readonly tree: Tree;
  /** Training rows per node. */
  readonly samples: Int32Array;
}

/** Scores are shares of aligned training weight in the leaf. `featureImportance`: decrease of Gini impurity. No randomness: ties go to the lowest feature. */
export function cart({ maxDepth = Infinity, minSamplesLeaf = 1 }: CartOptions = {}): PredictorOf<FittedCart> {
  checkTreeOptions("cart", maxDepth, minSamplesLeaf);
  return steppedPredictor("cart", function* (data, { signal }) {
    signal?.throwIfAborted();
    const training = trainingColumns("cart", data);
    const grower = new GiniGrower(yield* rankColumns("cart", training.columns));
    const grown = yield* grower.grow(Int32Array.from(training.y.keys()), weightedRows(training), { maxDepth, minSamplesLeaf, maxFeatures: training.width });
    return { ...fitted(grown, training.width), samples: grown.samples };
  });
}

function fitted({ tree, importance }: GrownTree, width: number): Omit<FittedCart, "samples"> {
  return {
    tree,
    featureImportance: normalised(importance),
    predict(x) {
      checkRows("cart", x, width);
      const scores = new Float64Array(x.length);
      addTree(tree, packRows(x, width), width, scores);
      return scores;
    },
  };
}

/** Every row its own code where weights are given, else two codes. */
export function weightedRows({ rows, y, weights }: Columns): CodedRows {
  if (!weights) return { code: Int32Array.from(y), weight: Float64Array.of(1, 1), positive: Float64Array.of(0, 1) };
  const code = new Int32Array(rows);
  for (let i = 0; i < rows; i++) code[i] = i;
  return { code, weight: weights, positive: weights.map((w, i) => w * y[i]!) };
}

export function checkTreeOptions(subject: string, maxDepth: number, minSamplesLeaf: number): void {
  if (!(maxDepth >= 1 && (Number.isInteger(maxDepth) || maxDepth === Infinity)))
    throw new ConfigError(subject, "maxDepth", "a whole number >= 1 or Infinity", maxDepth);
  if (!(Number.isInteger(minSamplesLeaf) && minSamplesLeaf >= 1)) throw new ConfigError(subject, "minSamplesLeaf", "a whole number >= 1", minSamplesLeaf);
}
