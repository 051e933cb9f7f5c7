/** The files of a CLIP tokenizer folder: vocab.json and merges.txt, or tokenizer.json alone, with special_tokens_map.json and tokenizer_config.json beside
 *  them. Tokenizers of other kinds have files of the same names: what would be split in another way is refused, not tokenized wrongly. */

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";
import { endOfWord } from "./bpe.js";

/** A token that is found in the text as it stands, before it is split into words. */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Found after the text was lower-cased and composed (in any case, that is), not before. */
  readonly normalized: boolean;
  /** A control token, which `decode` can skip. */
  readonly special: boolean;
}

export interface SpecialTokens {
  readonly bos: string;
  readonly eos: string;
  readonly unk: string;
  readonly pad: string;
}

/** What a tokenizer is made of. */
export interface TokenizerData {
  /** The folder or name that errors begin with. */
  readonly source?: string;
  /** Symbol -> id; ids are distinct whole numbers >= 0. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Pairs of symbols, learnt first comes first. */
  readonly merges: readonly (readonly [string, string])[];
  /** By default <|startoftext|> and <|endoftext|>, the latter for the unknown and as padding too. */
  readonly special?: Partial<SpecialTokens>;
  /** By default the special tokens. */
  readonly added?: readonly AddedToken[];
  /** Ids of a prompt with start and end; 77 by default. */
  readonly modelMaxLength?: number;
}

type Json = Readonly<Record<string, unknown>>;

/** Real files have at most 2 MiB: what is larger is something else. */
const maxFileBytes = 1 << 28;

/** Reads a folder. Throws DataError naming the file that is missing, malformed or of another kind of tokenizer. */
export async function readTokenizerFolder(folder: string): Promise<TokenizerData> {
  const at = (name: string): string => join(folder, name);
  const [vocab, merges, whole] = await Promise.all(["vocab.json", "merges.txt", "tokenizer.json"].map(name => readIfThere(at(name))));
  const config = await readObject(at("tokenizer_config.json"));
  const map = await readObject(at("special_tokens_map.json"));
  const extra = await readObject(at("added_tokens.json"));
  const special = { ...map, ...definedOf(config) };
  if (!(vocab && merges) && !whole) {
    const received = vocab ? "vocab.json without merges.txt" : merges ? "merges.txt without vocab.json" : "none of them";
    throw new DataError(folder, `expected vocab.json and merges.txt, or tokenizer.json, received ${received}`);
  }
  const fast = vocab && merges ? undefined : parseTokenizerJson(whole!, at("tokenizer.json"));
  if (!fast) checkClass(config, at("tokenizer_config.json"));
  const symbols = fast?.vocab ?? parseVocab(vocab!, at("vocab.json"));
  const listed = fast?.added ?? [...addedDecoder(config, at("tokenizer_config.json")), ...addedMap(extra, at("added_tokens.json"))];
  const maxLength = config.model_max_length;
  return {
    source: folder,
    vocab: symbols,
    merges: fast?.merges ?? parseMerges(merges!, at("merges.txt")),
    special: specialNames(special, folder),
    added: addSpecial(listed, special, symbols, folder),
    // transformers writes 1e30 for "no limit known"
    ...(Number.isSafeInteger(maxLength) && (maxLength as number) >= 2 && (maxLength as number) < 2 ** 31 && { modelMaxLength: maxLength as number }),
  };
}

/** vocab.json: one object, symbol -> id. Throws DataError. */
export function parseVocab(bytes: Uint8Array, file: string): ReadonlyMap<string, number> {
  return vocabOf(parseStrictJson(bytes, file), file, "JSON");
}

function vocabOf(value: unknown, file: string, field: string): ReadonlyMap<string, number> {
  if (!isObject(value)) throw new DataError(file, `expected an object of ids, received ${kind(value)}`, { field });
  return new Map(Object.entries(value) as [string, number][]); // ids are checked where a tokenizer is made of them
}

/** merges.txt: a line for each pair, its symbols apart by one blank, after an optional line "#version: ...". Throws DataError naming the line. */
export function parseMerges(bytes: Uint8Array, file: string): (readonly [string, string])[] {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new DataError(file, "expected UTF-8 text", {}, { cause });
  }
  const lines = text.split("\n").map(line => (line.endsWith("\r") ? line.slice(0, -1) : line));
  if (lines.at(-1) === "") lines.pop();
  const first = lines[0]?.startsWith("#version") ? 1 : 0;
  return lines.slice(first).map((line, i) => pairOf(line.split(" "), file, { row: first + i + 1 }));
}

function pairOf(parts: readonly unknown[], file: string, where: { row?: number; field?: string }): readonly [string, string] {
  const [left, right] = parts;
  if (parts.length !== 2 || typeof left !== "string" || typeof right !== "string" || left === "" || right === "")
    throw new DataError(file, `expected two symbols, received ${JSON.stringify(parts.length === 1 ? parts[0] : parts.join(" "))}`, where);
  return [left, right];
}

/** tokenizer.json: vocabulary, merges and added tokens, if what it says of splitting is CLIP's. Throws DataError naming the field that is not. */
export function parseTokenizerJson(bytes: Uint8Array, file: string): Required<Pick<TokenizerData, "vocab" | "merges" | "added">> {
  const json = parseStrictJson(bytes, file);
  const fail = (field: string, expected: string, received: unknown) =>
    new DataError(file, `expected ${expected}, received ${JSON.stringify(received)?.slice(0, 200)}`, { field });
  if (!isObject(json)) throw fail("JSON", "an object", json);
  const model = isObject(json.model) ? json.model : {};
  if (model.type !== "BPE") throw fail("model.type", '"BPE"', model.type);
  if (model.end_of_word_suffix !== endOfWord) throw fail("model.end_of_word_suffix", JSON.stringify(endOfWord), model.end_of_word_suffix);
  for (const off of ["dropout", "continuing_subword_prefix", "byte_fallback", "fuse_unk", "ignore_merges"])
    if (model[off]) throw fail(`model.${off}`, "none", model[off]);
  checkSplitting(json, fail);
  if (!Array.isArray(model.merges)) throw fail("model.merges", "an array", model.merges);
  if (!Array.isArray(json.added_tokens)) throw fail("added_tokens", "an array", json.added_tokens);
  return {
    vocab: vocabOf(model.vocab, file, "model.vocab"),
    merges: model.merges.map((pair, i) => pairOf(Array.isArray(pair) ? pair : String(pair).split(" "), file, { field: `model.merges[${i}]` })),
    added: json.added_tokens.map((token, i) => addedToken(token, isObject(token) ? token.id : undefined, file, `added_tokens[${i}]`)),
  };
}

/** Normalizer and pre-tokenizer are looked for anywhere in their fields: savers nest them in sequences of one or more. */
function checkSplitting(json: Json, fail: (field: string, expected: string, received: unknown) => DataError): void {
  const steps = typesIn(json.normalizer);
  for (const step of ["NFC", "Lowercase"]) if (!steps.has(step)) throw fail("normalizer", `a step ${step}`, json.normalizer);
  for (const step of steps)
    if (!["Sequence", "NFC", "Lowercase", "Replace"].includes(step)) throw fail("normalizer", "NFC, white space and Lowercase alone", step);
  const split = JSON.stringify(json.pre_tokenizer) ?? "";
  if (!split.includes(JSON.stringify(clipPattern).slice(1, -1)) || !typesIn(json.pre_tokenizer).has("ByteLevel"))
    throw fail("pre_tokenizer", "CLIP's pattern and ByteLevel", json.pre_tokenizer);
}

/** Every "type" in a nest of objects and arrays. */
function typesIn(value: unknown): ReadonlySet<string> {
  if (!isObject(value) && !Array.isArray(value)) return new Set();
  const own = isObject(value) && typeof value.type === "string" ? [value.type] : [];
  return new Set([...own, ...Object.values(value).flatMap(inner => [...typesIn(inner)])]);
}

/** The end of the pattern that words are found by; savers differ in whether the special tokens stand before it. */
const clipPattern = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

function checkClass(config: Json, file: string): void {
  const name = config.tokenizer_class;
  if (name !== undefined && name !== "CLIPTokenizer" && name !== "CLIPTokenizerFast")
    throw new DataError(file, `expected CLIPTokenizer, received ${JSON.stringify(name)}`, { field: "tokenizer_class" });
  if (config.do_lower_case === false) throw new DataError(file, "expected true, received false", { field: "do_lower_case" });
}

const roles = ["bos", "eos", "unk", "pad"] as const;

/** Of a config, what is neither absent nor null. */
function definedOf(config: Json): Json {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null));
}

function specialNames(special: Json, source: string): Partial<SpecialTokens> {
  const named = roles.map(role => [role, special[`${role}_token`]] as const).filter(([, token]) => token !== undefined && token !== null);
  return Object.fromEntries(named.map(([role, token]) => [role, contentOf(token, source, `${role}_token`)]));
}

/** The listed tokens and the special ones that the list lacks. As in transformers a token given as plain text is found before normalization, and of two
 *  mentions (eos and pad, mostly) the later counts: why SD 1.5 finds <|endoftext|> in lower case alone. */
function addSpecial(listed: readonly AddedToken[], special: Json, vocab: ReadonlyMap<string, number>, source: string): AddedToken[] {
  const known = new Set(listed.map(token => token.content));
  const more = new Map<string, AddedToken>();
  for (const role of roles) {
    const token = special[`${role}_token`] ?? defaultToken(role);
    const content = contentOf(token, source, `${role}_token`);
    const id = vocab.get(content);
    if (id === undefined && !known.has(content))
      throw new DataError(source, `expected a token of the vocabulary, received ${JSON.stringify(content)}`, { field: `${role}_token` });
    if (!known.has(content))
      more.set(content, addedToken(typeof token === "string" ? { content, special: true } : { ...(token as Json), special: true }, id, source, role));
  }
  return [...listed, ...more.values()];
}

function defaultToken(role: (typeof roles)[number]): Json | string {
  if (role === "pad") return "<|endoftext|>";
  return { content: role === "bos" ? "<|startoftext|>" : "<|endoftext|>", normalized: true };
}

function contentOf(token: unknown, file: string, field: string): string {
  const content = isObject(token) ? token.content : token;
  if (typeof content !== "string" || content === "") throw new DataError(file, `expected a token's text, received ${JSON.stringify(token)}`, { field });
  return content;
}

/** "added_tokens_decoder" of tokenizer_config.json: id -> token. */
function addedDecoder(config: Json, file: string): AddedToken[] {
  const decoder = config.added_tokens_decoder ?? {};
  if (!isObject(decoder)) throw new DataError(file, `expected an object of tokens, received ${kind(decoder)}`, { field: "added_tokens_decoder" });
  return Object.entries(decoder).map(([id, token]) => addedToken(token, Number(id), file, `added_tokens_decoder.${id}`));
}

/** added_tokens.json: token -> id, how textual inversions were saved once. */
function addedMap(map: Json, file: string): AddedToken[] {
  return Object.entries(map).map(([content, id]) => addedToken({ content, normalized: true }, id, file, content));
}

function addedToken(token: unknown, id: unknown, file: string, field: string): AddedToken {
  if (!isObject(token)) throw new DataError(file, `expected a token, received ${kind(token)}`, { field });
  const content = contentOf(token, file, field);
  for (const flag of ["lstrip", "rstrip", "single_word"])
    if (token[flag]) throw new DataError(file, `expected ${flag} to be false, received ${JSON.stringify(token[flag])}`, { field });
  return { content, id: id as number, normalized: token.normalized === true, special: token.special === true };
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) throw new DataError(path, `expected at most ${maxFileBytes} bytes, received ${size}`);
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new DataError(path, `cannot be read: ${message}`, {}, { cause });
  }
}

async function readObject(path: string): Promise<Json> {
  const bytes = await readIfThere(path);
  if (!bytes) return {};
  const json = parseStrictJson(bytes, path);
  if (!isObject(json)) throw new DataError(path, `expected an object, received ${kind(json)}`, { field: "JSON" });
  return json;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kind(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
}
