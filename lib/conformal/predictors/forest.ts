/** Random forest (Breiman 2001): bootstrapped Gini trees that look at a few random features per node; the score is the mean of the trees' leaf shares. */

import { ConfigError } from "../../errors.js";
import { Random } from "../../util/random.js";
import { checkTreeOptions } from "./cart.js";
import { type CodedRows, GiniGrower } from "./gini.js";
import type { FittedPredictor, PredictorOf } from "./predictor.js";
import { rankColumns } from "./ranked-columns.js";
import { steppedPredictor } from "./steps.js";
import { type Columns, checkRows, trainingColumns } from "./training-data.js";
import { addTree, normalised, packRows, type Tree } from "./tree.js";

export interface RandomForestOptions {
  /** Default 100. */
  readonly trees?: number;
  /** Default: none; the released code of conformal alignment takes 30. */
  readonly maxDepth?: number;
  /** Least number of distinct rows in a leaf. Default 1. */
  readonly minSamplesLeaf?: number;
  /** Features looked at per node, from their number. Default floor(sqrt(width)), at least 1. */
  readonly maxFeatures?: (width: number) => number;
  /** Rows of tree t, with repetition, each in {0, ..., rows - 1}: to replay another program's bootstrap. Default: `rows` draws by the seed. */
  readonly bootstrap?: (tree: number, rows: number) => ArrayLike<number>;
}

export interface FittedForest extends FittedPredictor {
  readonly trees: readonly Tree[];
}

/** scikit-learn's RandomForestClassifier with its defaults; other random numbers, so equal in distribution. Tree t depends on (seed, t) alone.
 *  `featureImportance`: mean over trees of the normalised decrease in Gini impurity. */
export function randomForest(options: RandomForestOptions = {}): PredictorOf<FittedForest> {
  const { trees: count = 100, maxDepth = Infinity, minSamplesLeaf = 1, maxFeatures = width => Math.max(1, Math.floor(Math.sqrt(width))), bootstrap } = options;
  checkTreeOptions("randomForest", maxDepth, minSamplesLeaf);
  if (!(Number.isInteger(count) && count >= 1)) throw new ConfigError("randomForest", "trees", "a whole number >= 1", count);
  return steppedPredictor("randomForest", function* (data, { seed = 0, signal }) {
    const training = trainingColumns("randomForest", data),
      { width, rows } = training;
    const features = maxFeatures(width);
    if (!(Number.isInteger(features) && features >= 1 && features <= width))
      throw new ConfigError("randomForest", "maxFeatures", `a whole number in [1, ${width}]`, features);
    const grower = new GiniGrower(yield* rankColumns("randomForest", training.columns));
    const importance = new Float64Array(width),
      trees: Tree[] = [];
    for (let t = 0; t < count; t++) {
      signal?.throwIfAborted();
      const random = new Random(seed, t);
      const counts = countRows(bootstrap ? bootstrap(t, rows) : undefined, rows, random);
      yield;
      const inBag = Int32Array.from(counts.keys()).filter(row => counts[row]! > 0);
      const drawn = features < width ? random : undefined;
      const grown = yield* grower.grow(inBag, bootstrapCodes(counts, training), { maxDepth, minSamplesLeaf, maxFeatures: features }, drawn);
      for (const [f, share] of normalised(grown.importance).entries()) importance[f]! += share / count;
      trees.push(grown.tree);
    }
    return { trees, featureImportance: normalised(importance), predict: x => predict(trees, width, x) };
  });
}

function predict(trees: readonly Tree[], width: number, x: readonly Float64Array[]): Float64Array {
  checkRows("randomForest", x, width);
  const packed = packRows(x, width),
    scores = new Float64Array(x.length);
  for (const tree of trees) addTree(tree, packed, width, scores);
  return scores.map(sum => sum / trees.length);
}

/** How often each row is in the bag. */
function countRows(given: ArrayLike<number> | undefined, rows: number, random: Random): Int32Array {
  const counts = new Int32Array(rows);
  for (let i = 0; i < (given?.length ?? rows); i++) {
    const row = given ? given[i]! : random.integer(rows);
    if (!(Number.isInteger(row) && row >= 0 && row < rows)) throw new ConfigError("randomForest", "bootstrap", `rows in {0, ..., ${rows - 1}}`, row);
    counts[row]!++;
  }
  return counts;
}

/** Without weights the code is (count, label), a table of a few entries; with them it is the row. */
function bootstrapCodes(counts: Int32Array, { rows, y, weights }: Columns): CodedRows {
  if (weights) {
    const weight = weights.map((w, i) => w * counts[i]!);
    return { code: Int32Array.from(counts.keys()), weight, positive: weight.map((w, i) => w * y[i]!) };
  }
  let most = 0;
  const code = new Int32Array(rows);
  for (let i = 0; i < rows; i++) {
    code[i] = 2 * counts[i]! + y[i]!;
    if (counts[i]! > most) most = counts[i]!;
  }
  const weight = new Float64Array(2 * most + 2);
  for (let c = 0; c < weight.length; c++) weight[c] = c >> 1;
  return { code, weight, positive: weight.map((w, c) => (c & 1 ? w : 0)) };
}
