/** A binary decision tree in flat arrays, and walking it. Node 0 is the root; a node with `feature` -1 is a leaf. */

export interface Tree {
  readonly feature: Int32Array;
  /** Meaning of equality: see `strict`. */
  readonly threshold: Float64Array;
  readonly left: Int32Array;
  readonly right: Int32Array;
  /** What a leaf answers; of an inner node, what it would answer as a leaf. */
  readonly value: Float64Array;
  /** true: x < threshold goes left (xgboost); false: x <= threshold does (scikit-learn). x is compared as float32. */
  readonly strict: boolean;
}

/** A tree under construction. */
export class TreeBuilder {
  readonly feature: number[] = [];
  readonly threshold: number[] = [];
  readonly left: number[] = [];
  readonly right: number[] = [];
  readonly value: number[] = [];

  /** Adds a leaf and returns its number. */
  leaf(value: number): number {
    this.feature.push(-1);
    this.threshold.push(0);
    this.left.push(-1);
    this.right.push(-1);
    return this.value.push(value) - 1;
  }

  split(node: number, feature: number, threshold: number): void {
    this.feature[node] = feature;
    this.threshold[node] = threshold;
  }

  build(strict: boolean): Tree {
    return {
      feature: Int32Array.from(this.feature),
      threshold: Float64Array.from(this.threshold),
      left: Int32Array.from(this.left),
      right: Int32Array.from(this.right),
      value: Float64Array.from(this.value),
      strict,
    };
  }
}

/** Adds scale * (the tree's answer) to each row's entry of `out`. x: [rows * width], float32. */
export function addTree(tree: Tree, x: Float32Array, width: number, out: Float64Array, scale = 1): void {
  const { feature, threshold, left, right, value, strict } = tree;
  for (let row = 0, base = 0; row < out.length; row++, base += width) {
    let node = 0;
    for (let f = feature[0]!; f >= 0; f = feature[node]!) {
      const v = x[base + f]!,
        t = threshold[node]!;
      node = v < t || (v === t && !strict) ? left[node]! : right[node]!;
    }
    out[row]! += scale * value[node]!;
  }
}

/** Rows as one float32 array [rows * width]. */
export function packRows(x: readonly Float64Array[], width: number): Float32Array {
  const packed = new Float32Array(x.length * width);
  for (let row = 0; row < x.length; row++) packed.set(x[row]!, row * width);
  return packed;
}

/** Sums to 1, or stays all 0. */
export function normalised(importance: Float64Array): Float64Array {
  const total = importance.reduce((a, b) => a + b, 0);
  return total > 0 ? importance.map(v => v / total) : importance;
}
