/** Laws of what is made of scores: combinations, near misses, temperatures, questionnaires, batches. */

import fc from "fast-check";
import type { Image } from "../../lib/data/image.js";
import { clipImages } from "../../lib/data/preprocess.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { batchSizes, inBatches } from "../../lib/rewards/batches.js";
import { fitNormalization, linearOnto, rankMix, regularizedRelevance, standardized, weightedSum } from "../../lib/rewards/compose.js";
import { anyOf, colours, composition, counting, listed, objects, relations } from "../../lib/rewards/contrast.js";
import { TextCache } from "../../lib/rewards/feature-cache.js";
import { hpsImages } from "../../lib/rewards/hps-images.js";
import { counted, nounPhrases, plural, singular } from "../../lib/rewards/nouns.js";
import { expectedBestOfN, fitTieThreshold, recallAtK } from "../../lib/rewards/pair-metrics.js";
import { parseAnswer, type Question, questionnaire } from "../../lib/rewards/questionnaire.js";
import { averagePrecisionAtK, kendall, spearman } from "../../lib/rewards/rank-metrics.js";
import { type Reward, type RewardItem, scoreItems } from "../../lib/rewards/reward.js";
import { ensemble, ensembleLower, ensembleMin, fitTemperature, normalizedScore, textNorm } from "../../lib/rewards/text-norm.js";
import { Random } from "../../lib/util/random.js";
import { expectClose } from "../support/compare.js";
import { pseudoImage } from "../support/reward-models.js";

const image: Image = { width: 1, height: 1, channels: 3, data: new Uint8Array(3) };
/** A reward that looks its scores up by prompt. */
const table = (name: string, scores: Readonly<Record<string, number>>, typical: readonly [number, number] = [0, 10]): Reward => ({
  ...{ name, version: "1", scale: { unit: "points", typical } },
  score: items => items.map(({ prompt }) => scores[prompt]!),
});
const asked = (...prompts: string[]): RewardItem[] => prompts.map(prompt => ({ prompt, image }));

describe("combinations", () => {
  const [a, b] = [table("a", { x: 2, y: 4, z: 9 }), table("b", { x: 300, y: 100, z: 100 }, [100, 300])];
  const items = asked("x", "y", "z");

  test("a standardized reward has mean 0 and deviation 1 on what it was fitted on; preferences stay", async () => {
    const { scores } = await scoreItems(a, items);
    const own = await scoreItems(standardized(a, fitNormalization(scores)), items);
    expect(own.scores.reduce((s, v) => s + v, 0)).toBeCloseTo(0, 12);
    expect(own.scores.reduce((s, v) => s + v * v, 0)).toBeCloseTo(3, 12);
    const choice: Reward = { ...a, scale: { ...a.scale, logits: 2 } };
    expect(standardized(choice, { mean: 5, std: 4 }).scale.logits).toBe(8);
    expect(() => fitNormalization([1, 1])).toThrow(DataError);
  });

  test("a weighted sum does not depend on the units of its parts", async () => {
    const of = async (scale: number): Promise<Float64Array> => {
      const scaled: Reward = { ...b, score: async list => Array.from(await b.score(list), s => s * scale) };
      const parts = await Promise.all(
        [a, scaled].map(async reward => ({ reward, weight: 0.5, normalize: fitNormalization((await scoreItems(reward, items)).scores) })),
      );
      return (await scoreItems(weightedSum(parts), items)).scores;
    };
    expectClose(await of(1), await of(1000), 1e-12, "sum");
    expect(() => weightedSum([])).toThrow(ConfigError);
  });

  test("relevance times regularisers: a regulariser at 0 takes all, one at 1 nothing", async () => {
    const guard = table("guard", { x: 1, y: 0.5, z: 0 }, [0, 1]);
    const { scores } = await scoreItems(regularizedRelevance(a, [guard]), items);
    expectClose(scores, [0.2, 0.2, 0], 1e-15, "product");
    expect([-1, 0, 5, 99].map(linearOnto([0, 10]))).toEqual([0, 0, 0.5, 1]);
  });

  test("a rank mix is the same for any increasing change of either reward, and within prompts alone", async () => {
    const random = new Random(5);
    const numbers = new WeakMap<Image, readonly [number, number]>();
    const many = Array.from({ length: 12 }, (_, i) => ({ prompt: i % 3 ? "p" : "q", image: { ...image } }));
    for (const item of many) numbers.set(item.image, [random.integer(5), random.normal()]);
    const by = (k: 0 | 1, change: (x: number) => number): Reward => ({ ...a, name: String(k), score: list => list.map(x => change(numbers.get(x.image)![k])) });
    const plain = await rankMix({ self: by(0, x => x), relevance: by(1, x => x) }, many, { alpha: 0.7 });
    const changed = await rankMix({ self: by(0, x => 3 * x - 7), relevance: by(1, x => Math.exp(x)) }, many, { alpha: 0.7 });
    expect(changed).toEqual(plain);
    const only = many.filter(item => item.prompt === "p");
    const alone = await rankMix({ self: by(0, x => x), relevance: by(1, x => x) }, only, { alpha: 0.7 });
    expect([...alone]).toEqual([...plain].filter((_, i) => many[i]!.prompt === "p"));
    // three pictures, relevance alone: places over n
    expect([...(await rankMix({ self: a, relevance: table("r", { x: 1, y: 5, z: 5 }) }, asked("x", "x", "x"), { alpha: 1 }))]).toEqual([2 / 3, 2 / 3, 2 / 3]);
  });

  test("an ensemble's minimum is at most every member, its lower bound at most the mean", async () => {
    const { scores: low } = await scoreItems(ensemble([a, b], ensembleMin), items);
    expect([...low]).toEqual([2, 4, 9]);
    const lower = (await scoreItems(ensemble([a, b], ensembleLower({ lambda: 0.5, spread: "deviation" })), items)).scores;
    expectClose(lower, [151 - 74.5, 52 - 24, 54.5 - 22.75], 1e-12, "mean - 0.5 deviation");
    expect(() => ensemble([])).toThrow(ConfigError);
    expect(() => ensembleLower({ lambda: -1 })).toThrow(ConfigError);
  });
});

describe("TextNorm", () => {
  test("is between 0 and 1, sums to 1 over the set, and does not move with a constant", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -50, max: 50, noNaN: true }), { minLength: 1, maxLength: 9 }),
        fc.double({ min: 0.01, max: 10, noNaN: true }),
        (scores, temperature) => {
          const all = Float64Array.from(scores);
          const own = scores.map((_, i) => normalizedScore(Float64Array.from([scores[i]!, ...scores.filter((_, k) => k !== i)]), { temperature }));
          expect(own.reduce((x, y) => x + y, 0)).toBeCloseTo(1, 9);
          expect(
            normalizedScore(
              all.map(s => s + 100),
              { temperature },
            ),
          ).toBeCloseTo(own[0]!, 9);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("a prompt without near misses scores 1, and the prompt itself is no near miss", async () => {
    const reward = table("t", { x: 3, y: 4 });
    const none = await scoreItems(textNorm(reward, { contrast: () => [] }), asked("x"));
    const self = await scoreItems(textNorm(reward, { contrast: () => ["x", "y", "y"] }), asked("x"));
    expect([none.scores[0], self.scores[0]]).toEqual([1, normalizedScore(Float64Array.of(3, 4))]);
  });

  test("the fitted temperature is where the data were drawn from, and no other is likelier", () => {
    const random = new Random(11);
    const tau = 0.37;
    const scores = Array.from({ length: 4000 }, () => Float64Array.from({ length: 4 }, () => random.normal()));
    const aligned = scores.map(s => Number(random.uniform() < normalizedScore(s, { temperature: tau })));
    const { temperature, loss } = fitTemperature(scores, aligned);
    expect(Math.abs(Math.log(temperature / tau))).toBeLessThan(0.15); // three standard errors, of the information at tau, are 0.12
    for (const other of [0.5, 0.9, 0.99, 1.01, 1.1, 2]) {
      const p = scores.map(s => normalizedScore(s, { temperature: temperature * other }));
      expect(-p.reduce((sum, q, i) => sum + Math.log(aligned[i] ? q : 1 - q), 0) / p.length).toBeGreaterThan(loss);
    }
    expect(() => fitTemperature(scores, aligned.slice(1))).toThrow(/as many/);
    expect(() => fitTemperature(scores.slice(0, 2), [1, 1])).toThrow(ConfigError);
  });
});

describe("near misses", () => {
  test("counts, whatever stands around them", () => {
    expect(counting({ span: 1 })("three cats on a mat")).toEqual(["two cats on a mat", "four cats on a mat", "three cats on two mats"]);
    expect(counting()("a photo of a child")).toEqual(["a photo of two children", "a photo of three children"]);
    expect(counting()("rain over London")).toEqual([]);
  });

  test("plural and singular are inverse to each other", () => {
    for (const noun of ["cat", "teddy bear", "deer", "child", "box", "berry", "glass", "church", "umbrella", "bus", "toy", "person", "wolf"])
      expect([noun, singular(plural(noun))]).toEqual([noun, noun]);
    expect([counted(1, "hour"), counted(1, "unicorn"), counted(1, "umbrella"), counted(13, "box")]).toEqual([
      "an hour",
      "a unicorn",
      "an umbrella",
      "13 boxes",
    ]);
    expect(nounPhrases("A painting of two red foxes beside an old well").map(({ count, noun }) => [count, noun])).toEqual([
      [2, "red fox"],
      [1, "old well"],
    ]);
  });

  test("colours: each changed, two exchanged, articles fitting", async () => {
    const rule = colours({ words: ["red", "blue", "orange"] });
    expect(await rule("A red cube on an orange ball")).toEqual([
      "A blue cube on an orange ball",
      "An orange cube on an orange ball",
      "A red cube on a red ball",
      "A red cube on a blue ball",
      "An orange cube on a red ball",
    ]);
    expect(await rule("a bored bluebird")).toEqual([]);
    expect(() => colours({ words: ["re|d"] })).toThrow(ConfigError);
  });

  test("relations turn round, and back", async () => {
    for (const prompt of ["a cat to the left of a dog", "a lamp above a desk", "a man in front of a wall"]) {
      const [turned, ...more] = await relations()(prompt);
      expect(more).toEqual([]);
      expect(turned).not.toBe(prompt);
      expect(await relations()(turned!)).toEqual([prompt]);
    }
  });

  test("objects exchange their places", async () => {
    expect(await objects()("a dog on an old horse")).toEqual(["an old horse on a dog"]);
    expect(await objects({ others: ["fox"] })("two dogs")).toEqual(["two foxes"]);
  });

  test("of lists, a prompt that has none is an error, not a confidence of 1", () => {
    expect(() => listed({ a: ["b"] })("c")).toThrow(/near misses/);
    expect(listed({ a: ["b"] })("a")).toEqual(["b"]);
  });

  test("several rules: each text once, never the prompt, no more than asked", async () => {
    const all = await anyOf([counting(), composition(), () => ["a cat and a dog", "x"], () => ["x"]])("a cat and a dog");
    expect(new Set(all).size).toBe(all.length);
    expect(all).not.toContain("a cat and a dog");
    expect(all).toHaveLength(4 + 12 - 4 + 1); // four of the counts are among the twelve
    expect(await anyOf([counting()], { atMost: 2 })("three cats")).toEqual(["one cat", "two cats"].map((_, i) => ["a cat", "two cats"][i]));
  });
});

describe("questionnaires", () => {
  const questions: readonly Question[] = [
    { text: "Is there a cat?", points: 1, dimension: "objects" },
    { text: "How good are its hands, 0 to 2?", points: 2, weight: 3, dimension: "faithfulness" },
    { text: "Is it red?", points: 1, dimension: "objects" },
  ];
  const answers: Readonly<Record<string, string>> = {
    "Is there a cat?": "Yes, on the mat",
    "How good are its hands, 0 to 2?": "I would say 1 of 2.",
    "Is it red?": "No.",
  };

  test("are the weighted share of points, in all and by dimension", async () => {
    const asks = questionnaire({ name: "q", judge: async q => answers[q.text]!, questions: () => questions, concurrency: 2 });
    const { score, dimensions } = await asks.judged("a cat", image);
    expect(score).toBeCloseTo((1 + 3 * 0.5 + 0) / 5, 15);
    expect(dimensions).toEqual({ objects: 0.5, faithfulness: 0.5 });
    expect((await scoreItems(asks, asked("a cat"))).scores[0]).toBe(score);
  });

  test("answers are read as EvalAlign reads them", () => {
    expect([parseAnswer("2", 2), parseAnswer("none", 2), parseAnswer("Score: 1/2", 2), parseAnswer("no, 1 cat", 1), parseAnswer(0.5, 1)]).toEqual([
      2, 0, 1, 0, 0.5,
    ]);
  });

  test("an answer out of range is an error, and so is a prompt without questions", async () => {
    const over = questionnaire({ name: "q", judge: async () => 7, questions: () => questions });
    await expect(over.judged("a", image)).rejects.toThrow(/0 .. 1, received 7/);
    await expect(questionnaire({ name: "q", judge: async () => 1, questions: () => [] }).judged("a", image)).rejects.toThrow(ConfigError);
  });
});

describe("measures", () => {
  test("ties share, order of listing does not count, constants have no correlation", () => {
    expect(kendall([1, 2, 3], [1, 2, 3])).toBe(1);
    expect(spearman([1, 2, 3], [9, 4, 1])).toBe(-1);
    expect(kendall([1, 1], [1, 2])).toBeNaN();
    expect(averagePrecisionAtK([5, 4, 3], [0, 0, 0], 2)).toBe(0);
    expect(() => kendall([1], [])).toThrow(/one length/);
    expect(() => averagePrecisionAtK([1], [1], 0)).toThrow(ConfigError);
  });

  test("the best of n by enumeration, ties of the proxy shared", () => {
    const [gold, proxy] = [
      [4, 0, 7, 1, 3],
      [2, 1, 2, 5, 0],
    ];
    // Every draw of 2 of 5; where the best proxy is shared by two of the draw, each is as likely.
    let sum = 0;
    for (let i = 0; i < 5; i++)
      for (let j = i + 1; j < 5; j++) sum += proxy[i]! === proxy[j]! ? (gold[i]! + gold[j]!) / 2 : proxy[i]! > proxy[j]! ? gold[i]! : gold[j]!;
    // The tie's members share in every draw: their golds are their mean, of 4 and 7.
    expect(expectedBestOfN(gold, proxy, 2)).toBeCloseTo(sum / 10, 12);
    expect(expectedBestOfN(gold, proxy, 5)).toBe(1);
    expect(expectedBestOfN(gold, proxy, 1)).toBeCloseTo(3, 12);
    expect(() => expectedBestOfN(gold, proxy, 6)).toThrow(ConfigError);
  });

  test("recall at k, and thresholds of ties", () => {
    const prompts = [
      { scores: [3, 2, 1], ranks: [2, 1, 3] },
      { scores: [1, 2, 3], ranks: [3, 2, 1] },
    ];
    expect([1, 2].map(k => recallAtK(prompts, k))).toEqual([0.5, 1]);
    expect(recallAtK(prompts, 1, "worst")).toBe(1);
    const choices = [
      { p: [0.6, 0.4] as const, label: [0.5, 0.5] as const },
      { p: [0.9, 0.1] as const, label: [1, 0] as const },
    ];
    expect(fitTieThreshold(choices)).toBe(0.2);
  });
});

describe("batches and caches", () => {
  test("sizes add up, are few, and results stay in order", async () => {
    for (let n = 0; n < 70; n++) {
      const sizes = batchSizes(n, 12);
      expect(sizes.reduce((x, y) => x + y, 0)).toBe(n);
      expect(new Set(sizes).size).toBeLessThanOrEqual(5);
      expect(Math.max(0, ...sizes)).toBeLessThanOrEqual(12);
    }
    const numbers = Array.from({ length: 29 }, (_, i) => i);
    expect(await inBatches(numbers, { batchSize: 8 }, async batch => batch.map(x => 2 * x))).toEqual(numbers.map(x => 2 * x));
  });

  test("the least recently used text is forgotten first", () => {
    const cache = new TextCache(2);
    for (const text of ["a", "b"]) cache.set(text, Float64Array.of(1));
    cache.get("a");
    cache.set("c", Float64Array.of(2));
    expect(["a", "b", "c"].map(text => cache.get(text) !== undefined)).toEqual([true, false, true]);
  });
});

describe("HPSv2's pictures", () => {
  test("are the others', but for rounding to 8 bits, where nothing overshoots; alpha is dropped", () => {
    const width = 64;
    const data = Uint8Array.from({ length: 3 * width * 48 }, (_, i) => 60 + ((Math.floor(i / 3) % width) * 2) / 1);
    const smooth: Image = { width, height: 48, channels: 3, data };
    const [own, others] = [hpsImages([smooth], { size: 32 }), clipImages(smooth, { size: 32, centre: "torchvision" })];
    const difference = (own.data as Float32Array).map((x, i) => Math.abs(x - (others.data as Float32Array)[i]!));
    expect(Math.max(...difference)).toBeLessThanOrEqual(1 / 255 / 0.2613 + 1e-6); // two passes, each rounded by at most a half
    const rgba: Image = {
      ...smooth,
      channels: 4,
      data: Uint8Array.from({ length: 4 * width * 48 }, (_, i) => (i % 4 === 3 ? 9 : data[Math.floor(i / 4) * 3 + (i % 4)]!)),
    };
    expect(hpsImages([rgba], { size: 32 }).data).toEqual(own.data);
  });

  test("an odd margin is cropped as torchvision does: the two rules differ by a pixel", () => {
    const picture = pseudoImage(3, 33, 30);
    const wide = pseudoImage(3, 35, 30);
    const [torch, hf] = [clipImages(picture, { size: 30, centre: "torchvision" }), clipImages(picture, { size: 30 })];
    expect(torch.data).not.toEqual(hf.data); // 3 pixels over: 2 and 1
    expect(clipImages(wide, { size: 30, centre: "torchvision" }).data).toEqual(clipImages(wide, { size: 30 }).data); // 5 over: 2.5 is rounded to 2
    expect(() => clipImages(picture, { centre: "middle" as "torchvision" })).toThrow(ConfigError);
  });
});
