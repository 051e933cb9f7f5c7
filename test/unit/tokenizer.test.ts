/** The CLIP tokenizer's files and edges: which tokens are found where, long words, and what malformed or foreign folders are told. */

import { writeFileSync } from "node:fs";
import { ClipTokenizer } from "../../lib/data/tokenizer.js";
import type { TokenizerData } from "../../lib/data/tokenizer-files.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { scratchFolder } from "../support/scratch.js";
import { englishMerges, smallVocabulary } from "../support/tokenizer.js";

const at = scratchFolder();
const small = smallVocabulary(englishMerges);
const id = (symbol: string): number => small.vocab.get(symbol)!;

function writeFolder(files: Record<string, unknown>): string {
  for (const [name, content] of Object.entries(files)) writeFileSync(at(name), typeof content === "string" ? content : JSON.stringify(content));
  return at();
}

const vocabJson = Object.fromEntries(small.vocab);
const mergesTxt = `#version: 0.2\n${englishMerges.map(pair => pair.join(" ")).join("\n")}\n`;
const plain = { "vocab.json": vocabJson, "merges.txt": mergesTxt };
const [bos, eos] = [id("<|startoftext|>"), id("<|endoftext|>")];

test("a folder without special_tokens_map.json has CLIP's tokens", async () => {
  const tokenizer = await ClipTokenizer.load(writeFolder(plain));
  expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId, tokenizer.unkId, tokenizer.modelMaxLength]).toEqual([bos, eos, eos, eos, 77]);
  expect(tokenizer.vocabSize).toBe(small.vocab.size);
  expect(tokenizer.tokenize("The CAT's")).toEqual([id("the</w>"), id("cat</w>"), id("'s</w>")]);
});

test("CRLF and a missing last newline in merges.txt change nothing", async () => {
  const tokenizer = await ClipTokenizer.load(writeFolder({ ...plain, "merges.txt": mergesTxt.trimEnd().replaceAll("\n", "\r\n") }));
  expect(tokenizer.tokenize("the")).toEqual([id("the</w>")]);
});

describe("special tokens in the text", () => {
  const object = (content: string, normalized: boolean) => ({ content, normalized, lstrip: false, rstrip: false, single_word: false });
  const map = { bos_token: object("<|startoftext|>", true), eos_token: object("<|endoftext|>", true), unk_token: object("<|endoftext|>", true) };
  const endWords = [id("<"), id("|</w>"), ..."endoftex", "t</w>", "|", "></w>"].map(s => (typeof s === "number" ? s : id(s)));

  test("a pad token given as text, SD 1.5: the end token is found in lower case alone", async () => {
    const tokenizer = await ClipTokenizer.load(writeFolder({ ...plain, "special_tokens_map.json": { ...map, pad_token: "<|endoftext|>" } }));
    expect(tokenizer.tokenize("cat<|endoftext|>cat<|StartOfText|>")).toEqual([id("cat</w>"), eos, id("cat</w>"), bos]);
    expect(tokenizer.tokenize("<|ENDOFTEXT|>")).toEqual(endWords);
    expect(tokenizer.tokenize("<|ENDOFTEXT|>!")).toEqual([...endWords, id("!</w>")]); // not "|>!" in one word
  });

  test('a pad token "!", the second tokenizer of SDXL: every "!" is padding, and the end token is found in any case', async () => {
    const tokenizer = await ClipTokenizer.load(writeFolder({ ...plain, "special_tokens_map.json": { ...map, pad_token: "!" } }));
    expect(tokenizer.padId).toBe(id("!"));
    expect(tokenizer.tokenize("the cat!!<|EndOfText|>")).toEqual([id("the</w>"), id("cat</w>"), id("!"), id("!"), eos]);
    expect([...tokenizer.encode("cat", { maxLength: 5 }).ids.data]).toEqual([bos, id("cat</w>"), eos, id("!"), id("!")]);
  });

  test("tokenizer_config.json says more than special_tokens_map.json, and lists added tokens", async () => {
    const added = {
      [bos]: object("<|startoftext|>", false),
      5000: { ...object("<Toy>", true), special: false },
      5001: { ...object("<toy>-2", true), special: true },
    };
    const config = { pad_token: "!", unk_token: null, model_max_length: 1e30, added_tokens_decoder: added, tokenizer_class: "CLIPTokenizer" };
    const tokenizer = await ClipTokenizer.load(
      writeFolder({ ...plain, "special_tokens_map.json": { ...map, pad_token: "?" }, "tokenizer_config.json": config }),
    );
    expect([tokenizer.padId, tokenizer.modelMaxLength, tokenizer.vocabSize]).toEqual([id("!"), 77, 5002]);
    expect(tokenizer.tokenize("a<TOY>-2<toy>")).toEqual([id("a</w>"), 5001, 5000]); // the longest of two
    expect(tokenizer.decode([5000, 5001], { skipSpecialTokens: true })).toBe("<Toy>");
  });

  test("added_tokens.json", async () => {
    const tokenizer = await ClipTokenizer.load(writeFolder({ ...plain, "added_tokens.json": { "<toy>": 5000 } }));
    expect(tokenizer.tokenize("<TOY>cat")).toEqual([5000, id("cat</w>")]);
  });
});

test("decoding skips special tokens on request, and mends cut UTF-8", () => {
  const tokenizer = new ClipTokenizer(small);
  const ids = [bos, ...tokenizer.tokenize("the cat"), eos, eos];
  expect(tokenizer.decode(ids)).toBe("<|startoftext|>the cat <|endoftext|><|endoftext|>");
  expect(tokenizer.decode(Int32Array.from(ids), { skipSpecialTokens: true })).toBe("the cat");
  expect(tokenizer.decode(tokenizer.tokenize("é").slice(0, 1))).toBe("\ufffd");
  expect(() => tokenizer.decode([1e6])).toThrow(ConfigError);
});

test("a byte without a symbol is the unknown token", () => {
  const vocab = new Map([...small.vocab].filter(([symbol]) => symbol !== "Ã"));
  expect(new ClipTokenizer({ ...small, vocab }).tokenize("é")).toEqual([eos, id("©</w>")]);
});

test("a word of a quarter of a megabyte takes a moment, not an hour", () => {
  const n = 2 ** 18;
  const ids = new ClipTokenizer(small).tokenize("a".repeat(n));
  const tail = [id("aa"), id("a"), id("a</w>")]; // n - 1 is odd, and the end of the word is a symbol of its own
  expect(ids.length).toBe(n / 4 + 2);
  expect(ids.slice(-4)).toEqual([id("aaaa"), ...tail]);
});

describe("encode", () => {
  const tokenizer = new ClipTokenizer(small);
  test("says what was cut", () => {
    const { ids, truncated } = tokenizer.encode(["cat", "the cat and the cat"], { maxLength: 4 });
    expect(ids.shape).toEqual([2, 4]);
    expect([...ids.data]).toEqual([bos, id("cat</w>"), eos, eos, bos, id("the</w>"), id("cat</w>"), eos]);
    expect(truncated).toEqual([{ index: 1, tokens: 3, text: "and the cat" }]);
  });
  test("refuses what does not fit where it is told to", () => {
    expect(() => tokenizer.encode(["cat", "the cat"], { maxLength: 3, overlong: "refuse" })).toThrow(
      "expected prompt 1 to be at most 3 ids with start and end, received 4",
    );
    expect(tokenizer.encode(["the cat"], { maxLength: 4, overlong: "refuse" }).truncated).toEqual([]);
  });
  test("an empty batch is empty", () => expect(tokenizer.encode([]).ids.shape).toEqual([0, 77]));
  test.each([
    ["maxLength", { maxLength: 1 }],
    ["maxLength", { maxLength: 7.5 }],
    ["overlong", { overlong: "drop" as "cut" }],
    ["padTo", { padTo: "left" as "longest" }],
  ])("refuses a bad %s", (option, options) => {
    expect(() => tokenizer.encode("cat", options)).toThrow(ConfigError);
    expect(() => tokenizer.encode("cat", options)).toThrow(option);
  });
  test("refuses what is not text", () => expect(() => tokenizer.encode([7 as unknown as string])).toThrow("expected text to be a string, received 7"));
});

describe("malformed data", () => {
  const cases: [string, Partial<TokenizerData>, RegExp][] = [
    ["an id twice", { vocab: new Map([...small.vocab, ["dog", 3]]) }, /dog.*distinct ids, received 3/],
    ["a negative id", { vocab: new Map([...small.vocab, ["dog", -1]]) }, /dog.*whole number >= 0, received -1/],
    ["an id that is text", { vocab: new Map<string, number>([...small.vocab, ["dog", "7" as unknown as number]]) }, /received "7"/],
    ["no start token", { vocab: new Map([...small.vocab].filter(([s]) => s !== "<|startoftext|>")) }, /startoftext/],
    ["a pad token that is not there", { special: { pad: "[PAD]" } }, /\[PAD\]/],
    ["a merge of an unknown symbol", { merges: [["do", "g</w>"]] }, /merge 0 takes or makes "do"/],
    ["a merge that makes an unknown symbol", { merges: [["d", "o"]] }, /merge 0 takes or makes "do"/],
    ["a merge twice", { merges: [...englishMerges, ["i", "n"]] }, /merges 0 and 12 are both "i n"/],
    ["an added token with another id", { added: [{ content: "<|startoftext|>", id: 3, normalized: true, special: true }] }, /vocabulary's id/],
    ["an added token with white space", { added: [{ content: "my toy", id: 5000, normalized: true, special: false }] }, /without white space/],
    ["a length without room for start and end", { modelMaxLength: 1 }, /modelMaxLength/],
  ];
  test.each(cases)("%s", (_, change, message) => {
    expect(() => new ClipTokenizer({ ...small, ...change })).toThrow(DataError);
    expect(() => new ClipTokenizer({ ...small, ...change })).toThrow(message);
  });
});

describe("malformed and foreign folders", () => {
  const fast = {
    added_tokens: [],
    normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Replace" }, { type: "Lowercase" }] },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Split", pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" } }, { type: "ByteLevel" }],
    },
    model: { type: "BPE", end_of_word_suffix: "</w>", vocab: vocabJson, merges: englishMerges.map(pair => pair.join(" ")) },
  };
  test("tokenizer.json with merges as text, as older savers wrote them", async () => {
    const tokenizer = await ClipTokenizer.load(writeFolder({ "tokenizer.json": fast }));
    expect(tokenizer.tokenize("The cat")).toEqual([id("the</w>"), id("cat</w>")]);
  });

  const cases: [string, Record<string, unknown>, RegExp][] = [
    ["nothing", {}, /expected vocab.json and merges.txt, or tokenizer.json, received none/],
    ["a vocabulary alone", { "vocab.json": vocabJson }, /vocab.json without merges.txt/],
    ["merges alone", { "merges.txt": mergesTxt }, /merges.txt without vocab.json/],
    ["a vocabulary that is a list", { ...plain, "vocab.json": ["a"] }, /vocab.json.*expected an object of ids, received an array/],
    ["broken JSON", { ...plain, "vocab.json": '{"a": 1' }, /vocab.json.*JSON/],
    ["a symbol twice", { ...plain, "vocab.json": '{"a": 1, "a": 2}' }, /"a" twice/],
    ["a merge of three", { ...plain, "merges.txt": "#version: 0.2\ni n\na b c\n" }, /merges.txt \(row 3\): expected two symbols, received "a b c"/],
    ["an empty line", { ...plain, "merges.txt": "i n\n\nt h\n" }, /row 2/],
    [
      "GPT-2's tokenizer",
      { ...plain, "tokenizer_config.json": { tokenizer_class: "GPT2Tokenizer" } },
      /tokenizer_class.*expected CLIPTokenizer, received "GPT2Tokenizer"/,
    ],
    ["a tokenizer that keeps case", { ...plain, "tokenizer_config.json": { do_lower_case: false } }, /do_lower_case/],
    ["a pad token that is a number", { ...plain, "special_tokens_map.json": { pad_token: 0 } }, /pad_token.*expected a token's text, received 0/],
    ["a pad token that is not in the vocabulary", { ...plain, "special_tokens_map.json": { pad_token: "[PAD]" } }, /pad_token.*\[PAD\]/],
    ["a token that strips blanks", { ...plain, "special_tokens_map.json": { pad_token: { content: "!", lstrip: true } } }, /lstrip/],
    ["a config that is a list", { ...plain, "tokenizer_config.json": [] }, /expected an object, received an array/],
    ["an added token without id", { ...plain, "added_tokens.json": { "<toy>": "x" } }, /<toy>.*received "x"/],
    ["WordPiece", { "tokenizer.json": { ...fast, model: { ...fast.model, type: "WordPiece" } } }, /model.type.*expected "BPE", received "WordPiece"/],
    ["BPE without end of word", { "tokenizer.json": { ...fast, model: { ...fast.model, end_of_word_suffix: null } } }, /end_of_word_suffix/],
    ["BPE with dropout", { "tokenizer.json": { ...fast, model: { ...fast.model, dropout: 0.1 } } }, /model.dropout/],
    ["another normalizer", { "tokenizer.json": { ...fast, normalizer: { type: "NFKC" } } }, /normalizer.*NFC/],
    ["one normalizer more", { "tokenizer.json": { ...fast, normalizer: [fast.normalizer, { type: "StripAccents" }] } }, /StripAccents/],
    ["another pattern", { "tokenizer.json": { ...fast, pre_tokenizer: { type: "ByteLevel" } } }, /pre_tokenizer.*CLIP's pattern/],
    ["merges that are numbers", { "tokenizer.json": { ...fast, model: { ...fast.model, merges: [[1, 2]] } } }, /model.merges\[0\]/],
  ];
  test.each(cases)("%s", async (_, files, message) => {
    const loading = ClipTokenizer.load(writeFolder(files));
    await expect(loading).rejects.toThrow(DataError);
    await expect(loading).rejects.toThrow(message);
  });

  test("merges that are not UTF-8", async () => {
    const folder = writeFolder(plain);
    writeFileSync(at("merges.txt"), Uint8Array.of(0x69, 0x20, 0xff, 0x0a));
    await expect(ClipTokenizer.load(folder)).rejects.toThrow(/merges.txt: expected UTF-8/);
  });

  test("a folder that is not there", async () => {
    await expect(ClipTokenizer.load(at("absent"))).rejects.toThrow(DataError);
  });
});
