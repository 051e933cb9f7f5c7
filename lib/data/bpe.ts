/** Byte-level byte pair encoding, as GPT-2 (Radford et al. 2019) and CLIP use it: a word is a row of bytes, each byte a printable character, and the pair
 *  of neighbours that was learnt first is merged until no learnt pair is left. A heap keeps that near linear: a word may be a megabyte long. */

import { DataError } from "../errors.js";

/** What CLIP appends to the last symbol of a word, so that "cat" in "cat" and in "category" are two symbols. */
export const endOfWord = "</w>";

export interface BpeModel {
  /** The file or name that errors begin with. */
  readonly source: string;
  /** Symbol -> id. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Pairs of symbols, learnt first comes first. */
  readonly merges: readonly (readonly [string, string])[];
  /** Id of a byte that has no symbol. */
  readonly unknown: number;
}

/** The character of each byte: itself where Latin-1 prints it, otherwise U+0100 and up in order. Vocabularies hold no blanks and no control characters. */
export const byteCharacters: readonly string[] = (() => {
  let next = 0x100;
  const prints = (byte: number): boolean => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(prints(byte) ? byte : next++));
})();

const characterBytes: ReadonlyMap<string, number> = new Map(byteCharacters.map((character, byte) => [character, byte]));

/** The bytes that a symbol stands for; of a symbol with a character that stands for no byte (an added token), its UTF-8. */
export function symbolBytes(symbol: string): Uint8Array {
  const bytes = Array.from(symbol, character => characterBytes.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(symbol) : Uint8Array.from(bytes as number[]);
}

/** The ids of a word, given its UTF-8 bytes (at least one). Throws DataError if a merge names a symbol that the vocabulary lacks, or stands twice. */
export function bytePairEncoder(model: BpeModel): (word: Uint8Array) => number[] {
  const { vocab, unknown } = model;
  const idsOf = (suffix: string): Int32Array => Int32Array.from(byteCharacters, character => vocab.get(character + suffix) ?? unknown);
  const inner = idsOf("");
  const last = idsOf(endOfWord);
  const { ranks, merged, base } = rankMerges(model);
  return word => {
    const end = word.length - 1;
    if (end === 0) return [last[word[0]!]!];
    const ids = new Int32Array(end + 1);
    for (let i = 0; i < end; i++) ids[i] = inner[word[i]!]!;
    ids[end] = last[word[end]!]!;
    return merge(ids, ranks, merged, base);
  };
}

interface Ranks {
  /** left * base + right -> place among the merges. */
  readonly ranks: ReadonlyMap<number, number>;
  /** The id that the merge of a rank makes. */
  readonly merged: Int32Array;
  readonly base: number;
}

function rankMerges({ source, vocab, merges }: BpeModel): Ranks {
  let base = 0;
  for (const id of vocab.values()) base = Math.max(base, id + 1);
  const ranks = new Map<number, number>();
  const merged = new Int32Array(merges.length);
  const idOf = (symbol: string, rank: number): number => {
    const id = vocab.get(symbol);
    if (id === undefined)
      throw new DataError(source, `merge ${rank} takes or makes ${JSON.stringify(symbol)}, which the vocabulary lacks`, { field: "merges" });
    return id;
  };
  for (const [rank, [left, right]] of merges.entries()) {
    const pair = idOf(left, rank) * base + idOf(right, rank);
    if (ranks.has(pair))
      throw new DataError(source, `merges ${ranks.get(pair)} and ${rank} are both ${JSON.stringify(`${left} ${right}`)}`, { field: "merges" });
    ranks.set(pair, rank);
    merged[rank] = idOf(left + right, rank);
  }
  return { ranks, merged, base };
}

/** Merges symbols in place until no pair has a rank: the lowest rank first, of equal ones the leftmost. */
function merge(ids: Int32Array, ranks: ReadonlyMap<number, number>, merged: Int32Array, base: number): number[] {
  const n = ids.length;
  const next = new Int32Array(n); // n: none
  const previous = new Int32Array(n); // -1: none
  for (let i = 0; i < n; i++) [next[i], previous[i]] = [i + 1, i - 1];
  const waiting = new Heap(); // rank * 2^32 + place of the left symbol
  const rankAt = (at: number): number | undefined => (at >= 0 && next[at]! < n ? ranks.get(ids[at]! * base + ids[next[at]!]!) : undefined);
  const push = (at: number): void => {
    const rank = rankAt(at);
    if (rank !== undefined) waiting.push(rank * 2 ** 32 + at);
  };
  for (let i = 0; i + 1 < n; i++) push(i);
  for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
    const rank = Math.floor(key / 2 ** 32);
    const at = key % 2 ** 32;
    if (ids[at]! < 0 || rankAt(at) !== rank) continue; // a neighbour was merged away since
    const taken = next[at]!;
    ids[at] = merged[rank]!;
    ids[taken] = -1;
    next[at] = next[taken]!;
    if (next[at]! < n) previous[next[at]!] = at;
    push(previous[at]!);
    push(at);
  }
  const kept: number[] = [];
  for (let i = 0; i < n; i = next[i]!) kept.push(ids[i]!);
  return kept;
}

/** A binary heap of numbers, the smallest first. */
class Heap {
  readonly #items: number[] = [];

  push(value: number): void {
    const items = this.#items;
    let at = items.length;
    for (items.push(value); at > 0; ) {
      const parent = (at - 1) >> 1;
      if (items[parent]! <= value) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = value;
  }

  pop(): number | undefined {
    const items = this.#items;
    const smallest = items[0];
    const value = items.pop();
    if (value === undefined || items.length === 0) return smallest;
    let at = 0;
    for (let child = 1; child < items.length; child = 2 * at + 1) {
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= value) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = value;
    return smallest;
  }
}
