/** The tokenizer of CLIP's text encoder: text to the ids that Stable Diffusion and the CLIP reward models read. Equal, id by id, to transformers' CLIPTokenizer
 *  (not to OpenAI's, which repairs mojibake and HTML entities first). Weighting syntax such as "(word:1.2)" is text like any other. */

import { ConfigError, DataError } from "../errors.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { bytePairEncoder, endOfWord, symbolBytes } from "./bpe.js";
import { type AddedToken, readTokenizerFolder, type SpecialTokens, type TokenizerData } from "./tokenizer-files.js";

export interface EncodeOptions {
  /** Ids per prompt with start and end, >= 2. By default the tokenizer's own, 77 for CLIP. */
  readonly maxLength?: number;
  /** "cut" keeps the first maxLength - 1 ids and puts the end token last, and says so; "refuse" throws. */
  readonly overlong?: "cut" | "refuse";
  /** Rows of maxLength ids, or of as many as the longest prompt of the batch has. */
  readonly padTo?: "maxLength" | "longest";
}

export interface TokenBatch {
  /** i32 [B, L]: start token, the prompt's ids, end token, padding. */
  readonly ids: HostTensor;
  /** i32 [B, L]: 1 up to the end token, 0 on padding. Stable Diffusion's text encoders are run without it. */
  readonly attentionMask: HostTensor;
  /** The prompts that were cut, in order; empty where all fitted. */
  readonly truncated: readonly Truncation[];
}

export interface Truncation {
  /** Which prompt of the batch. */
  readonly index: number;
  /** How many of its ids were cut. */
  readonly tokens: number;
  /** What they say: the part of the prompt that the model will not see. */
  readonly text: string;
}

/** White space of Unicode, which is not JavaScript's \s: U+0085 is, U+FEFF is not. */
const notSpace = /[^\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;
/** Words of CLIP in lower-cased text: a contraction, letters, one digit, anything else but blanks. */
const words = "'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^\\p{White_Space}\\p{L}\\p{N}]+";

/** Chunks that are remembered: enough for the vocabulary of a data set, a few megabytes. Longer ones are rarely seen twice. */
const cache = { entries: 1 << 16, length: 64 };

export class ClipTokenizer {
  /** Ids of a prompt with start and end, 77 unless the folder says otherwise. */
  readonly modelMaxLength: number;
  readonly tokens: SpecialTokens;
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  readonly unkId: number;
  /** One more than the largest id. */
  readonly vocabSize: number;

  readonly #source: string;
  readonly #merge: (word: Uint8Array) => number[];
  readonly #symbols = new Map<number, string>();
  readonly #specialIds: ReadonlySet<number>;
  readonly #rawTokens: TokenSplitter;
  readonly #normalizedTokens: TokenSplitter;
  readonly #words: RegExp;
  readonly #utf8 = new TextEncoder();
  readonly #cache = new Map<string, readonly number[]>();

  /** A tokenizer of a folder as diffusers and transformers save it, e.g. "sd15/tokenizer". Throws DataError naming the file, the field, and what is wrong. */
  static async load(folder: string): Promise<ClipTokenizer> {
    return new ClipTokenizer(await readTokenizerFolder(folder));
  }

  /** A tokenizer of parsed data. Throws DataError if ids are not distinct whole numbers, a special token is missing, or a merge names an unknown symbol. */
  constructor({ source = "tokenizer", vocab, merges, special = {}, added, modelMaxLength = 77 }: TokenizerData) {
    if (!Number.isSafeInteger(modelMaxLength) || modelMaxLength < 2)
      throw new DataError(source, `expected a whole number >= 2, received ${JSON.stringify(modelMaxLength)}`, { field: "modelMaxLength" });
    this.#source = source;
    this.modelMaxLength = modelMaxLength;
    this.tokens = { bos: "<|startoftext|>", eos: "<|endoftext|>", unk: "<|endoftext|>", pad: "<|endoftext|>", ...special };
    const names = [...new Set(Object.values(this.tokens))];
    const extra = added ?? names.map(content => ({ content, id: vocab.get(content)!, normalized: false, special: true }));
    for (const [symbol, id] of vocab) this.#name(symbol, id);
    for (const { content, id } of extra) this.#nameAdded(content, id, vocab);
    const idOf = (role: keyof SpecialTokens): number => {
      const content = this.tokens[role];
      const id = extra.find(token => token.content === content)?.id ?? vocab.get(content);
      if (id === undefined) throw new DataError(source, `expected ${JSON.stringify(content)} in the vocabulary`, { field: `${role}_token` });
      return id;
    };
    [this.bosId, this.eosId, this.padId, this.unkId] = [idOf("bos"), idOf("eos"), idOf("pad"), idOf("unk")];
    this.vocabSize = 1 + [...this.#symbols.keys()].reduce((most, id) => Math.max(most, id), 0);
    this.#merge = bytePairEncoder({ source, vocab, merges, unknown: this.unkId });
    this.#specialIds = new Set(extra.filter(token => token.special).map(token => token.id));
    this.#rawTokens = tokenSplitter(extra.filter(token => !token.normalized));
    this.#normalizedTokens = tokenSplitter(extra.filter(token => token.normalized).map(token => ({ ...token, content: normalized(token.content) })));
    this.#words = new RegExp(`${names.map(escaped).join("|")}|${words}`, "gu");
  }

  /** Ids with start, end and padding, one row for each prompt; a single prompt is a batch of one. Throws ConfigError for what is not text, and for a prompt
   *  that is too long where `overlong` is "refuse". */
  encode(text: string | readonly string[], options: EncodeOptions = {}): TokenBatch {
    const { maxLength = this.modelMaxLength, overlong = "cut", padTo = "maxLength" } = options;
    if (!Number.isSafeInteger(maxLength) || maxLength < 2) throw new ConfigError("encode", "maxLength", "a whole number >= 2", maxLength);
    if (overlong !== "cut" && overlong !== "refuse") throw new ConfigError("encode", "overlong", '"cut" or "refuse"', overlong);
    if (padTo !== "maxLength" && padTo !== "longest") throw new ConfigError("encode", "padTo", '"maxLength" or "longest"', padTo);
    const rows = (typeof text === "string" ? [text] : text).map(prompt => this.tokenize(prompt));
    const longest = rows.reduce((most, row) => Math.max(most, row.length), 0);
    if (overlong === "refuse" && longest > maxLength - 2) {
      const index = rows.findIndex(row => row.length > maxLength - 2);
      throw new ConfigError("encode", `prompt ${index}`, `at most ${maxLength} ids with start and end`, rows[index]!.length + 2);
    }
    const length = padTo === "longest" ? Math.min(maxLength, longest + 2) : maxLength;
    return this.#batch(rows, length);
  }

  /** Ids of a prompt's text alone: no start, no end, nothing cut. */
  tokenize(text: string): number[] {
    if (typeof text !== "string") throw new ConfigError("tokenize", "text", "a string", text);
    const ids: number[] = [];
    for (const chunk of text.match(notSpace) ?? []) for (const id of this.#chunk(chunk)) ids.push(id);
    return ids;
  }

  /** The text of ids, words apart by one blank; ill-formed UTF-8 becomes U+FFFD. Special tokens stand as they are unless they are skipped.
   *  Throws ConfigError for an id that the tokenizer does not have. */
  decode(ids: ArrayLike<number>, { skipSpecialTokens = false }: { readonly skipSpecialTokens?: boolean } = {}): string {
    const parts: Uint8Array[] = [];
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (skipSpecialTokens && this.#specialIds.has(id)) continue;
      const symbol = this.#symbols.get(id);
      if (symbol === undefined) throw new ConfigError("decode", `ids[${i}]`, `an id of ${this.#source}`, id);
      parts.push(symbolBytes(symbol));
    }
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(parts));
    return stripped(text.replaceAll(endOfWord, " "));
  }

  #batch(rows: readonly (readonly number[])[], length: number): TokenBatch {
    const shape = [rows.length, length];
    const ids = new Int32Array(rows.length * length).fill(this.padId);
    const mask = new Int32Array(rows.length * length);
    const truncated: Truncation[] = [];
    for (const [index, row] of rows.entries()) {
      const at = index * length;
      const kept = Math.min(row.length, length - 2);
      ids[at] = this.bosId;
      for (let i = 0; i < kept; i++) ids[at + 1 + i] = row[i]!;
      ids[at + kept + 1] = this.eosId;
      mask.fill(1, at, at + kept + 2);
      if (kept < row.length) truncated.push({ index, tokens: row.length - kept, text: this.decode(row.slice(kept)) });
    }
    return { ids: hostTensor("i32", shape, ids), attentionMask: hostTensor("i32", shape, mask), truncated };
  }

  /** Ids of a run without white space. No rule looks across white space, so runs are independent and most were seen before. */
  #chunk(chunk: string): readonly number[] {
    const known = this.#cache.get(chunk);
    if (known) return known;
    const ids = this.#rawTokens(chunk.replace(/\p{Surrogate}/gu, "\ufffd"), raw =>
      this.#normalizedTokens(normalized(raw), text => (text.match(this.#words) ?? []).flatMap(word => this.#word(word))),
    );
    if (chunk.length <= cache.length) {
      if (this.#cache.size >= cache.entries) this.#cache.clear();
      this.#cache.set(chunk, ids);
    }
    return ids;
  }

  /** A special token's text that is no token here (upper-case <|ENDOFTEXT|> in SD 1.5) is one match of the pattern, and then three words. */
  #word(word: string): number[] {
    const parts = word.startsWith("<|") && word.endsWith("|>") ? (word.match(/\p{L}+|[^\p{L}]+/gu) ?? []) : [word];
    return parts.flatMap(part => this.#merge(this.#utf8.encode(part)));
  }

  #name(symbol: string, id: number): void {
    if (!Number.isSafeInteger(id) || id < 0 || id >= 2 ** 24)
      throw new DataError(this.#source, `expected an id, a whole number >= 0, received ${JSON.stringify(id)}`, { field: symbol });
    const other = this.#symbols.get(id);
    if (other !== undefined && other !== symbol)
      throw new DataError(this.#source, `expected distinct ids, received ${id} for ${JSON.stringify(other)} too`, { field: symbol });
    this.#symbols.set(id, symbol);
  }

  #nameAdded(content: string, id: number, vocab: ReadonlyMap<string, number>): void {
    const own = vocab.get(content);
    if (own !== undefined && own !== id)
      throw new DataError(this.#source, `expected the vocabulary's id ${own}, received ${JSON.stringify(id)}`, { field: content });
    if (/\p{White_Space}/u.test(content)) throw new DataError(this.#source, "expected added tokens without white space", { field: content });
    this.#name(content, id);
  }
}

/** Without what Python's str.strip takes from both ends: white space and four separators more. By hand, because a pattern tries every run of blanks. */
function stripped(text: string): string {
  const strips = (character: string): boolean => (character >= "\x1c" && character <= "\x1f") || /\p{White_Space}/u.test(character);
  let [start, end] = [0, text.length];
  while (start < end && strips(text[start]!)) start++;
  while (end > start && strips(text[end - 1]!)) end--;
  return text.slice(start, end);
}

/** Composed (NFC), then lower-cased character by character: sigma at the end of a word stays what it is elsewhere, as in tokenizers written in Rust. */
function normalized(text: string): string {
  return text.normalize("NFC").replaceAll("Σ", "σ").toLowerCase();
}

/** Splits text at added tokens, the longest of several at one place, and gives what lies between to `rest`. */
type TokenSplitter = (text: string, rest: (text: string) => number[]) => number[];

function tokenSplitter(tokens: readonly AddedToken[]): TokenSplitter {
  if (tokens.length === 0) return (text, rest) => rest(text);
  const ids = new Map(tokens.map(({ content, id }) => [content, id]));
  const contents = [...ids.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(${contents.map(escaped).join("|")})`, "u");
  return (text, rest) => text.split(pattern).flatMap((part, i) => (i % 2 === 1 ? ids.get(part)! : part === "" ? [] : rest(part)));
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
