/** Gradient boosting of the logistic loss (Friedman 2001; second order as in Chen & Guestrin 2016), and boosted random forests as a special case. */

import { ConfigError } from "../../errors.js";
import { Random } from "../../util/random.js";
import { histogramSplits } from "./boosting-histogram.js";
import type { BoostedTree, BoostingRules, SplitSearch } from "./boosting-rules.js";
import { checkTreeOptions } from "./cart.js";
import type { FittedPredictor, PredictorOf } from "./predictor.js";
import { rankColumns } from "./ranked-columns.js";
import { steppedPredictor } from "./steps.js";
import { type Columns, checkRows, constantPredictor, trainingColumns } from "./training-data.js";
import { addTree, normalised, packRows, type Tree } from "./tree.js";
import { sigmoid } from "./vector.js";

export interface GradientBoostingOptions {
  /** Default 100. */
  readonly rounds?: number;
  /** Shrinks every leaf, in (0, 1]. Default 0.1. */
  readonly learningRate?: number;
  /** Default 6. */
  readonly maxDepth?: number;
  /** For the histogram search, which splits the best leaf first. Default: no limit besides maxDepth. */
  readonly maxLeaves?: number;
  /** L2 on leaf weights. Default 1. */
  readonly lambda?: number;
  /** L1 on leaf weights. Default 0. */
  readonly alpha?: number;
  /** Splits that gain less are pruned from the bottom up. Default 0. */
  readonly gamma?: number;
  /** Least sum of p(1 - p) in a child. Default 1. */
  readonly minChildWeight?: number;
  /** Trees per round, averaged. Default 1. */
  readonly parallelTrees?: number;
  /** Share of rows each tree sees, drawn row by row. Default 1. */
  readonly subsample?: number;
  /** Share of features each node looks at, at least one. Default 1. */
  readonly columnsByNode?: number;
  /** Default histogramSplits(); exactSplits reproduces xgboost 1.7.4. */
  readonly splits?: SplitSearch;
}

export interface FittedBoosting extends FittedPredictor {
  /** Their leaves add up to the margin; learning rate included. */
  readonly trees: readonly Tree[];
  /** Log-odds per row. */
  margin(x: readonly Float64Array[]): Float64Array;
}

const { max } = Math; // bound once: a sandbox that intercepts globals makes every look-up slow
const subject = "gradientBoosting";

/** Labels may be numbers in [0, 1]. Margins start at 0 (p = 1/2), as xgboost's with base_score 0.5. `featureImportance`: total gain of a feature's splits. */
export function gradientBoosting(options: GradientBoostingOptions = {}): PredictorOf<FittedBoosting> {
  const { splits = histogramSplits(), rounds = 100, learningRate = 0.1, parallelTrees = 1, subsample = 1, columnsByNode = 1 } = options;
  const rules = { maxDepth: 6, maxLeaves: Infinity, lambda: 1, alpha: 0, gamma: 0, minChildWeight: 1, ...options };
  checkOptions({ ...rules, rounds, learningRate, parallelTrees, subsample, columnsByNode });
  return steppedPredictor(subject, function* (data, { seed = 0, signal }) {
    const training = trainingColumns(subject, data, { fractions: true }),
      { width } = training;
    if (training.single !== undefined) return constant(width, training.single);
    const grower = yield* splits.prepare(yield* rankColumns(subject, training.columns), training.weights);
    const nodeRules: BoostingRules = { ...rules, featuresPerNode: Math.max(1, Math.floor(columnsByNode * width)) };
    const margin = new Float64Array(training.rows),
      trees: Tree[] = [],
      importance = new Float64Array(width);
    for (let round = 0; round < rounds; round++) {
      yield;
      const { gradient, hessian } = derivatives(margin, training);
      for (let t = 0; t < parallelTrees; t++) {
        signal?.throwIfAborted();
        const random = new Random(seed, trees.length);
        const [g, h] = subsample < 1 ? thin(gradient, hessian, subsample, random) : [gradient, hessian];
        const grown = yield* grower.grow(g, h, nodeRules, random);
        trees.push(added(grown, learningRate / parallelTrees, margin, importance));
      }
    }
    return { trees, featureImportance: normalised(importance), margin: x => margins(trees, width, x), predict: x => margins(trees, width, x).map(sigmoid) };
  });
}

/** The tree with its leaves scaled; margins and importance have it in them afterwards. */
function added({ tree, leaf, gain }: BoostedTree, scale: number, margin: Float64Array, importance: Float64Array): Tree {
  const value = tree.value.map(v => v * scale);
  for (let i = 0; i < leaf.length; i++) margin[i]! += value[leaf[i]!]!;
  for (let node = 0; node < gain.length; node++) if (tree.feature[node]! >= 0) importance[tree.feature[node]!]! += gain[node]!;
  return { ...tree, value };
}

function constant(width: number, score: 0 | 1): FittedBoosting {
  const fitted = constantPredictor(subject, width, score);
  return { ...fitted, trees: [], margin: x => fitted.predict(x).map(p => (p === 1 ? Infinity : -Infinity)) };
}

function margins(trees: readonly Tree[], width: number, x: readonly Float64Array[]): Float64Array {
  checkRows(subject, x, width);
  const packed = packRows(x, width),
    out = new Float64Array(x.length);
  for (const tree of trees) addTree(tree, packed, width, out);
  return out;
}

/** Of the log loss with respect to the margin: p - y and p (1 - p). */
function derivatives(margin: Float64Array, { y, weights, rows }: Columns): { gradient: Float32Array; hessian: Float32Array } {
  const gradient = new Float32Array(rows), // as in xgboost and LightGBM; sums are float64
    hessian = new Float32Array(rows);
  for (let i = 0; i < rows; i++) {
    const p = sigmoid(margin[i]!),
      w = weights ? weights[i]! : 1;
    gradient[i] = w * (p - y[i]!);
    hessian[i] = w * max(p * (1 - p), 1e-16);
  }
  return { gradient, hessian };
}

/** Rows left out count nothing, and still find their leaf. */
function thin(gradient: Float32Array, hessian: Float32Array, share: number, random: Random): [Float32Array, Float32Array] {
  const g = gradient.slice(),
    h = hessian.slice();
  for (let i = 0; i < g.length; i++) if (random.uniform() >= share) g[i] = h[i] = 0;
  return [g, h];
}

type Checked = Required<Omit<GradientBoostingOptions, "splits">>;

function checkOptions(o: Checked): void {
  const need = (option: keyof Checked, ok: boolean, expected: string): void => {
    if (!ok) throw new ConfigError(subject, option, expected, o[option]);
  };
  checkTreeOptions(subject, o.maxDepth, 1);
  for (const option of ["rounds", "parallelTrees"] as const) need(option, Number.isInteger(o[option]) && o[option] >= 1, "a whole number >= 1");
  need("maxLeaves", o.maxLeaves >= 2 && (Number.isInteger(o.maxLeaves) || o.maxLeaves === Infinity), "a whole number >= 2 or Infinity");
  for (const option of ["learningRate", "subsample", "columnsByNode"] as const) need(option, o[option] > 0 && o[option] <= 1, "in (0, 1]");
  for (const option of ["lambda", "alpha", "gamma", "minChildWeight"] as const) need(option, o[option] >= 0 && o[option] < Infinity, "a finite number >= 0");
}
