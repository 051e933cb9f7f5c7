/** Ranks among many numbers in constant expected time. Values are sorted by buckets of equal width, which is monotone in floating point, so that a
 *  look-up reads one bucket border and a few values; crowded buckets hold rankings of their own. A comparison sort costs a multiple of that. */

/** Up to this many values a bucket is sorted by insertion and searched by halves. */
const crowded = 48;
/** Levels of buckets within buckets; values that still share one (thousands of scales in one set) are sorted as a whole and searched by halves. */
const deepest = 4;
/** Look-ups whose memory is touched before any of them is resolved: misses overlap, where a loop of searches would wait for each. */
const block = 512;

/** A multiset of numbers without NaN. Infinities are values like others, -0 equals +0. */
export class Ranks {
  /** In ascending order. */
  readonly sorted: Float64Array;
  /** Bucket b holds sorted[start[b]] to sorted[start[b + 1] - 1]. */
  readonly #start: Int32Array;
  readonly #inner = new Map<number, Ranks>();
  readonly #low: number;
  readonly #scale: number;

  constructor(values: Float64Array, depth = 0) {
    const [low, high] = finiteLimits(values);
    const buckets = depth >= deepest || !(high > low) ? 1 : 2 ** Math.ceil(Math.log2(Math.max(1, values.length / 2)));
    this.#low = low / 2; // halves: the width of the widest finite range overflows
    this.#scale = buckets === 1 ? 0 : buckets / (high / 2 - low / 2);
    this.#start = new Int32Array(buckets + 1);
    this.sorted = this.#distribute(values);
    this.#sortBuckets(depth);
  }

  get size(): number {
    return this.sorted.length;
  }

  /** How many values are less than `value`. */
  below(value: number): number {
    const bucket = bucketOf(value, this.#low, this.#scale, this.#start.length - 2);
    return this.#search(bucket, value, false);
  }

  /** How many values are `value` or less. */
  atMost(value: number): number {
    const bucket = bucketOf(value, this.#low, this.#scale, this.#start.length - 2);
    return this.#search(bucket, value, true);
  }

  /** below() of each, or atMost() with `orEqual`. */
  counts(values: Float64Array, orEqual = false): Int32Array {
    const { sorted } = this,
      [start, low, scale, last] = [this.#start, this.#low, this.#scale, this.#start.length - 2];
    const out = new Int32Array(values.length),
      buckets = new Int32Array(block);
    let touched = 0;
    for (let base = 0; base < values.length; base += block) {
      const many = Math.min(block, values.length - base);
      for (let i = 0; i < many; i++) {
        const bucket = bucketOf(values[base + i]!, low, scale, last);
        buckets[i] = bucket;
        out[base + i] = start[bucket]!;
      }
      for (let i = 0; i < many; i++) touched += sorted[out[base + i]!]! > 0 ? 1 : 0;
      for (let i = 0; i < many; i++) {
        const value = values[base + i]!,
          end = start[buckets[i]! + 1]!;
        let at = out[base + i]!;
        if (end - at > crowded) at = this.#search(buckets[i]!, value, orEqual);
        else while (at < end && (sorted[at]! < value || (orEqual && sorted[at] === value))) at++;
        out[base + i] = at;
      }
    }
    return touched < 0 ? new Int32Array() : out; // never: it keeps the touching loop alive
  }

  #search(bucket: number, value: number, orEqual: boolean): number {
    const { sorted } = this;
    let from = this.#start[bucket]!,
      to = this.#start[bucket + 1]!;
    const inner = to - from > crowded ? this.#inner.get(bucket) : undefined;
    if (inner) return from + (orEqual ? inner.atMost(value) : inner.below(value));
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (sorted[middle]! < value || (orEqual && sorted[middle] === value)) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  #distribute(values: Float64Array): Float64Array {
    const [start, low, scale, last] = [this.#start, this.#low, this.#scale, this.#start.length - 2];
    const home = new Int32Array(values.length),
      out = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const bucket = bucketOf(values[i]!, low, scale, last);
      home[i] = bucket;
      start[bucket + 1]!++;
    }
    for (let b = 1; b < start.length; b++) start[b]! += start[b - 1]!;
    const next = start.slice();
    for (let i = 0; i < values.length; i++) out[next[home[i]!]!++] = values[i]!;
    return out;
  }

  #sortBuckets(depth: number): void {
    const { sorted } = this,
      start = this.#start;
    for (let b = 0; b + 1 < start.length; b++) {
      const from = start[b]!,
        to = start[b + 1]!;
      if (to - from <= crowded) sortFew(sorted, from, to);
      else if (start.length === 2) sorted.sort();
      else {
        const inner = new Ranks(sorted.subarray(from, to), depth + 1);
        sorted.set(inner.sorted, from);
        this.#inner.set(b, inner);
      }
    }
  }
}

/** Infinite and distant values go to the outermost buckets; NaN, from infinity times a scale of zero, to bucket 0 of one. */
function bucketOf(value: number, low: number, scale: number, last: number): number {
  const at = (value / 2 - low) * scale;
  return at >= last ? last : at > 0 ? at | 0 : 0;
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
