/** Exact greedy split search, level by level over presorted columns: xgboost 1.7.4's `exact`, down to its order of ties. For small data and for
 *  comparison; the histogram search is the fast one. */

import type { Random } from "../../util/random.js";
import {
  type BoostedTree,
  type BoostingRules,
  drawFeatures,
  leafGain,
  leafWeight,
  leastGain,
  prune,
  type SplitSearch,
  splitPoint,
  sum,
} from "./boosting-rules.js";
import type { RankedColumn } from "./ranked-columns.js";
import type { Steps } from "./steps.js";
import { TreeBuilder } from "./tree.js";

export const exactSplits: SplitSearch = {
  name: "exact",
  *prepare(columns) {
    return { grow: (gradient, hessian, rules, random) => grow(columns, gradient, hessian, rules, random) };
  },
};

/** A node of the level at hand. */
interface OpenNode {
  readonly node: number;
  readonly g: number;
  readonly h: number;
  readonly root: number;
  readonly allowed: ReadonlySet<number>;
  gain: number;
  feature: number;
  /** Ranks on both sides of the split. */
  below: number;
  above: number;
  // Running sums over the rows above the candidate, and the rank last seen.
  sumG: number;
  sumH: number;
  last: number;
}

function* grow(columns: readonly RankedColumn[], gradient: Float32Array, hessian: Float32Array, rules: BoostingRules, random: Random): Steps<BoostedTree> {
  const rows = gradient.length,
    out = new TreeBuilder(),
    gain: number[] = [];
  const leaf = new Int32Array(rows); // node of each row
  const slot = new Int32Array(rows); // index into `open`, or -1
  let open: OpenNode[] = [];
  const enter = (g: number, h: number): number => {
    const node = out.leaf(leafWeight(g, h, rules));
    gain.push(0);
    open.push({
      ...{ node, g, h, root: leafGain(g, h, rules), allowed: new Set(drawFeatures(columns.length, rules.featuresPerNode, random)) },
      ...{ gain: 0, feature: -1, below: 0, above: 0, sumG: 0, sumH: 0, last: -1 },
    });
    return node;
  };
  enter(sum(gradient), sum(hessian));
  for (let depth = 0; depth < rules.maxDepth && open.length > 0; depth++) {
    for (const [f, column] of columns.entries()) {
      yield;
      scan(column, f, open, slot, gradient, hessian, rules);
    }
    const level = open;
    open = [];
    const children = level.map(parent => {
      if (parent.gain <= leastGain) return undefined;
      const { values, ranks } = columns[parent.feature]!;
      out.split(parent.node, parent.feature, splitPoint(values[parent.below]!, values[parent.above]!));
      gain[parent.node] = parent.gain;
      return { ranks, below: parent.below, left: { g: 0, h: 0 }, right: { g: 0, h: 0 }, first: -1 };
    });
    for (let row = 0; row < rows; row++) {
      const c = slot[row]! >= 0 ? children[slot[row]!] : undefined;
      if (!c) continue;
      const side = c.ranks[row]! <= c.below ? c.left : c.right;
      side.g += gradient[row]!;
      side.h += hessian[row]!;
    }
    for (const [i, c] of children.entries()) {
      if (!c) continue;
      c.first = open.length;
      out.left[level[i]!.node] = enter(c.left.g, c.left.h);
      out.right[level[i]!.node] = enter(c.right.g, c.right.h);
    }
    for (let row = 0; row < rows; row++) {
      const c = slot[row]! >= 0 ? children[slot[row]!] : undefined;
      slot[row] = c ? c.first + (c.ranks[row]! <= c.below ? 0 : 1) : -1;
      if (c) leaf[row] = open[slot[row]!]!.node;
    }
  }
  const survivor = prune(out, gain, rules.gamma);
  return { tree: out.build(true), leaf: leaf.map(node => survivor[node]!), gain: Float64Array.from(gain) };
}

/** From the largest value down, as xgboost scans dense columns; on equal gain the split seen first stays. */
function scan(column: RankedColumn, feature: number, open: OpenNode[], slot: Int32Array, gradient: Float32Array, hessian: Float32Array, rules: BoostingRules) {
  const { order, ranks } = column;
  for (const node of open) {
    node.sumG = node.sumH = 0;
    node.last = -1;
  }
  for (let i = order.length - 1; i >= 0; i--) {
    const row = order[i]!,
      node = slot[row]! >= 0 ? open[slot[row]!]! : undefined;
    if (!node?.allowed.has(feature) || (gradient[row] === 0 && hessian[row] === 0)) continue;
    const rank = ranks[row]!;
    if (node.last >= 0 && rank !== node.last) {
      const leftG = node.g - node.sumG,
        leftH = node.h - node.sumH;
      if (node.sumH >= rules.minChildWeight && leftH >= rules.minChildWeight) {
        const gain = leafGain(leftG, leftH, rules) + leafGain(node.sumG, node.sumH, rules) - node.root;
        if (gain > node.gain) Object.assign(node, { gain, feature, below: rank, above: node.last });
      }
    }
    node.sumG += gradient[row]!;
    node.sumH += hessian[row]!;
    node.last = rank;
  }
}
