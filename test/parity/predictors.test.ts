/** Predictors against scikit-learn 1.9.1 and xgboost 1.7.4, and the whole way from features to selection. */

import fs from "node:fs";
import path from "node:path";
import { areaUnderRoc } from "../../lib/conformal/metrics-ranking.js";
import { gradientBoosting } from "../../lib/conformal/predictors/boosting.js";
import { exactSplits } from "../../lib/conformal/predictors/boosting-exact.js";
import { cart } from "../../lib/conformal/predictors/cart.js";
import { randomForest } from "../../lib/conformal/predictors/forest.js";
import { logisticRegression } from "../../lib/conformal/predictors/logistic.js";
import type { Tree } from "../../lib/conformal/predictors/tree.js";
import { describeSets } from "../support/goldens.js";

type Rows = readonly (readonly number[])[];

const rows = (x: Rows): Float64Array[] => x.map(row => Float64Array.from(row));
const read = <T>(folder: string, name: string): T => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")) as T;

/** Largest |actual - expected|; NaN where one is. */
function distance(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i]! - expected[i]!);
    if (!(off <= worst)) worst = off;
  }
  return worst;
}

interface Logistic {
  readonly name: string;
  readonly C: number;
  readonly sample_weight: readonly number[] | null;
  readonly X: Rows;
  readonly y: readonly number[];
  readonly X_test: Rows;
  readonly coef: readonly number[];
  readonly intercept: number;
  readonly proba_test: readonly number[];
  readonly sklearn_default_coef: readonly number[];
  readonly sklearn_default_intercept: number;
  readonly sklearn_default_proba_test: readonly number[];
}

interface GoldenTree {
  readonly feature: readonly number[];
  readonly threshold: readonly number[];
  readonly left: readonly number[];
  readonly right: readonly number[];
  readonly p1: readonly number[];
  readonly n: readonly number[];
}

interface Trees {
  readonly trees: readonly {
    name: string;
    max_depth: number;
    min_samples_leaf: number;
    X: Rows;
    y: number[];
    X_test: Rows;
    tree: GoldenTree;
    proba_test: number[];
  }[];
  readonly forests: readonly {
    name: string;
    n_trees: number;
    max_depth: number;
    min_samples_leaf: number;
    X: Rows;
    y: number[];
    X_test: Rows;
    bootstrap_indices: number[][];
    trees: GoldenTree[];
    tree_proba_test: number[][];
    proba_test: number[];
  }[];
  readonly forest_statistical: {
    X: Rows;
    y: number[];
    X_test: Rows;
    y_test: number[];
    auc_mean: number;
    auc_sd: number;
    proba_mean: number[];
    proba_sd_across_seeds_mean: number;
  };
}

interface XgbNode {
  readonly nodeid: number;
  readonly split?: string;
  readonly split_condition?: number;
  readonly yes?: number;
  readonly gain?: number;
  readonly leaf?: number;
  readonly children?: readonly XgbNode[];
}

interface Xgboost {
  readonly cases: readonly {
    name: string;
    params: Readonly<Record<string, number>>;
    rounds: number;
    X: Rows;
    y: number[];
    X_test: Rows;
    trees: XgbNode[];
    margin_test: number[];
    proba_test: number[];
  }[];
  readonly statistical: {
    X: Rows;
    y: number[];
    X_test: Rows;
    y_test: number[];
    proba_mean: number[];
    proba_sd_across_seeds_mean: number;
    auc_mean: number;
    auc_sd: number;
  };
}

function expectTree(actual: Tree, expected: GoldenTree): void {
  expect(Array.from(actual.feature, f => (f < 0 ? -2 : f))).toEqual(expected.feature);
  expect(Array.from(actual.left)).toEqual(expected.left);
  expect(Array.from(actual.right)).toEqual(expected.right);
  expect(
    distance(
      Array.from(actual.threshold, (t, i) => (actual.feature[i]! < 0 ? -2 : t)),
      expected.threshold,
    ),
  ).toBeLessThanOrEqual(1e-12);
  expect(distance(actual.value, expected.p1)).toBeLessThanOrEqual(1e-12);
}

/** Nodes are numbered by depth in xgboost and may be missing after pruning, so both trees are walked. */
function expectXgbTree(actual: Tree, node: XgbNode, at = 0): void {
  if (node.leaf !== undefined) {
    expect(actual.feature[at]).toBe(-1);
    expect(Math.abs(actual.value[at]! - node.leaf)).toBeLessThanOrEqual(5e-6);
    return;
  }
  expect(`f${actual.feature[at]}`).toBe(node.split);
  expect(Math.abs(actual.threshold[at]! - node.split_condition!)).toBeLessThanOrEqual(5e-6);
  const [yes, no] = [node.children!.find(c => c.nodeid === node.yes)!, node.children!.find(c => c.nodeid !== node.yes)!];
  expectXgbTree(actual, yes, actual.left[at]!);
  expectXgbTree(actual, no, actual.right[at]!);
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

describeSets("conformal", folder => {
  describe.each(read<{ cases: Logistic[] }>(folder, "logistic.json").cases)("logistic $name", golden => {
    const data = { x: rows(golden.X), y: Float64Array.from(golden.y), ...(golden.sample_weight && { weights: Float64Array.from(golden.sample_weight) }) };
    const fitted = logisticRegression({ c: golden.C }).fit(data);
    const proba = fitted.predict(rows(golden.X_test));

    test("the optimum: coefficients to 1e-6 relative, probabilities to 1e-7", () => {
      for (const [f, w] of golden.coef.entries()) expect(Math.abs(fitted.coefficients[f]! - w)).toBeLessThanOrEqual(1e-6 * Math.abs(w));
      expect(Math.abs(fitted.intercept - golden.intercept)).toBeLessThanOrEqual(1e-6 * Math.abs(golden.intercept));
      expect(distance(proba, golden.proba_test)).toBeLessThanOrEqual(1e-7);
    });

    test("scikit-learn's defaults, which stop early, to 2e-3", () => {
      expect(distance([...fitted.coefficients, fitted.intercept], [...golden.sklearn_default_coef, golden.sklearn_default_intercept])).toBeLessThanOrEqual(
        2e-3,
      );
      expect(distance(proba, golden.sklearn_default_proba_test)).toBeLessThanOrEqual(2e-3);
    });
  });

  const trees = read<Trees>(folder, "trees.json");
  test.each(trees.trees)("cart $name: structure, thresholds, leaves, rows per node", golden => {
    const fitted = cart({ maxDepth: golden.max_depth, minSamplesLeaf: golden.min_samples_leaf }).fit({ x: rows(golden.X), y: Float64Array.from(golden.y) });
    expectTree(fitted.tree, golden.tree);
    expect(Array.from(fitted.samples)).toEqual(golden.tree.n);
    expect(distance(fitted.predict(rows(golden.X_test)), golden.proba_test)).toBeLessThanOrEqual(1e-12);
  });

  test.each(trees.forests)("forest $name: every tree on the stored bootstrap", golden => {
    const fitted = randomForest({
      trees: golden.n_trees,
      maxDepth: golden.max_depth,
      minSamplesLeaf: golden.min_samples_leaf,
      maxFeatures: width => width,
      bootstrap: t => golden.bootstrap_indices[t]!,
    }).fit({ x: rows(golden.X), y: Float64Array.from(golden.y) });
    for (const [t, tree] of golden.trees.entries()) expectTree(fitted.trees[t]!, tree);
    expect(distance(fitted.predict(rows(golden.X_test)), golden.proba_test)).toBeLessThanOrEqual(1e-12);
  });

  test("forest of the paper (100 trees, depth 30): AUC within 3 sd + 0.01, and the mean score of every row", () => {
    const { X, y, X_test, y_test, auc_mean, auc_sd, proba_mean, proba_sd_across_seeds_mean } = trees.forest_statistical;
    const seeds = [1, 2, 3, 4, 5];
    const scores = seeds.map(seed =>
      randomForest({ maxDepth: 30 })
        .fit({ x: rows(X), y: Float64Array.from(y) }, { seed })
        .predict(rows(X_test)),
    );
    for (const s of scores) expect(Math.abs(areaUnderRoc(s, Float64Array.from(y_test)) - auc_mean)).toBeLessThanOrEqual(3 * auc_sd + 0.01);
    // Both means have error: ours sd / sqrt(5), the stored one sd / sqrt(10); 200 rows of which the worst is looked at, and sd differs by row.
    const off = proba_mean.map((p, i) => mean(scores.map(s => s[i]!)) - p);
    expect(Math.max(...off.map(Math.abs))).toBeLessThanOrEqual(5 * proba_sd_across_seeds_mean * Math.sqrt(1 / 5 + 1 / 10));
    expect(Math.abs(mean(off))).toBeLessThanOrEqual(0.005);
  });

  const xgboost = read<Xgboost>(folder, "xgboost.json");
  test.each(xgboost.cases)("xgboost $name: trees, margins and probabilities to 5e-6", golden => {
    const p = golden.params;
    const fitted = gradientBoosting({
      rounds: golden.rounds,
      learningRate: p.eta!,
      maxDepth: p.max_depth!,
      lambda: p.reg_lambda!,
      alpha: p.alpha!,
      gamma: p.gamma!,
      minChildWeight: p.min_child_weight!,
      parallelTrees: p.num_parallel_tree ?? 1,
      splits: exactSplits,
    }).fit({ x: rows(golden.X), y: Float64Array.from(golden.y) });
    for (const [t, tree] of golden.trees.entries()) expectXgbTree(fitted.trees[t]!, tree);
    expect(distance(fitted.margin(rows(golden.X_test)), golden.margin_test)).toBeLessThanOrEqual(5e-6);
    expect(distance(fitted.predict(rows(golden.X_test)), golden.proba_test)).toBeLessThanOrEqual(5e-6);
  });

  test("xgboost's boosted forest with sampling, as the paper sets it: AUC within 3 sd + 0.01", () => {
    const { X, y, X_test, y_test, auc_mean, auc_sd, proba_mean, proba_sd_across_seeds_mean } = xgboost.statistical;
    const predictor = gradientBoosting({
      rounds: 1,
      parallelTrees: 100,
      subsample: 0.9,
      columnsByNode: 0.2,
      learningRate: 1,
      lambda: 1e-5,
      splits: exactSplits,
    });
    const seeds = [1, 2, 3, 4, 5];
    const scores = seeds.map(seed => predictor.fit({ x: rows(X), y: Float64Array.from(y) }, { seed }).predict(rows(X_test)));
    for (const s of scores) expect(Math.abs(areaUnderRoc(s, Float64Array.from(y_test)) - auc_mean)).toBeLessThanOrEqual(3 * auc_sd + 0.01);
    const off = proba_mean.map((p, i) => mean(scores.map(s => s[i]!)) - p);
    expect(Math.max(...off.map(Math.abs))).toBeLessThanOrEqual(5 * proba_sd_across_seeds_mean * Math.sqrt(1 / 5 + 1 / 10));
  });
});
