/** The regularised second-order gain of gradient boosting (Chen & Guestrin 2016, equations 5-7, with the L1 term of the released xgboost), and what both
 *  split searches share. */

import type { Random } from "../../util/random.js";
import type { RankedColumn } from "./ranked-columns.js";
import type { Steps } from "./steps.js";
import type { Tree, TreeBuilder } from "./tree.js";

export interface BoostingRules {
  readonly maxDepth: number;
  readonly maxLeaves: number;
  /** L2 and L1 on leaf weights. */
  readonly lambda: number;
  readonly alpha: number;
  /** Least gain that survives pruning. */
  readonly gamma: number;
  /** Least sum of second derivatives in a child. */
  readonly minChildWeight: number;
  /** Features looked at per node. */
  readonly featuresPerNode: number;
}

/** How a tree's splits are searched: a value passed to gradientBoosting. */
export interface SplitSearch {
  readonly name: string;
  prepare(columns: readonly RankedColumn[], weights: Float64Array | undefined): Steps<BoostingGrower>;
}

export interface BoostingGrower {
  /** One tree on first and second derivatives; rows outside a subsample have both 0. Leaf values are not yet scaled by the learning rate. */
  grow(gradient: Float32Array, hessian: Float32Array, rules: BoostingRules, random: Random): Steps<BoostedTree>;
}

export interface BoostedTree {
  readonly tree: Tree;
  /** Leaf of each training row; valid until the next tree is grown. */
  readonly leaf: Int32Array;
  /** Gain per node, 0 at leaves. */
  readonly gain: Float64Array;
}

/** Splits that gain less are rounding (kRtEps of xgboost). */
export const leastGain = 1e-6;

function softThreshold(g: number, alpha: number): number {
  return g > alpha ? g - alpha : g < -alpha ? g + alpha : 0;
}

/** Twice the drop in the objective that the best weight of a leaf brings. */
export function leafGain(g: number, h: number, { lambda, alpha }: BoostingRules): number {
  if (h <= 0) return 0;
  const t = alpha === 0 ? g : softThreshold(g, alpha);
  return (t * t) / (h + lambda);
}

export function leafWeight(g: number, h: number, { lambda, alpha }: BoostingRules): number {
  return h <= 0 ? 0 : -softThreshold(g, alpha) / (h + lambda);
}

/** `count` of `width` features, ascending; all of them without a draw. */
export function drawFeatures(width: number, count: number, random: Random): number[] {
  const features = Array.from({ length: width }, (_, f) => f);
  if (count >= width) return features;
  for (let i = 0; i < count; i++) {
    const pick = i + random.integer(width - i);
    [features[i], features[pick]] = [features[pick]!, features[i]!];
  }
  return features.slice(0, count).sort((a, b) => a - b);
}

/** float32 between two neighbouring values, so that below < result <= above: x < result goes left. */
export function splitPoint(below: number, above: number): number {
  const middle = Math.fround((Math.fround(below) + Math.fround(above)) / 2);
  return middle > below ? middle : above;
}

/** Makes leaves of inner nodes whose children are leaves and whose gain is below gamma, from the bottom up; returns each node's surviving ancestor or self. */
export function prune(tree: TreeBuilder, gain: number[], gamma: number): Int32Array {
  const survivor = Int32Array.from(tree.feature.keys());
  for (let node = tree.feature.length - 1; node >= 0; node--) {
    // Children have higher numbers than their parent, so they are decided already.
    if (tree.feature[node]! < 0 || gain[node]! >= gamma) continue;
    if (tree.feature[tree.left[node]!]! >= 0 || tree.feature[tree.right[node]!]! >= 0) continue;
    survivor[tree.left[node]!] = survivor[tree.right[node]!] = node;
    tree.feature[node] = tree.left[node] = tree.right[node] = -1;
    gain[node] = 0;
  }
  for (let node = 0; node < survivor.length; node++) survivor[node] = survivor[survivor[node]!]!;
  return survivor;
}

/** In float64. */
export function sum(values: Float32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i]!;
  return total;
}
