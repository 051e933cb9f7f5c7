/** Grows one Gini tree by exact search, with scikit-learn's rules (Breiman et al. 1984). Nodes sort their rows by rank in linear time: one bucket
 *  pass, then insertion sort over what is almost sorted. */

import type { Random } from "../../util/random.js";
import type { RankedColumn } from "./ranked-columns.js";
import type { Steps } from "./steps.js";
import { type Tree, TreeBuilder } from "./tree.js";

export interface GiniRules {
  readonly maxDepth: number;
  /** Counted in distinct rows, while impurity uses weights. */
  readonly minSamplesLeaf: number;
  /** Features looked at per node: drawn until this many, and one of them not constant in the node. */
  readonly maxFeatures: number;
}

/** Rows carry a code; its weight and weight times label stand in two tables, which are small (and stay in cache) for bootstrap counts. */
export interface CodedRows {
  readonly code: Int32Array;
  readonly weight: Float64Array;
  readonly positive: Float64Array;
}

export interface GrownTree {
  readonly tree: Tree;
  /** Decrease of weighted Gini impurity per feature, not normalised. */
  readonly importance: Float64Array;
  /** Distinct rows per node. */
  readonly samples: Int32Array;
}

const { fround } = Math; // bound once: a sandbox that intercepts globals makes every look-up slow
const nearest = fround(1e-7); // scikit-learn's FEATURE_THRESHOLD: closer neighbours are one value
const smallNode = 40; // below, insertion sort alone is faster than a bucket pass

/** Scratch for nodes of up to `rows` rows; reused from tree to tree. */
export class GiniGrower {
  readonly #columns: readonly RankedColumn[];
  readonly #features: Int32Array;
  readonly #ranks: Int32Array;
  readonly #codes: Int32Array;
  readonly #sortedRanks: Int32Array;
  readonly #sortedCodes: Int32Array;
  readonly #starts: Int32Array;
  // The best split of the node at hand.
  #gain = 0;
  #feature = 0;
  #below = 0;
  #above = 0;

  constructor(columns: readonly RankedColumn[]) {
    this.#columns = columns;
    const rows = columns[0]!.ranks.length;
    this.#features = Int32Array.from(columns.keys());
    [this.#ranks, this.#codes, this.#sortedRanks, this.#sortedCodes] = [0, 1, 2, 3].map(() => new Int32Array(rows)) as [
      Int32Array,
      Int32Array,
      Int32Array,
      Int32Array,
    ];
    this.#starts = new Int32Array(2 * rows + 2);
  }

  /** `rows`: the distinct rows to grow on; their order is changed. Without `random` every node looks at all features, the lowest winning ties. */
  *grow(rows: Int32Array, coded: CodedRows, rules: GiniRules, random?: Random): Steps<GrownTree> {
    const out = new TreeBuilder(),
      samples: number[] = [],
      importance = new Float64Array(this.#columns.length);
    const { weight, positive, code } = coded;
    if (random) for (const i of this.#features.keys()) this.#features[i] = i; // the draw depends on the tree's seed, not on the trees before
    // (start, end, depth, parent, side) of nodes to come; the left child is on top, so nodes are numbered in preorder.
    const stack: [number, number, number, number, 0 | 1][] = [[0, rows.length, 0, -1, 0]];
    for (let next = stack.pop(); next; next = stack.pop()) {
      const [start, end, depth, parent, side] = next;
      yield;
      let total = 0,
        aligned = 0;
      for (let i = start; i < end; i++) {
        const c = code[rows[i]!]!;
        total += weight[c]!;
        aligned += positive[c]!;
      }
      const node = out.leaf(aligned / total);
      samples.push(end - start);
      if (parent >= 0) (side === 0 ? out.left : out.right)[parent] = node;
      const pure = aligned <= 0 || total - aligned <= 1e-12 * total;
      if (pure || depth >= rules.maxDepth || end - start < 2 * rules.minSamplesLeaf || end - start < 2) continue;
      this.#search(rows, start, end, total, aligned, coded, rules, random);
      if (this.#gain < 0) continue;
      const { ranks, values } = this.#columns[this.#feature]!;
      out.split(node, this.#feature, midpoint(values[this.#below]!, values[this.#above]!));
      importance[this.#feature]! += 2 * (this.#gain - (aligned * aligned) / total); // 2 * (sum of p1^2 w over children - that of the node)
      const middle = partition(rows, start, end, ranks, this.#below);
      stack.push([middle, end, depth + 1, node, 1], [start, middle, depth + 1, node, 0]);
    }
    return { tree: out.build(false), importance, samples: Int32Array.from(samples) };
  }

  #search(rows: Int32Array, start: number, end: number, total: number, aligned: number, coded: CodedRows, rules: GiniRules, random?: Random): void {
    this.#gain = -1;
    const features = this.#features;
    let visited = 0,
      constant = 0;
    while (visited < features.length && (visited < rules.maxFeatures || visited === constant)) {
      if (random) {
        const pick = visited + random.integer(features.length - visited),
          chosen = features[pick]!;
        features[pick] = features[visited]!;
        features[visited] = chosen;
      }
      const feature = features[visited++]!;
      if (this.#sort(feature, rows, start, end, coded.code)) this.#scan(feature, end - start, total, aligned, coded, rules.minSamplesLeaf);
      else constant++;
    }
  }

  /** Sorts the node's rows by the feature's rank. false: the feature is constant here. */
  #sort(feature: number, rows: Int32Array, start: number, end: number, code: Int32Array): boolean {
    const { ranks, values } = this.#columns[feature]!;
    const n = end - start,
      keys = this.#ranks,
      codes = this.#codes,
      sortedKeys = this.#sortedRanks,
      sortedCodes = this.#sortedCodes,
      starts = this.#starts;
    let low = 0x7fffffff,
      high = -1;
    for (let i = 0; i < n; i++) {
      const row = rows[start + i]!,
        key = ranks[row]!;
      keys[i] = key;
      codes[i] = code[row]!;
      if (key < low) low = key;
      if (key > high) high = key;
    }
    if (values[high]! <= fround(values[low]! + nearest)) return false;
    if (n < smallNode) {
      sortedKeys.set(keys.subarray(0, n));
      sortedCodes.set(codes.subarray(0, n));
    } else {
      const buckets = n,
        scale = buckets / (high - low + 1);
      starts.fill(0, 0, buckets + 1);
      for (let i = 0; i < n; i++) starts[(((keys[i]! - low) * scale) | 0) + 1]!++;
      for (let b = 0; b < buckets; b++) starts[b + 1]! += starts[b]!;
      for (let i = 0; i < n; i++) {
        const at = starts[((keys[i]! - low) * scale) | 0]!++;
        sortedKeys[at] = keys[i]!;
        sortedCodes[at] = codes[i]!;
      }
    }
    insertionSort(sortedKeys, sortedCodes, n);
    return true;
  }

  /** Looks for a better split between neighbours of different rank. */
  #scan(feature: number, n: number, total: number, aligned: number, coded: CodedRows, minLeaf: number): void {
    const { weight, positive } = coded,
      { values } = this.#columns[feature]!;
    const keys = this.#sortedRanks,
      codes = this.#sortedCodes;
    let left = 0,
      leftAligned = 0,
      best = this.#gain,
      previous = keys[0]!;
    for (let i = 0; i < n; i++) {
      const key = keys[i]!;
      if (key !== previous) {
        if (i >= minLeaf && n - i >= minLeaf) {
          const right = total - left,
            rightAligned = aligned - leftAligned;
          // Least Gini impurity = largest sum of (aligned weight)^2 / weight over both sides; one division.
          const gain = (leftAligned * leftAligned * right + rightAligned * rightAligned * left) / (left * right);
          if (gain > best && values[key]! > fround(values[previous]! + nearest)) {
            best = gain;
            this.#feature = feature;
            this.#below = previous;
            this.#above = key;
          }
        }
        previous = key;
      }
      const c = codes[i]!;
      left += weight[c]!;
      leftAligned += positive[c]!;
    }
    this.#gain = best;
  }
}

function insertionSort(keys: Int32Array, codes: Int32Array, n: number): void {
  for (let i = 1; i < n; i++) {
    const key = keys[i]!;
    if (keys[i - 1]! <= key) continue;
    const c = codes[i]!;
    let j = i;
    do {
      keys[j] = keys[j - 1]!;
      codes[j] = codes[j - 1]!;
      j--;
    } while (j > 0 && keys[j - 1]! > key);
    keys[j] = key;
    codes[j] = c;
  }
}

/** Rows of rank <= `below` first; returns where the others begin. */
function partition(rows: Int32Array, start: number, end: number, ranks: Int32Array, below: number): number {
  let i = start,
    j = end;
  while (i < j) {
    const row = rows[i]!;
    if (ranks[row]! <= below) i++;
    else {
      rows[i] = rows[--j]!;
      rows[j] = row;
    }
  }
  return i;
}

/** In float64, as scikit-learn; where it rounds up to the upper value, the lower one. */
function midpoint(below: number, above: number): number {
  const middle = below / 2 + above / 2;
  return middle === above ? below : middle;
}
