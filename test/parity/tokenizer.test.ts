/** CLIP's tokenizer against transformers: the real vocabulary where ATTUNE_TEST_DATA has it (third-party, not in this repository), and the small
 *  vocabularies of the pipelines set. */

import fs from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { readSafetensors } from "../../lib/data/safetensors.js";
import { ClipTokenizer, type TokenBatch } from "../../lib/data/tokenizer.js";
import { parseTokenizerJson, readTokenizerFolder } from "../../lib/data/tokenizer-files.js";
import { describeSets } from "../support/goldens.js";

interface Case {
  readonly text: string;
  readonly ids: readonly number[];
  readonly decoded: string;
}

interface Padded {
  readonly max_length: number;
  readonly texts: readonly string[];
  readonly pad_eos: readonly number[][];
  readonly mask_eos: readonly number[][];
  readonly pad_bang: readonly number[][];
  readonly mask_bang: readonly number[][];
}

/** Python writes infinities, which JSON does not have. */
const json = (file: string): unknown => JSON.parse(fs.readFileSync(file, "utf8").replace(/-?Infinity|NaN/g, "null"));

/** A [B, L] tensor as rows. */
function rows({ shape, data }: TokenBatch["ids"]): number[][] {
  const [batch = 0, length = 0] = shape;
  return Array.from({ length: batch }, (_, b) => Array.from(data.subarray(b * length, (b + 1) * length) as Int32Array));
}

const data = process.env.ATTUNE_TEST_DATA;
const vocabulary = data ? path.join(data, "goldens/tokenizer") : undefined;
if (!vocabulary || !fs.existsSync(vocabulary)) {
  test.skip(`OpenAI's vocabulary: ${vocabulary ? `no folder ${vocabulary}` : "ATTUNE_TEST_DATA is not set"}`, () => undefined);
} else {
  describe("OpenAI's vocabulary", () => {
    const folder = path.join(vocabulary, "tokenizer");
    const cases = fs
      .readFileSync(path.join(vocabulary, "cases.jsonl"), "utf8")
      .split("\n")
      .filter(line => line !== "")
      .map(line => JSON.parse(line) as Case);
    const padded = json(path.join(vocabulary, "padded.json")) as Padded;
    let tokenizer: ClipTokenizer;
    beforeAll(async () => {
      tokenizer = await ClipTokenizer.load(folder);
    });

    test("ids of every prompt", () => {
      expect(cases.length).toBeGreaterThan(100);
      for (const { text, ids } of cases) expect([text, tokenizer.bosId, ...tokenizer.tokenize(text), tokenizer.eosId]).toEqual([text, ...ids]);
    });

    test("text of every prompt's ids", () => {
      for (const { text, ids, decoded } of cases) expect([text, tokenizer.decode(ids.slice(1, -1))]).toEqual([text, decoded]);
    });

    test("padding with the end token, and what is cut", () => {
      const batch = tokenizer.encode(padded.texts, { maxLength: padded.max_length });
      expect(rows(batch.ids)).toEqual(padded.pad_eos);
      expect(rows(batch.attentionMask)).toEqual(padded.mask_eos);
      const whole = padded.texts.map(text => tokenizer.tokenize(text));
      const cut = whole.flatMap((ids, index) => {
        const lost = ids.slice(padded.max_length - 2);
        return lost.length > 0 ? [{ index, tokens: lost.length, text: tokenizer.decode(lost) }] : [];
      });
      expect(cut.length).toBeGreaterThan(0);
      expect(batch.truncated).toEqual(cut);
    });

    test('padding with "!", the second tokenizer of SDXL', async () => {
      const plain = await readTokenizerFolder(folder);
      const bang = new ClipTokenizer({ ...plain, special: { ...plain.special, pad: "!" } });
      const batch = bang.encode(padded.texts, { maxLength: padded.max_length });
      expect(rows(batch.ids)).toEqual(padded.pad_bang);
      expect(rows(batch.attentionMask)).toEqual(padded.mask_bang);
    });

    test("tokenizer.json alone says the same as the other files", () => {
      const file = parseTokenizerJson(gunzipSync(fs.readFileSync(path.join(folder, "tokenizer.json.gz"))), "tokenizer.json");
      const alone = new ClipTokenizer(file);
      for (const { text, ids } of cases) expect([text, alone.bosId, ...alone.tokenize(text), alone.eosId]).toEqual([text, ...ids]);
    });
  });
}

describeSets("pipelines", folder => {
  const kinds = fs
    .readdirSync(folder)
    .filter(kind => fs.existsSync(path.join(folder, kind, "tokenizer")) && fs.existsSync(path.join(folder, `${kind}.safetensors`)));

  test.each(kinds)("%s: ids of the prompts", async kind => {
    const { prompts, negative } = json(path.join(folder, "meta.json")) as { prompts: string[]; negative: string[] };
    const tokenizer = await ClipTokenizer.load(path.join(folder, kind, "tokenizer"));
    const file = readSafetensors(path.join(folder, `${kind}.safetensors`));
    for (const [name, texts] of [
      ["ids", prompts],
      ["neg_ids", negative],
    ] as const) {
      const expected = file.tensor(name);
      const { ids, truncated } = tokenizer.encode(texts);
      expect(ids.shape).toEqual(expected.shape);
      expect([...ids.data]).toEqual(Array.from(expected.data as BigInt64Array, Number));
      expect(truncated).toEqual([]);
    }
    file.close();
  });

  const tokenizers = kinds.flatMap(kind => ["tokenizer", "tokenizer_2"].map(name => path.join(folder, kind, name)).filter(fs.existsSync));
  test.each(tokenizers.map(one => [path.relative(folder, one), one]))("%s: both layouts of a folder say the same", async (_, one) => {
    const slow = await readTokenizerFolder(one);
    const fast = parseTokenizerJson(fs.readFileSync(path.join(one, "tokenizer.json")), "tokenizer.json");
    expect(new Map([...slow.vocab].sort())).toEqual(new Map([...fast.vocab].sort()));
    expect(slow.merges).toEqual(fast.merges);
    expect([...slow.added!].sort((a, b) => a.id - b.id)).toEqual([...fast.added].sort((a, b) => a.id - b.id));
  });
});
