/** Rewards as users hold them: on tiny models, from pictures and prompts to numbers. */

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import type { Image } from "../../lib/data/image.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import type { Clip } from "../../lib/models/clip-model.js";
import { clipBackbone } from "../../lib/rewards/clip-backbone.js";
import { aesthetic, clipScore, hps, pickScore } from "../../lib/rewards/clip-rewards.js";
import { anyOf, counting, listed } from "../../lib/rewards/contrast.js";
import { blipScoreReward, imageReward } from "../../lib/rewards/image-reward.js";
import type { ImageRewardModel } from "../../lib/rewards/image-reward-model.js";
import { preferenceProbability, type Reward, type RewardItem, rank, scoreItems } from "../../lib/rewards/reward.js";
import { scoreStream } from "../../lib/rewards/score-stream.js";
import { rewardSelfTest } from "../../lib/rewards/self-test.js";
import { normalizedScore, textNorm } from "../../lib/rewards/text-norm.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { expectClose } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { letterTokenizer, letterTokenizerOf60, pseudoImage, tinyHps, tinyImageReward } from "../support/reward-models.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const prompts = ["a cat", "two dogs on a sofa", "an astronaut", "a red cube", "rain"];
const items: readonly RewardItem[] = Array.from({ length: 13 }, (_, i) => ({ prompt: prompts[i % prompts.length]!, image: pseudoImage(i, 30 + i, 44 - i) }));

describeSets("rewards", folder => {
  let clip: Clip, blip: ImageRewardModel;
  beforeAll(async () => {
    [clip, blip] = [await tinyHps(folder, "f32"), await tinyImageReward(folder, "f32")];
  });
  afterAll(async () => {
    await clip?.close();
    await blip?.close();
  });
  const backbone = (batchSize = 16) => clipBackbone(clip, { tokenizer: letterTokenizer, batchSize });
  const head = () => ({ weight: Float64Array.from({ length: clip.config.projection }, (_, i) => Math.sin(i)), bias: 5 });
  const rewards: readonly (readonly [string, (batchSize: number) => Reward])[] = [
    ["CLIPScore", n => clipScore(backbone(n))],
    ["CLIPScore, Hessel's", n => clipScore(backbone(n), { form: "hessel" })],
    ["PickScore", n => pickScore(backbone(n))],
    ["HPSv2", n => hps(backbone(n), { version: "v2.1" })],
    ["aesthetic", n => aesthetic(backbone(n), head())],
    ["ImageReward", n => imageReward(blip, { tokenizer: letterTokenizerOf60, batchSize: n })],
    ["BLIPScore", n => blipScoreReward(blip, { tokenizer: letterTokenizerOf60, batchSize: n })],
  ];

  test.each(rewards)("%s: a score does not depend on what else is scored, nor on the batch", async (_, make) => {
    const { scores: together } = await scoreItems(make(16), items);
    expect(new Set(together).size).toBeGreaterThan(6); // not all alike: there is something to compare
    for (const size of [1, 3, 5]) {
      const { scores } = await scoreItems(make(size), items);
      expectClose(scores, together, 1e-6, `batches of ${size}`);
    }
    const alone = make(16);
    for (const i of [0, 7, 12]) expectClose((await scoreItems(alone, [items[i]!])).scores, [together[i]!], 1e-6, `item ${i} alone`);
    const reversed = await scoreItems(make(4), [...items].reverse());
    expectClose([...reversed.scores].reverse(), together, 1e-6, "in the other order");
  });

  test("the four ways to read one cosine agree", async () => {
    const own = backbone();
    const [cosine, hessel, pick, hpsv2] = [
      await scoreItems(clipScore(own), items),
      await scoreItems(clipScore(own, { form: "hessel" }), items),
      await scoreItems(pickScore(own), items),
      await scoreItems(hps(own, { version: "v2" }), items),
    ];
    expect(hpsv2.scores).toEqual(cosine.scores);
    expect(hessel.scores).toEqual(cosine.scores.map(c => 2.5 * Math.max(0, c)));
    const factor = await clip.logitScale();
    expect(pick.scores).toEqual(cosine.scores.map(c => factor * c));
    expect([cosine.model, pick.version, hpsv2.scale.logits]).toEqual(["CLIPScore", "v1", 100]);
  });

  test("prompts and pictures are encoded once, whoever asks", async () => {
    const counts = { text: 0, image: 0 };
    const counted: Clip = new Proxy(clip, {
      get(target, key) {
        if (key !== "encodeText" && key !== "encodeImage") return Reflect.get(target, key, target);
        return (inputs: never, options: object) => {
          const { shape } = key === "encodeText" ? (inputs as { inputIds: HostTensor }).inputIds : (inputs as HostTensor);
          counts[key === "encodeText" ? "text" : "image"] += shape[0]!;
          return target[key](inputs, options);
        };
      },
    });
    const own = clipBackbone(counted, { tokenizer: letterTokenizer });
    for (const reward of [clipScore(own), hps(own, { version: "v2" }), aesthetic(own, head())]) await scoreItems(reward, items);
    await scoreItems(textNorm(clipScore(own), { contrast: () => prompts }), items);
    expect(counts).toEqual({ text: prompts.length, image: items.length });
  });

  test("rank puts the best first; probabilities are those of the logits", async () => {
    const reward = pickScore(backbone());
    const images = items.slice(0, 5).map(item => item.image);
    const { ranking, model } = await rank(reward, "a cat", images);
    expect(model).toBe("PickScore");
    const { scores } = await scoreItems(
      reward,
      images.map(image => ({ prompt: "a cat", image })),
    );
    expect(ranking.map(r => r.score)).toEqual([...scores].sort((a, b) => b - a));
    for (const r of ranking) expect(r.image).toBe(images[r.index]);
    const p = await preferenceProbability(reward, "a cat", images);
    expect(p.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    for (const i of [1, 2]) expect(Math.log(p[i]! / p[0]!)).toBeCloseTo(scores[i]! - scores[0]!, 9);
    await expect(preferenceProbability(clipScore(backbone()), "a cat", images)).rejects.toThrow(/scale.logits of CLIPScore/);
  });

  test("two pictures of ImageReward: Bradley and Terry on its raw numbers", async () => {
    const reward = imageReward(blip, { tokenizer: letterTokenizerOf60 });
    const images = [items[0]!.image, items[1]!.image];
    const { scores } = await scoreItems(
      reward,
      images.map(image => ({ prompt: "a cat", image })),
    );
    const raw = scores.map(s => s * blip.config.std + blip.config.mean);
    const [p = 0] = await preferenceProbability(reward, "a cat", images);
    expect(p).toBeCloseTo(1 / (1 + Math.exp(raw[1]! - raw[0]!)), 12);
  });

  test.each([
    ["CLIP", () => clipScore(backbone(5))] as const,
    ["ImageReward", () => imageReward(blip, { tokenizer: letterTokenizerOf60, batchSize: 5 })] as const,
  ])("TextNorm on %s is the softmax of the scores with the near misses", async (_, make) => {
    const contrast = anyOf([counting(), listed(Object.fromEntries(prompts.map(p => [p, prompts])))]);
    const normed = await scoreItems(textNorm(make(), { contrast, temperature: 0.1 }), items.slice(0, 4));
    for (const [i, { prompt, image }] of items.slice(0, 4).entries()) {
      const set = [prompt, ...(await contrast(prompt))];
      expect(set.length).toBeGreaterThan(4);
      const { scores } = await scoreItems(
        make(),
        set.map(text => ({ prompt: text, image })),
      );
      expect(normed.scores[i]).toBeCloseTo(normalizedScore(scores, { temperature: 0.1 }), 5);
    }
  });

  test("an aborted signal stops scoring with its reason", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const reward = pickScore(backbone(1));
    const running = scoreItems(reward, items, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 5);
    await expect(running).rejects.toBe(reason);
    await expect(scoreItems(reward, items, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test("the self test runs on a model, and names what it compared", async () => {
    const pairs = [{ prompt: "a cat", winner: items[0]!.image, loser: items[1]!.image }];
    const report = await rewardSelfTest(pickScore(backbone()), { items, pairs });
    expect(report.checks.map(c => [c.name, c.total])).toEqual([
      ["black image", items.length],
      ["shuffled prompt", items.length],
      ["gold pair", 1],
      ["batch size", 1],
    ]);
    expect(report.checks[3]!.right).toBe(1);
  });
});

/** Brightness of the picture against what the prompt says: a reward that can be told right from wrong. */
const brightness: Reward = {
  name: "brightness",
  version: "1",
  scale: { unit: "agreement", typical: [-255, 255] },
  score: scored => scored.map(({ prompt, image }) => (prompt === "bright" ? 1 : -1) * (image.data.reduce((a, b) => a + b, 0) / image.data.length)),
};
const grey = (value: number): Image => ({ width: 2, height: 2, channels: 3, data: new Uint8Array(12).fill(value) });

describe("the self test", () => {
  const good: RewardItem[] = [
    { prompt: "bright", image: grey(200) },
    { prompt: "bright", image: grey(250) },
    { prompt: "dark", image: grey(3) },
  ];

  test("finds right what is right, and a reward that is blind wrong", async () => {
    const pairs = [{ prompt: "dark", winner: grey(1), loser: grey(9) }];
    const sees = await rewardSelfTest(brightness, { items: good, pairs });
    expect(sees.checks.map(c => c.right)).toEqual([2, 3 - 1, 1, 1]); // the dark picture is better black, and better than bright
    const blind = await rewardSelfTest({ ...brightness, score: scored => scored.map(() => 0.5) }, { items: good, pairs });
    expect([blind.passed, ...blind.checks.map(c => c.right)]).toEqual([false, 0, 0, 0, 1]);
  });

  test("finds a reward whose scores depend on their batch", async () => {
    const { checks } = await rewardSelfTest({ ...brightness, score: scored => scored.map((_, i) => i) }, { items: good });
    expect(checks.find(c => c.name === "batch size")!.right).toBe(0);
  });
});

describe("what is no reward", () => {
  const one = [{ prompt: "bright", image: grey(1) }];
  test.each([
    ["too few scores", { ...brightness, score: () => [] }, DataError],
    ["a score that is NaN", { ...brightness, score: () => [Number.NaN] }, DataError],
    ["no name", { ...brightness, name: "" }, ConfigError],
    ["no scale", { ...brightness, scale: undefined as unknown as Reward["scale"] }, ConfigError],
    ["no function", { ...brightness, score: 3 as unknown as Reward["score"] }, ConfigError],
  ] as const)("%s is refused", async (_, reward, Failure) => {
    await expect(scoreItems(reward, one)).rejects.toThrow(Failure);
  });
});

describe("scoreStream", () => {
  const ids = Array.from({ length: 23 }, (_, i) => `image ${i}`);
  /** Items that count how often their picture is asked for. */
  function source(loads: string[]) {
    return ids.map((id, i) => ({
      id,
      prompt: i % 2 ? "bright" : "dark",
      image: async () => {
        loads.push(id);
        return grey(i);
      },
    }));
  }
  const collected = async (stream: AsyncIterable<{ id: string; score: number; logged: boolean }>) => {
    const out: { id: string; score: number; logged: boolean }[] = [];
    for await (const one of stream) out.push(one);
    return out;
  };
  const expected = ids.map((id, i) => ({ id, score: i % 2 ? i : -i }));

  test("scores all in order, reading no further ahead than a batch", async () => {
    const loads: string[] = [];
    let most = 0;
    let given = 0;
    async function* counted() {
      for (const item of source(loads)) {
        yield item;
        most = Math.max(most, loads.length - given);
      }
    }
    const got: unknown[] = [];
    for await (const { id, score } of scoreStream(brightness, counted(), { batchSize: 4 })) {
      got.push({ id, score: score + 0 });
      given++;
    }
    expect(got).toEqual(expected.map(e => ({ ...e, score: e.score + 0 })));
    expect(most).toBeLessThanOrEqual(4);
  });

  test("goes on where it was stopped, after a line that was cut off too", async () => {
    const log = at("scores.jsonl");
    const first: string[] = [];
    let seen = 0;
    for await (const _ of scoreStream(brightness, source(first), { log, batchSize: 5 })) if (++seen === 7) break;
    expect(first).toEqual(ids.slice(0, 10));
    appendFileSync(log, '{"id":"image 10","sco'); // the machine stopped here
    const second: string[] = [];
    const all = await collected(scoreStream(brightness, source(second), { log, batchSize: 5 }));
    expect(second).toEqual(ids.slice(10));
    expect(all.map(({ id, score }) => ({ id, score: score + 0 }))).toEqual(expected.map(e => ({ ...e, score: e.score + 0 })));
    expect(all.map(a => a.logged)).toEqual(ids.map((_, i) => i < 10));
    const third: string[] = [];
    const again = await collected(scoreStream(brightness, source(third), { log }));
    expect(third).toEqual([]);
    expect(again.map(a => a.score)).toEqual(all.map(a => a.score));
    expect(readFileSync(log, "utf8").trim().split("\n")).toHaveLength(1 + ids.length);
  });

  test("shards part the items, whatever their order", async () => {
    const shards = await Promise.all([0, 1, 2].map(index => collected(scoreStream(brightness, source([]), { shard: { index, of: 3 } }))));
    expect(
      shards
        .flat()
        .map(s => s.id)
        .sort(),
    ).toEqual([...ids].sort());
    expect(shards.every(shard => shard.length > 0)).toBe(true);
    const reversed = await collected(scoreStream(brightness, source([]).reverse(), { shard: { index: 1, of: 3 } }));
    expect(reversed.map(s => s.id).reverse()).toEqual(shards[1]!.map(s => s.id));
  });

  test("a log of another version, and an id that comes twice, are refused; the log stays", async () => {
    const log = at("scores.jsonl");
    await collected(scoreStream(brightness, source([]), { log }));
    const before = readFileSync(log, "utf8");
    await expect(collected(scoreStream({ ...brightness, version: "2" }, source([]), { log }))).rejects.toThrow(/"1".*"2"|"2".*"1"/);
    expect(readFileSync(log, "utf8")).toBe(before);
    await expect(collected(scoreStream(brightness, [...source([]), ...source([])], {}))).rejects.toThrow(/twice/);
    await expect(collected(scoreStream(brightness, source([]), { shard: { index: 3, of: 3 } }))).rejects.toThrow(ConfigError);
    writeFileSync(log, '{"model":"brightness","version":"1","scale":{"unit":"agreement","typical":[-255,255]}}\n{"id":5}\n{"id":"a","score":1}\n');
    await expect(collected(scoreStream(brightness, source([]), { log }))).rejects.toThrow(DataError);
  });
});
