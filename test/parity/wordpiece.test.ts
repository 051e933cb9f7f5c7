/** WordPiece against the tokenizers library on a small vocabulary: every id of words, scripts, accents, controls, special tokens, and random strings. Sets: wordpiece*. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { WordPieceTokenizer } from "../../lib/data/wordpiece.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { describeSets } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();

describeSets("wordpiece", folder => {
  const golden = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) as {
    readonly vocab: string[];
    readonly added: string[];
    readonly cases: { readonly text: string; readonly ids: number[] }[];
  };
  const tokenizer = new WordPieceTokenizer(golden.vocab, { added: golden.added });

  test.each(golden.cases)("$text", ({ text, ids }) => {
    expect([...(tokenizer.encode(text).ids.data as Int32Array)]).toEqual(ids);
  });

  test("rows of a batch are those of single texts, padded; what is cut is told", () => {
    const texts = golden.cases.slice(0, 12).map(c => c.text);
    const { ids, attentionMask, truncated } = tokenizer.encode(texts, { maxLength: 12 });
    const width = ids.shape[1]!;
    expect(width).toBe(12);
    for (const [row, c] of golden.cases.slice(0, 12).entries()) {
      const expected = c.ids.length <= 12 ? c.ids : [...c.ids.slice(0, 11), tokenizer.sepId];
      const own = [...(ids.data as Int32Array).subarray(row * width, (row + 1) * width)];
      expect(own.slice(0, expected.length)).toEqual(expected);
      expect(own.slice(expected.length).every(id => id === tokenizer.padId)).toBe(true);
      const mask = [...(attentionMask.data as Int32Array).subarray(row * width, (row + 1) * width)];
      expect(mask).toEqual(own.map((_, i) => Number(i < expected.length)));
    }
    expect(truncated.map(t => [t.index, t.tokens])).toEqual(golden.cases.slice(0, 12).flatMap((c, i) => (c.ids.length > 12 ? [[i, c.ids.length - 12]] : [])));
  });

  test("a file of the vocabulary is the same tokenizer", async () => {
    writeFileSync(at("vocab.txt"), `${golden.vocab.join("\n")}\n`);
    const loaded = await WordPieceTokenizer.load(at("vocab.txt"), { added: golden.added });
    for (const { text, ids } of golden.cases) expect([...(loaded.encode(text).ids.data as Int32Array)]).toEqual(ids);
    expect(loaded.vocabSize).toBe(golden.vocab.length + golden.added.length);
  });
});

test("what is no vocabulary is refused by name", async () => {
  expect(() => new WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]"])).toThrow(DataError);
  expect(() => new WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a"])).toThrow(/one twice/);
  await expect(WordPieceTokenizer.load(at("absent.txt"))).rejects.toThrow(/ENOENT/);
  writeFileSync(at("latin1.txt"), Buffer.from([0x5b, 0xe9, 0x0a]));
  await expect(WordPieceTokenizer.load(at("latin1.txt"))).rejects.toThrow(/UTF-8/);
  const tiny = new WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]);
  expect(() => tiny.encode(5 as unknown as string)).toThrow(ConfigError);
  expect(() => tiny.encode("a", { maxLength: 1 })).toThrow(ConfigError);
});
