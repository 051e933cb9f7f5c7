/** Laws of the CLIP tokenizer on any text: it never throws, it reads words whatever stands around them, merging is what the definition says, and nothing is
 *  cut without being said. */

import fc from "fast-check";
import { byteCharacters, bytePairEncoder, endOfWord } from "../../lib/data/bpe.js";
import { ClipTokenizer } from "../../lib/data/tokenizer.js";
import { englishMerges, smallVocabulary } from "../support/tokenizer.js";

const data = smallVocabulary(englishMerges);
const tokenizer = new ClipTokenizer(data);

/** Every code unit, surrogates in any order; and code points with the troublesome ones often. */
const anyUnits = fc.array(fc.nat(0xffff), { maxLength: 24 }).map(units => String.fromCharCode(...units));
const troublesome = fc.constantFrom(
  "Σ",
  "ς",
  "İ",
  "ß",
  "ﬁ",
  "e\u0301",
  "h\u0331",
  "H\u0331",
  "'S",
  "'ll",
  "\u0085",
  "\ufeff",
  "\u3000",
  "٣",
  "½",
  "ǅ",
  "한",
  "👩‍🚀",
  "the",
  "cat",
  " ",
);
const anyText = fc
  .array(fc.oneof(troublesome, fc.string({ unit: "binary", maxLength: 3 }), fc.string({ maxLength: 4 })), { maxLength: 12 })
  .map(parts => parts.join(""));

/** The definition, on the whole text at once: lone surrogates replaced, composed, white space to blanks, lower case per character, words. */
function wordsOf(text: string): string[] {
  const composed = text
    .replace(/\p{Surrogate}/gu, "\ufffd")
    .normalize("NFC")
    .replace(/\p{White_Space}+/gu, " ");
  const lower = Array.from(composed, character => character.toLowerCase()).join("");
  return lower.match(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^ \p{L}\p{N}]+/gu) ?? [];
}

test("what is decoded is the words of the text, apart by one blank", () => {
  const strip = (text: string): string => text.replace(/^[\p{White_Space}\p{Cc}]+|[\p{White_Space}\p{Cc}]+$/gu, ""); // Python's strip takes some controls too
  fc.assert(
    fc.property(fc.oneof(anyText, anyUnits), text => expect(strip(tokenizer.decode(tokenizer.tokenize(text)))).toBe(strip(wordsOf(text).join(" ")))),
    {
      numRuns: 1000,
    },
  );
});

test("what was decoded is encoded to the same ids", () => {
  const plain = fc.oneof(anyText, anyUnits).map(text => text.replace(/\p{Cc}/gu, ".")); // strip takes some away
  fc.assert(
    fc.property(plain, text => expect(tokenizer.tokenize(tokenizer.decode(tokenizer.tokenize(text)))).toEqual(tokenizer.tokenize(text))),
    { numRuns: 500 },
  );
});

test("texts apart by white space are encoded apart, with an empty cache or a full one", () => {
  fc.assert(
    fc.property(anyText, anyText, fc.constantFrom(" ", "\n", "\u0085", "\u2028", "\t \r"), (a, b, space) => {
      const fresh = new ClipTokenizer(data);
      expect(fresh.tokenize(a + space + b)).toEqual([...tokenizer.tokenize(a), ...tokenizer.tokenize(b)]);
    }),
    { numRuns: 100 },
  );
});

test("merging is: the pair learnt first, of equal ones the leftmost, until none is left", () => {
  const letters = fc.array(fc.constantFrom("a", "b", "é"), { minLength: 1, maxLength: 40 }).map(parts => parts.join(""));
  const picks = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 30 });
  fc.assert(
    fc.property(picks, letters, (pairs, word) => {
      const merges = learnt(pairs);
      const { vocab } = smallVocabulary(merges);
      const encode = bytePairEncoder({ source: "test", vocab, merges, unknown: 0 });
      expect(encode(Buffer.from(word))).toEqual(naive(word, merges).map(symbol => vocab.get(symbol)));
    }),
    { numRuns: 500 },
  );
});

/** Merges of which each takes symbols that the bytes of "a", "b", "é" or earlier merges made. */
function learnt(picks: readonly (readonly [number, number])[]): [string, string][] {
  const symbols = ["a", "b", "Ã", "©", "a</w>", "b</w>", "©</w>"];
  const merges = new Map<string, [string, string]>();
  for (const [i, j] of picks) {
    const inner = symbols.filter(symbol => !symbol.endsWith(endOfWord));
    const left = inner[i % inner.length]!;
    const right = symbols[j % symbols.length]!;
    if (merges.has(`${left} ${right}`)) continue;
    merges.set(`${left} ${right}`, [left, right]);
    if (!symbols.includes(left + right)) symbols.push(left + right);
  }
  return [...merges.values()];
}

function naive(word: string, merges: readonly (readonly [string, string])[]): string[] {
  const symbols = Array.from(Buffer.from(word), byte => byteCharacters[byte]!);
  symbols[symbols.length - 1] += endOfWord;
  const rankAt = (i: number): number => {
    const rank = merges.findIndex(([left, right]) => symbols[i] === left && symbols[i + 1] === right);
    return rank < 0 ? Infinity : rank;
  };
  for (;;) {
    let best = -1;
    for (let i = 0; i + 1 < symbols.length; i++) if (rankAt(i) < (best < 0 ? Infinity : rankAt(best))) best = i;
    if (best < 0) return symbols;
    symbols.splice(best, 2, symbols[best]! + symbols[best + 1]!);
  }
}

test("every id of a prompt is kept or said to be cut", () => {
  fc.assert(
    fc.property(
      fc.array(anyText, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 2, max: 20 }),
      fc.constantFrom("maxLength", "longest"),
      (prompts, maxLength, padTo) => {
        const { ids, attentionMask, truncated } = tokenizer.encode(prompts, { maxLength, padTo: padTo as "maxLength" | "longest" });
        const length = ids.shape[1]!;
        const cut = new Map(truncated.map(one => [one.index, one]));
        for (const [index, prompt] of prompts.entries()) {
          const whole = tokenizer.tokenize(prompt);
          const kept = whole.slice(0, maxLength - 2);
          const row = [tokenizer.bosId, ...kept, tokenizer.eosId];
          const padding = Array<number>(length - row.length).fill(tokenizer.padId);
          expect(Array.from(ids.data.subarray(index * length, (index + 1) * length) as Int32Array)).toEqual([...row, ...padding]);
          expect(Array.from(attentionMask.data.subarray(index * length, (index + 1) * length) as Int32Array)).toEqual([
            ...row.map(() => 1),
            ...padding.map(() => 0),
          ]);
          expect(cut.get(index)?.tokens ?? 0).toBe(whole.length - kept.length);
          if (cut.has(index)) expect(cut.get(index)!.text).toBe(tokenizer.decode(whole.slice(kept.length)));
        }
        if (padTo === "maxLength") expect(length).toBe(maxLength);
      },
    ),
    { numRuns: 200 },
  );
});
