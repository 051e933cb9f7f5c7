/** Packs buffers with known lifetimes into one arena: two that are alive at the same time never share a byte. The best packing is NP-hard
 *  (dynamic storage allocation); two greedy orders, of which the caller takes the smaller result, stay within a few percent of the live bytes. */

/** Buffer i has `bytes[i]` bytes and lives from instruction `start[i]` to instruction `end[i]`, both included. */
export interface Lifetimes {
  readonly bytes: Float64Array;
  readonly start: Int32Array;
  readonly end: Int32Array;
}

export interface Packing {
  readonly offsets: Float64Array;
  /** Where the highest buffer ends. */
  readonly bytes: number;
}

/** The smaller of both packings. */
export function pack(lifetimes: Lifetimes): Packing {
  const bySize = packBySize(lifetimes);
  const inOrder = packInOrder(lifetimes);
  return inOrder.bytes < bySize.bytes ? inOrder : bySize;
}

/** Bytes alive at each instruction: their maximum is a lower bound of every packing. */
export function liveBytes({ bytes, start, end }: Lifetimes, instructions: number): Float64Array {
  const live = new Float64Array(instructions + 1);
  for (let i = 0; i < bytes.length; i++) {
    live[start[i]!]! += bytes[i]!;
    live[end[i]! + 1]! -= bytes[i]!;
  }
  for (let t = 1; t < live.length; t++) live[t]! += live[t - 1]!;
  return live.subarray(0, instructions);
}

/** The largest buffer first, each at the lowest offset that is free during its life. Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by size". */
export function packBySize({ bytes, start, end }: Lifetimes): Packing {
  const count = bytes.length;
  const offsets = new Float64Array(count);
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => bytes[b]! - bytes[a]! || start[a]! - start[b]!);
  const placed = new Uint32Array(count); // buffers with an offset, by offset
  let total = 0;
  for (let n = 0; n < count; n++) {
    const buffer = order[n]!;
    const size = bytes[buffer]!;
    const from = start[buffer]!;
    const to = end[buffer]!;
    let low = 0; // end of what is taken so far
    for (let k = 0; k < n; k++) {
      const other = placed[k]!;
      if (start[other]! > to || end[other]! < from) continue;
      if (offsets[other]! - low >= size) break;
      const top = offsets[other]! + bytes[other]!;
      if (top > low) low = top;
    }
    offsets[buffer] = low;
    total = Math.max(total, low + size);
    insertByOffset(placed, n, buffer, offsets);
  }
  return { offsets, bytes: total };
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
export function packInOrder({ bytes, start, end }: Lifetimes): Packing {
  const offsets = new Float64Array(bytes.length);
  const births = Uint32Array.from(bytes.keys()).sort((a, b) => start[a]! - start[b]! || bytes[b]! - bytes[a]!);
  const deaths = Uint32Array.from(bytes.keys()).sort((a, b) => end[a]! - end[b]!);
  const free = new FreeList();
  let dead = 0;
  for (const buffer of births) {
    for (; end[deaths[dead]!]! < start[buffer]!; dead++) free.give(offsets[deaths[dead]!]!, bytes[deaths[dead]!]!);
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
