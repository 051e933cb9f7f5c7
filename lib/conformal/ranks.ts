/** Ranks among many numbers in constant expected time. Values are sorted by buckets of equal width, which is monotone in floating point, so that a
 *  look-up reads one bucket border and a handful of values; crowded buckets hold rankings of their own. Comparison sorts cost a multiple of that. */

/** Below this many values a bucket is searched directly. */
const crowded = 48;
/** Levels of buckets within buckets; values that still share one then (a thousand scales in one set) are sorted and searched by halves. */
const deepest = 4;

/** A multiset of numbers without NaN. Infinities are values like others, -0 equals +0. */
export class Ranks {
  /** In ascending order. */
  readonly sorted: Float64Array;
  /** Bucket b holds sorted[start[b]] to sorted[start[b + 1] - 1]. */
  readonly #start: Int32Array;
  readonly #inner = new Map<number, Ranks>();
  readonly #low: number;
  readonly #scale: number;
  readonly #last: number;

  constructor(values: Float64Array, depth = 0) {
    const [low, high] = finiteLimits(values);
    const buckets = depth >= deepest || !(high > low) ? 1 : 2 ** Math.ceil(Math.log2(Math.max(1, values.length)));
    this.#low = low / 2; // halves: the width of the widest finite range overflows
    this.#scale = buckets === 1 ? 0 : buckets / (high / 2 - low / 2);
    this.#last = buckets - 1;
    this.#start = new Int32Array(buckets + 1);
    this.sorted = this.#distribute(values);
    this.#sortBuckets(depth);
  }

  get size(): number {
    return this.sorted.length;
  }

  /** How many values are less than `value`. */
  below(value: number): number {
    const bucket = this.#bucket(value);
    let from = this.#start[bucket]!,
      to = this.#start[bucket + 1]!;
    if (to - from > crowded) {
      const inner = this.#inner.get(bucket);
      if (inner) return from + inner.below(value);
    }
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (this.sorted[middle]! < value) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** How many values are `value` or less. */
  atMost(value: number): number {
    const bucket = this.#bucket(value);
    let from = this.#start[bucket]!,
      to = this.#start[bucket + 1]!;
    if (to - from > crowded) {
      const inner = this.#inner.get(bucket);
      if (inner) return from + inner.atMost(value);
    }
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (this.sorted[middle]! <= value) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  #bucket(value: number): number {
    const at = (value / 2 - this.#low) * this.#scale;
    return at >= this.#last ? this.#last : at > 0 ? at | 0 : 0; // NaN, from infinity times zero, is bucket 0 of one
  }

  #distribute(values: Float64Array): Float64Array {
    const start = this.#start,
      home = new Int32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const bucket = this.#bucket(values[i]!);
      home[i] = bucket;
      start[bucket + 1]!++;
    }
    for (let b = 1; b < start.length; b++) start[b]! += start[b - 1]!;
    const next = start.slice(),
      out = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) out[next[home[i]!]!++] = values[i]!;
    return out;
  }

  #sortBuckets(depth: number): void {
    for (let b = 0; b <= this.#last; b++) {
      const from = this.#start[b]!,
        to = this.#start[b + 1]!;
      if (to - from <= crowded) sortFew(this.sorted, from, to);
      else if (this.#last === 0) this.sorted.sort();
      else {
        const inner = new Ranks(this.sorted.subarray(from, to), depth + 1);
        this.sorted.set(inner.sorted, from);
        this.#inner.set(b, inner);
      }
    }
  }
}

function finiteLimits(values: Float64Array): [number, number] {
  let low = Infinity,
    high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value < low && value !== -Infinity) low = value;
    if (value > high && value !== Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

/** Insertion sort of values[from..to). */
function sortFew(values: Float64Array, from: number, to: number): void {
  for (let i = from + 1; i < to; i++) {
    const value = values[i]!;
    let at = i;
    for (; at > from && values[at - 1]! > value; at--) values[at] = values[at - 1]!;
    values[at] = value;
  }
}
