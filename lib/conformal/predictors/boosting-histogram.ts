/** Histogram split search, best leaf first (Ke et al. 2017, LightGBM): columns are cut into at most 256 bins of equal weight, a leaf's sums per bin are
 *  built for the smaller child and had by subtraction for the larger. */

import { ConfigError } from "../../errors.js";
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
import { type HistogramSums, histogramSums, stride } from "./histogram-sums.js";
import type { RankedColumn } from "./ranked-columns.js";
import type { Steps } from "./steps.js";
import { TreeBuilder } from "./tree.js";

/** A column's bin per row, and the threshold above each bin but the last. */
export interface BinnedColumn {
  readonly bins: Uint8Array;
  readonly edges: Float64Array;
}

/** bins: at most this many per feature, 2 to 256. */
export function histogramSplits({ bins = 256 }: { readonly bins?: number } = {}): SplitSearch {
  if (!(Number.isInteger(bins) && bins >= 2 && bins <= 256)) throw new ConfigError("histogramSplits", "bins", "a whole number in [2, 256]", bins);
  return {
    name: "histogram",
    *prepare(columns, weights) {
      const binned: BinnedColumn[] = [];
      for (const column of columns) {
        binned.push(binColumn(column, bins, weights));
        yield;
      }
      const grower = new HistogramGrower(binned);
      yield;
      return { grow: (gradient, hessian, rules, random) => grower.grow(gradient, hessian, rules, random) };
    },
  };
}

/** Distinct values are their own bins where they fit; else a bin ends once it holds its share of the weight that is left. */
export function binColumn({ ranks, values }: RankedColumn, most: number, weights?: Float64Array): BinnedColumn {
  const mass = new Float64Array(values.length);
  for (let i = 0; i < ranks.length; i++) mass[ranks[i]!]! += weights ? weights[i]! : 1;
  const binOf = new Uint8Array(values.length),
    edges: number[] = [];
  let left = 0,
    inBin = 0;
  for (let rank = 0; rank < mass.length; rank++) left += mass[rank]!;
  for (let rank = 0; rank < values.length; rank++) {
    binOf[rank] = edges.length;
    inBin += mass[rank]!;
    const binsLeft = most - edges.length;
    if (rank + 1 < values.length && binsLeft > 1 && (values.length <= most || inBin >= left / binsLeft)) {
      edges.push(splitPoint(values[rank]!, values[rank + 1]!));
      left -= inBin;
      inBin = 0;
    }
  }
  const bins = new Uint8Array(ranks.length);
  for (let i = 0; i < ranks.length; i++) bins[i] = binOf[ranks[i]!]!;
  return { bins, edges: Float64Array.from(edges) };
}

interface Sums {
  readonly g: number;
  readonly h: number;
}

/** A leaf of the growing tree; its rows are order[start, end). Without a histogram it stays a leaf. */
interface Leaf {
  readonly node: number;
  readonly start: number;
  readonly end: number;
  readonly depth: number;
  readonly sums: Sums;
  readonly histogram?: Float64Array;
  readonly split?: { readonly gain: number; readonly feature: number; readonly bin: number; readonly left: Sums };
}

class HistogramGrower {
  readonly #columns: readonly BinnedColumn[];
  readonly #sums: HistogramSums;
  readonly #order: Int32Array;
  /** (gradient, hessian) in that order, two float32 in each float64: moving one is moving both. */
  readonly #pairs: Float64Array;
  readonly #spare: Int32Array;
  readonly #sparePairs: Float64Array;
  readonly #leaf: Int32Array;
  readonly #pool: Float64Array[] = [];

  constructor(columns: readonly BinnedColumn[]) {
    const rows = columns[0]!.bins.length,
      sums = histogramSums(rows, Math.ceil(columns.length / 4));
    this.#columns = columns;
    pack(columns, sums.packed);
    this.#sums = sums;
    this.#order = sums.order;
    this.#pairs = new Float64Array(sums.pairs.buffer, sums.pairs.byteOffset, rows);
    [this.#spare, this.#sparePairs, this.#leaf] = [new Int32Array(rows), new Float64Array(rows), new Int32Array(rows)];
  }

  *grow(gradient: Float32Array, hessian: Float32Array, rules: BoostingRules, random: Random): Steps<BoostedTree> {
    const out = new TreeBuilder(),
      gain: number[] = [],
      order = this.#order,
      { pairs } = this.#sums;
    for (let i = 0; i < order.length; i++) {
      order[i] = i;
      pairs[2 * i] = gradient[i]!;
      pairs[2 * i + 1] = hessian[i]!;
    }
    /** A histogram comes with a leaf that may be split. */
    const enter = (start: number, end: number, depth: number, sums: Sums, histogram: Float64Array | undefined): Leaf => {
      gain.push(0);
      const split = histogram && this.#search(sums, histogram, rules, random);
      if (histogram && !split) this.#pool.push(histogram);
      return { node: out.leaf(0), start, end, depth, sums, ...(histogram && split && { histogram, split }) };
    };
    const leaves: Leaf[] = [enter(0, order.length, 0, { g: sum(gradient), h: sum(hessian) }, this.#build(0, order.length))];
    for (let at = best(leaves); at >= 0 && leaves.length < rules.maxLeaves; at = best(leaves)) {
      yield;
      const parent = leaves[at]!,
        { feature, bin, left, gain: gained } = parent.split!;
      const middle = this.#partition(parent, feature, bin),
        right = { g: parent.sums.g - left.g, h: parent.sums.h - left.h };
      out.split(parent.node, feature, this.#columns[feature]!.edges[bin]!);
      gain[parent.node] = gained;
      const deeper = parent.depth + 1 < rules.maxDepth && leaves.length + 1 < rules.maxLeaves;
      if (!deeper) this.#pool.push(parent.histogram!);
      const histograms = deeper ? this.#children(parent, middle) : ([undefined, undefined] as const);
      leaves[at] = enter(parent.start, middle, parent.depth + 1, left, histograms[0]);
      leaves.push(enter(middle, parent.end, parent.depth + 1, right, histograms[1]));
      out.left[parent.node] = leaves[at]!.node;
      out.right[parent.node] = leaves.at(-1)!.node;
    }
    for (const { histogram } of leaves) if (histogram) this.#pool.push(histogram);
    return this.#finish(out, gain, leaves, rules);
  }

  /** Prunes, and gives every leaf its weight from sums over its own rows: those of histograms have been through subtractions. */
  #finish(out: TreeBuilder, gain: number[], leaves: readonly Leaf[], rules: BoostingRules): BoostedTree {
    const survivor = prune(out, gain, rules.gamma),
      leaf = this.#leaf,
      { pairs } = this.#sums,
      g = new Float64Array(gain.length),
      h = new Float64Array(gain.length);
    for (const { node, start, end } of leaves) {
      const last = survivor[node]!;
      for (let i = start; i < end; i++) {
        leaf[this.#order[i]!] = last;
        g[last]! += pairs[2 * i]!;
        h[last]! += pairs[2 * i + 1]!;
      }
    }
    for (let node = 0; node < gain.length; node++) out.value[node] = leafWeight(g[node]!, h[node]!, rules);
    return { tree: out.build(true), leaf, gain: Float64Array.from(gain) };
  }

  /** Histograms of both children; the parent's becomes the larger one's. */
  #children(parent: Leaf, middle: number): readonly [Float64Array, Float64Array] {
    const leftSmaller = middle - parent.start <= parent.end - middle;
    const small = leftSmaller ? this.#build(parent.start, middle) : this.#build(middle, parent.end);
    const large = parent.histogram!;
    for (let i = 0; i < large.length; i++) large[i]! -= small[i]!;
    return leftSmaller ? [small, large] : [large, small];
  }

  #build(start: number, end: number): Float64Array {
    const sums = this.#sums.sum(start, end),
      histogram = this.#pool.pop() ?? new Float64Array(sums.length);
    histogram.set(sums);
    return histogram;
  }

  #search({ g, h }: Sums, histogram: Float64Array, rules: BoostingRules, random: Random): Leaf["split"] {
    const root = leafGain(g, h, rules),
      { lambda, alpha, minChildWeight } = rules;
    let bestGain = leastGain,
      feature = -1,
      bin = 0,
      bestG = 0,
      bestH = 0;
    for (const f of drawFeatures(this.#columns.length, rules.featuresPerNode, random)) {
      const last = this.#columns[f]!.edges.length;
      for (let b = 0, at = f * stride, leftG = 0, leftH = 0; b < last; b++, at += 2) {
        leftG += histogram[at]!;
        leftH += histogram[at + 1]!;
        if (leftH < minChildWeight || leftH <= 0) continue;
        const rightG = g - leftG,
          rightH = h - leftH;
        if (rightH < minChildWeight || rightH <= 0) break;
        const gain =
          (alpha === 0
            ? (leftG * leftG * (rightH + lambda) + rightG * rightG * (leftH + lambda)) / ((leftH + lambda) * (rightH + lambda)) // one division
            : leafGain(leftG, leftH, rules) + leafGain(rightG, rightH, rules)) - root;
        if (gain > bestGain) [bestGain, feature, bin, bestG, bestH] = [gain, f, b, leftG, leftH];
      }
    }
    return feature < 0 ? undefined : { gain: bestGain, feature, bin, left: { g: bestG, h: bestH } };
  }

  /** Stable, so that row order, and with it every sum, does not depend on the tree's shape above. */
  #partition({ start, end }: Leaf, feature: number, bin: number): number {
    const { bins } = this.#columns[feature]!,
      [order, pairs] = [this.#order, this.#pairs],
      [spare, sparePairs] = [this.#spare, this.#sparePairs];
    let left = start,
      right = 0;
    for (let i = start; i < end; i++) {
      const row = order[i]!,
        stays = (bins[row]! - bin - 1) >>> 31; // 1 where the row's bin is <= bin; a branch here is mispredicted too often
      order[left] = spare[right] = row;
      pairs[left] = sparePairs[right] = pairs[i]!;
      left += stays;
      right += 1 - stays;
    }
    order.set(spare.subarray(0, right), left);
    pairs.set(sparePairs.subarray(0, right), left);
    return left;
  }
}

/** Row by row, the bins of four columns to a word, lowest byte first. */
function pack(columns: readonly BinnedColumn[], packed: Uint32Array): void {
  const quads = Math.ceil(columns.length / 4);
  for (const [f, { bins }] of columns.entries()) for (let i = 0, at = f >> 2; i < bins.length; i++, at += quads) packed[at]! |= bins[i]! << (8 * (f & 3));
}

/** Index of the leaf to split next, -1 for none. */
function best(leaves: readonly Leaf[]): number {
  let at = -1;
  for (let i = 0; i < leaves.length; i++) if (leaves[i]!.split && (at < 0 || leaves[i]!.split!.gain > leaves[at]!.split!.gain)) at = i;
  return at;
}
