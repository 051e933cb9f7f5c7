/** Small CLIP vocabularies: the 256 byte symbols, the same at the end of a word, what merges make, start and end. */

import { byteCharacters, endOfWord } from "../../lib/data/bpe.js";
import type { TokenizerData } from "../../lib/data/tokenizer-files.js";

export function smallVocabulary(merges: readonly (readonly [string, string])[]): TokenizerData & { readonly vocab: ReadonlyMap<string, number> } {
  const symbols = [...byteCharacters, ...byteCharacters.map(c => c + endOfWord), ...merges.map(pair => pair.join("")), "<|startoftext|>", "<|endoftext|>"];
  return { source: "small", vocab: new Map([...new Set(symbols)].map((symbol, id) => [symbol, id])), merges };
}

/** Pairs as they would be learnt from a few words: every pair is of symbols that exist by then. */
export const englishMerges: readonly (readonly [string, string])[] = [
  ["i", "n"],
  ["t", "h"],
  ["th", "e</w>"],
  ["in", "g</w>"],
  ["a", "n"],
  ["an", "d</w>"],
  ["c", "a"],
  ["ca", "t</w>"],
  ["'", "s</w>"],
  ["a", "a"],
  ["aa", "aa"],
  ["aa", "a</w>"],
];
