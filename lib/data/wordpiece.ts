/** BERT's uncased WordPiece tokenizer, by which BLIP's text encoder reads: words in lower case without accents, each cut greedily into the longest pieces of a vocabulary.
 *  Equal to transformers' BertTokenizer with do_lower_case; Devlin et al. 2018, arXiv:1810.04805, Wu et al. 2016, arXiv:1609.08144, section 4.1. */

import { readFile } from "node:fs/promises";
import { ConfigError, DataError } from "../errors.js";
import { hostTensor } from "../util/host-tensor.js";
import type { TokenBatch, Truncation } from "./tokenizer.js";

export interface WordPieceOptions {
  /** Tokens that stand for themselves in a text, with ids past the vocabulary's: BLIP adds [DEC] and [ENC]. */
  readonly added?: readonly string[];
  /** What errors call the vocabulary. */
  readonly source?: string;
}

/** [PAD] of BERT's vocabulary has to be there, and these. */
const special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] as const;
/** A word of more characters is unknown as a whole. */
const longestWord = 100;
/** Real vocabularies have 0.2 to 1 MiB: what is larger is something else. */
const maxFileBytes = 1 << 26;

/** What separates words, and stands alone: ASCII that is no letter and no digit, though Unicode calls some of it symbols, and punctuation of all scripts. */
const words = /[!-/:-@[-`{-~\p{P}]|[^\s!-/:-@[-`{-~\p{P}]+/gu;
/** Ideographs, each a word: the blocks that BERT's code lists. */
const ideograph = /[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
/** Dropped: control, format, private and unassigned characters, and what stands for bytes that were none. */
const dropped = /\ufffd|(?![\t\n\r])\p{C}/gu;

export class WordPieceTokenizer {
  readonly padId: number;
  readonly unkId: number;
  readonly clsId: number;
  readonly sepId: number;
  /** One more than the largest id. */
  readonly vocabSize: number;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #pieces: readonly string[];
  readonly #standing: RegExp;

  /** vocab.txt: one piece a line, ids from 0 on. Throws DataError. */
  static async load(path: string, options: WordPieceOptions = {}): Promise<WordPieceTokenizer> {
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (cause) {
      throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
    }
    if (bytes.length > maxFileBytes) throw new DataError(path, `expected at most ${maxFileBytes} bytes, received ${bytes.length}`);
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (cause) {
      throw new DataError(path, "expected UTF-8, received something else", {}, { cause });
    }
    const lines = text.split(/\r?\n/);
    if (lines.at(-1) === "") lines.pop();
    return new WordPieceTokenizer(lines, { source: path, ...options });
  }

  /** Throws DataError for a piece that comes twice, or a special token that is missing. */
  constructor(pieces: readonly string[], { added = [], source = "vocabulary" }: WordPieceOptions = {}) {
    const ids = new Map<string, number>();
    for (const piece of [...pieces, ...added.filter(token => !pieces.includes(token))]) {
      if (ids.has(piece)) throw new DataError(source, "expected distinct pieces, received one twice", { row: ids.size, field: piece });
      ids.set(piece, ids.size);
    }
    const idOf = (token: string): number => {
      const id = ids.get(token);
      if (id === undefined) throw new DataError(source, `expected ${token} in the vocabulary`, { field: token });
      return id;
    };
    [this.padId, this.unkId, this.clsId, this.sepId] = special.map(idOf) as [number, number, number, number];
    this.#ids = ids;
    this.#pieces = [...ids.keys()];
    this.vocabSize = ids.size;
    const standing = [...special, "[MASK]", ...added].map(token => token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    this.#standing = new RegExp(`(${standing.join("|")})`, "u");
  }

  /** Ids of a text, without [CLS] and [SEP]. Throws ConfigError for what is not text. */
  tokenize(text: string): number[] {
    if (typeof text !== "string") throw new ConfigError("tokenize", "text", "a string", text);
    return text.split(this.#standing).flatMap((part, i) => {
      if (i % 2 === 1) return this.#ids.get(part) ?? this.unkId;
      return wordsOf(part).flatMap(word => this.#piecesOf(word));
    });
  }

  /** Rows [CLS], ids, [SEP], padding: as long as the longest of the batch, at most `maxLength` (BERT's 512; ImageReward's 35), or exactly so with padTo "maxLength".
   *  What is cut is reported. Throws ConfigError. */
  encode(
    text: string | readonly string[],
    { maxLength = 512, padTo = "longest" }: { readonly maxLength?: number; readonly padTo?: "maxLength" | "longest" } = {},
  ): TokenBatch {
    if (!Number.isSafeInteger(maxLength) || maxLength < 2) throw new ConfigError("encode", "maxLength", "a whole number >= 2", maxLength);
    if (padTo !== "maxLength" && padTo !== "longest") throw new ConfigError("encode", "padTo", '"maxLength" or "longest"', padTo);
    const texts: readonly string[] = Array.isArray(text) ? text : [text];
    const rows = texts.map(one => this.tokenize(one));
    const longest = rows.reduce((most, row) => Math.max(most, row.length), 0) + 2;
    const length = padTo === "longest" ? Math.min(maxLength, longest) : maxLength;
    const ids = new Int32Array(rows.length * length).fill(this.padId);
    const mask = new Int32Array(rows.length * length);
    const truncated: Truncation[] = [];
    for (const [index, row] of rows.entries()) {
      const kept = row.slice(0, length - 2);
      ids.set([this.clsId, ...kept, this.sepId], index * length);
      mask.fill(1, index * length, index * length + kept.length + 2);
      if (kept.length < row.length) truncated.push({ index, tokens: row.length - kept.length, text: this.decode(row.slice(kept.length)) });
    }
    const shape = [rows.length, length];
    return { ids: hostTensor("i32", shape, ids), attentionMask: hostTensor("i32", shape, mask), truncated };
  }

  /** The pieces of ids, continued ones joined to what they continue. Case, accents and spacing are gone. Throws ConfigError for an id that is none. */
  decode(ids: ArrayLike<number>): string {
    const pieces = Array.from(ids, (id, i) => {
      const piece = this.#pieces[id];
      if (piece === undefined) throw new ConfigError("decode", `ids[${i}]`, `an id below ${this.vocabSize}`, id);
      return piece;
    });
    return pieces.join(" ").replaceAll(" ##", "");
  }

  /** The longest piece that the word begins with, then of the rest, marked ##; [UNK] for the whole word where there is none. */
  #piecesOf(word: string): number[] {
    const characters = [...word];
    if (characters.length > longestWord) return [this.unkId];
    const ids: number[] = [];
    for (let start = 0; start < characters.length; ) {
      let end = characters.length;
      let id: number | undefined;
      for (; end > start; end--) {
        id = this.#ids.get((start > 0 ? "##" : "") + characters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unkId];
      ids.push(id);
      start = end;
    }
    return ids;
  }
}

function wordsOf(text: string): string[] {
  const clean = text
    .replace(/\p{Zs}/gu, " ")
    .replace(dropped, "")
    .replace(ideograph, " $& ");
  const plain = clean
    .replaceAll("Σ", "σ") // also at the end of a word, as tokenizers written in Rust have it; Python's own would make it ς
    .toLowerCase()
    .normalize("NFD")
    .replace(/\p{Mn}/gu, "");
  return plain.match(words) ?? [];
}
