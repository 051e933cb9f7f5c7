/** Prompts as numbers: every word that occurs in a concept name has an id, a prompt is `promptLength` ids, 0 where there is no word. */

import { DataError } from "../../lib/errors.js";

/** The longest concept has eight words ("face with open eyes and hand over mouth"). */
export const promptLength = 8;

export class Vocabulary {
  readonly #ids: ReadonlyMap<string, number>;

  constructor(readonly words: readonly string[]) {
    this.#ids = new Map(words.map((word, i) => [word, i + 1]));
  }

  static of(concepts: readonly string[]): Vocabulary {
    return new Vocabulary([...new Set(concepts.flatMap(c => c.split(" ")))].sort());
  }

  /** Rows of an embedding table: one per word and row 0 for "no word". */
  get size(): number {
    return this.words.length + 1;
  }

  /** Ids of the prompts, [prompts, promptLength] row by row. The empty prompt is all zeros: the model's unconditional input. */
  encode(prompts: readonly string[]): Int32Array {
    const ids = new Int32Array(prompts.length * promptLength);
    for (const [p, prompt] of prompts.entries()) {
      const words = prompt
        .toLowerCase()
        .split(/[\s-]+/)
        .filter(Boolean);
      if (words.length > promptLength) throw new DataError(`prompt "${prompt}"`, `expected at most ${promptLength} words, received ${words.length}`);
      for (const [i, word] of words.entries()) {
        const id = this.#ids.get(word);
        if (id === undefined)
          throw new DataError(`prompt "${prompt}"`, `the model has never seen the word "${word}"; it knows ${this.words.length} words of emoji names`);
        ids[p * promptLength + i] = id;
      }
    }
    return ids;
  }
}
