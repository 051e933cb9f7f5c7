/** Packs buffers with known lifetimes into one arena: bytes that are needed at the same time never lie on each other. The best packing is NP-hard
 *  (dynamic storage allocation); two greedy orders, of which the caller takes the smaller result, stay within a few percent of the live bytes. */

/** Buffer i has `bytes[i]` bytes from instruction `start[i]` to instruction `whole[i]`, and after that the first `kept[i]` of them to instruction `end[i]`,
 *  all included. */
export interface Lifetimes {
  readonly bytes: Float64Array;
  readonly start: Int32Array;
  readonly whole: Int32Array;
  readonly kept: Float64Array;
  readonly end: Int32Array;
}

export interface Packing {
  readonly offsets: Float64Array;
  /** Where the highest buffer ends. */
  readonly bytes: number;
}

const { max } = Math; // a local: looking up a global in every step of the inner loop is what a test runner's context makes slow

/** The smaller of both packings. */
export function pack(lifetimes: Lifetimes): Packing {
  const bySize = packBySize(lifetimes);
  const inOrder = packInOrder(lifetimes);
  return inOrder.bytes < bySize.bytes ? inOrder : bySize;
}

/** Bytes alive at each instruction: their maximum is a lower bound of every packing. */
export function liveBytes({ bytes, start, whole, kept, end }: Lifetimes, instructions: number): Float64Array {
  const live = new Float64Array(instructions + 1);
  for (let i = 0; i < bytes.length; i++) {
    live[start[i]!]! += bytes[i]!;
    live[whole[i]! + 1]! -= bytes[i]! - kept[i]!;
    live[end[i]! + 1]! -= kept[i]!;
  }
  for (let t = 1; t < live.length; t++) live[t]! += live[t - 1]!;
  return live.subarray(0, instructions);
}

/** The largest buffer first, each at the lowest offset that is free during its life. Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by size". */
export function packBySize(lifetimes: Lifetimes): Packing {
  const { bytes, start, whole, kept, end } = lifetimes;
  const count = bytes.length;
  const offsets = new Float64Array(count);
  const lane = lanesOf(lifetimes);
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => bytes[b]! - bytes[a]! || lane[b]! - lane[a]! || start[a]! - start[b]!);
  const placed = new Uint32Array(count); // buffers with an offset, by offset
  const sizeAt = (buffer: number, time: number): number => (time <= whole[buffer]! ? bytes[buffer]! : kept[buffer]!);
  let total = 0;
  for (let n = 0; n < count; n++) {
    const buffer = order[n]!;
    const [from, to, full] = [start[buffer]!, end[buffer]!, whole[buffer]!];
    // Of two buffers alive together, sizes count from when the later one is born: both only shrink after that. Each placed one forbids the offsets between
    // its own minus the size of this one and its own plus its size; as this one has two sizes, those intervals are sorted in two lists.
    const next = (k: number, early: boolean): number => {
      for (; k < n; k++) {
        const other = placed[k]!;
        if (start[other]! > to || end[other]! < from) continue;
        if (max(from, start[other]!) <= full === early) break;
      }
      return k;
    };
    let low = 0; // the lowest offset that is free of all intervals so far
    let early = next(0, true);
    let late = kept[buffer]! > 0 ? next(0, false) : n;
    while (early < n || late < n) {
      const first = late === n || (early < n && offsets[placed[early]!]! - bytes[buffer]! <= offsets[placed[late]!]! - kept[buffer]!);
      const other = placed[first ? early : late]!;
      if (offsets[other]! - (first ? bytes[buffer]! : kept[buffer]!) >= low) break;
      const top = offsets[other]! + sizeAt(other, max(from, start[other]!));
      low = max(low, top);
      if (first) early = next(early + 1, true);
      else late = next(late + 1, false);
    }
    offsets[buffer] = low;
    total = Math.max(total, low + bytes[buffer]!);
    insertByOffset(placed, n, buffer, offsets);
  }
  return { offsets, bytes: total };
}

/** Buffers that shrink, of one size, in as few lanes as hold no two that are whole together: within a lane each finds room on what is kept of the last,
 *  whereas neighbours in time would leave a hole between them that nothing of their size fits. 0 for those that do not shrink. */
function lanesOf({ bytes, start, whole, kept }: Lifetimes): Uint32Array {
  const lanes = new Uint32Array(bytes.length);
  const lastWhole = new Map<number, number[]>();
  const shrinking = Uint32Array.from([...bytes.keys()].filter(i => kept[i]! > 0 && kept[i]! < bytes[i]!)).sort((a, b) => start[a]! - start[b]!);
  for (const i of shrinking) {
    const taken = lastWhole.get(bytes[i]!) ?? [];
    lastWhole.set(bytes[i]!, taken);
    const free = taken.findIndex(time => time < start[i]!);
    const lane = free < 0 ? taken.length : free;
    taken[lane] = whole[i]!;
    lanes[i] = lane;
  }
  return lanes;
}

function insertByOffset(placed: Uint32Array, count: number, buffer: number, offsets: Float64Array): void {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (offsets[placed[middle]!]! <= offsets[buffer]!) low = middle + 1;
    else high = middle;
  }
  placed.copyWithin(low + 1, low, count);
  placed[low] = buffer;
}

/** In order of execution, each buffer in the smallest free block that holds it; blocks of dead buffers are joined with their neighbours. */
export function packInOrder({ bytes, start, whole, kept, end }: Lifetimes): Packing {
  const offsets = new Float64Array(bytes.length);
  const births = Uint32Array.from(bytes.keys()).sort((a, b) => start[a]! - start[b]! || bytes[b]! - bytes[a]!);
  const parts = Array.from(bytes.keys()).flatMap(buffer => [
    { buffer, dies: whole[buffer]!, from: kept[buffer]!, to: bytes[buffer]! },
    { buffer, dies: end[buffer]!, from: 0, to: kept[buffer]! },
  ]);
  const deaths = parts.filter(({ from, to }) => from < to).sort((a, b) => a.dies - b.dies);
  const free = new FreeList();
  let dead = 0;
  for (const buffer of births) {
    for (; deaths[dead]!.dies < start[buffer]!; dead++) {
      const { buffer: gone, from, to } = deaths[dead]!;
      free.give(offsets[gone]! + from, to - from);
    }
    offsets[buffer] = free.take(bytes[buffer]!);
  }
  return { offsets, bytes: free.top };
}

/** Free blocks below `top`, by offset, no two adjacent. */
class FreeList {
  top = 0;
  readonly #from: number[] = [];
  readonly #to: number[] = [];

  /** The offset of `size` bytes, from the smallest block that holds them, else from the top, which a free last block lowers. */
  take(size: number): number {
    let best = -1;
    let spare = Number.POSITIVE_INFINITY;
    for (let k = 0; k < this.#from.length; k++) {
      const left = this.#to[k]! - this.#from[k]! - size;
      if (left >= 0 && left < spare) [best, spare] = [k, left];
    }
    if (best < 0) return this.#grow(size);
    const offset = this.#from[best]!;
    if (spare === 0) this.#remove(best);
    else this.#from[best] = offset + size;
    return offset;
  }

  #grow(size: number): number {
    const last = this.#to.length - 1;
    const offset = last >= 0 && this.#to[last] === this.top ? this.#from[last]! : this.top;
    if (offset < this.top) this.#remove(last);
    this.top = offset + size;
    return offset;
  }

  give(offset: number, size: number): void {
    let at = 0;
    while (at < this.#from.length && this.#from[at]! < offset) at++;
    const joinsLeft = at > 0 && this.#to[at - 1] === offset;
    const joinsRight = this.#from[at] === offset + size;
    if (joinsLeft && joinsRight) {
      this.#to[at - 1] = this.#to[at]!;
      this.#remove(at);
    } else if (joinsLeft) {
      this.#to[at - 1] = offset + size;
    } else if (joinsRight) {
      this.#from[at] = offset;
    } else {
      this.#from.splice(at, 0, offset);
      this.#to.splice(at, 0, offset + size);
    }
  }

  #remove(at: number): void {
    this.#from.splice(at, 1);
    this.#to.splice(at, 1);
  }
}
