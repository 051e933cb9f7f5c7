/** Training a reward on choices: what moves, what stays, and that the model learns what people chose and not another thing. */

import type { Image } from "../../lib/data/image.js";
import { clipImages } from "../../lib/data/preprocess.js";
import { openDevice } from "../../lib/device.js";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { Clip } from "../../lib/models/clip-model.js";
import { readParameter } from "../../lib/models/load.js";
import { clipBackbone } from "../../lib/rewards/clip-backbone.js";
import { pickScore } from "../../lib/rewards/clip-rewards.js";
import { choiceEntropies } from "../../lib/rewards/losses.js";
import { rewardSelfTest } from "../../lib/rewards/self-test.js";
import { type ChoiceBatch, hpsTrains, RewardTrainer } from "../../lib/rewards/train-reward.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { Random } from "../../lib/util/random.js";
import { expectClose } from "../support/compare.js";
import { numbers } from "../support/gradients.js";
import { closedAfterTest } from "../support/models.js";
import { letterTokenizer } from "../support/reward-models.js";
import { pseudoRandom } from "../support/unet.js";

const tower = { hidden_size: 24, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 3 };
const config = {
  text_config: { ...tower, vocab_size: 120, max_position_embeddings: 12, eos_token_id: 2 },
  vision_config: { ...tower, image_size: 16, patch_size: 8 },
  projection_dim: 16,
};
const closed = closedAfterTest<Clip>();
const make = async (dtype: "f32" | "f64", seed = 3): Promise<Clip> =>
  closed(await Clip.create(config, { device: await openDevice("cpu"), seed, dtype, trainable: true }));
const idsOf = (prompts: readonly string[]): HostTensor => letterTokenizer.encode(prompts, { maxLength: 12 }).ids;

function randomBatch(size: number, salt: number, labels: readonly number[]): ChoiceBatch {
  return {
    first: pseudoRandom([size, 3, 16, 16], salt),
    second: pseudoRandom([size, 3, 16, 16], salt + 1),
    inputIds: idsOf(Array.from({ length: size }, (_, i) => `prompt ${salt} ${i}`)),
    labels,
    weights: labels.map((_, i) => 1 / (1 + i)),
  };
}

async function weights(clip: Clip): Promise<Map<string, Float64Array>> {
  const out = new Map<string, Float64Array>();
  for (const entry of clip.store.entries.values()) out.set(entry.name, numbers(await readParameter(clip.session, clip.store, entry, "f64")));
  return out;
}

const joined = (a: HostTensor, b: HostTensor): HostTensor =>
  hostTensor("f64", [a.shape[0]! + b.shape[0]!, ...a.shape.slice(1)], Float64Array.from([...numbers(a), ...numbers(b)]));

test("two batches of a step are one batch, weights and all", async () => {
  const [a, b] = [randomBatch(3, 10, [1, 0, 0.5]), randomBatch(2, 20, [0, 1])];
  const both: ChoiceBatch = {
    first: joined(a.first, b.first),
    second: joined(a.second, b.second),
    inputIds: joined(a.inputIds, b.inputIds),
    labels: [...a.labels, ...b.labels],
    weights: [...a.weights!, ...b.weights!],
  };
  const results = [];
  for (const batches of [[a, b], [both]]) {
    const clip = await make("f64");
    const trainer = new RewardTrainer(clip, { learningRate: 1e-3 });
    results.push({ step: await trainer.step(batches), weights: await weights(clip) });
  }
  const [apart, together] = results;
  // The loss is the mean by weight over both, or the sum.
  const clip = await make("f64");
  const of = async (reduction: "mean" | "sum", batches: readonly ChoiceBatch[]): Promise<number> =>
    (await new RewardTrainer(clip, { learningRate: 1e-3, reduction }).evaluate(batches)).loss;
  const total = (batch: ChoiceBatch): number => batch.weights!.reduce((x, y) => x + y, 0);
  const sums = [(await of("mean", [a])) * total(a), (await of("mean", [b])) * total(b)];
  expect(apart!.step.loss).toBeCloseTo((sums[0]! + sums[1]!) / (total(a) + total(b)), 12);
  expect(await of("sum", [a, b])).toBeCloseTo(sums[0]! + sums[1]!, 11);
  expect(apart!.step.loss).toBeCloseTo(together!.step.loss, 12);
  expect(apart!.step.gradNorm).toBeCloseTo(together!.step.gradNorm, 10);
  for (const [name, value] of apart!.weights) expectClose(value, together!.weights.get(name)!, 1e-9, name); // Adam divides a rounding by itself where a gradient is 0
});

test("the update is AdamW's: the first moves every weight by the rate, less the decay where it is asked for", async () => {
  const clip = await make("f64");
  const before = await weights(clip);
  const trainer = new RewardTrainer(clip, { learningRate: 1e-3, weightDecay: 0.1, maxGradNorm: 1e9, decays: ({ shape }) => shape.length > 1, eps: 1e-300 });
  await trainer.step([randomBatch(4, 30, [1, 0, 1, 0])]);
  const after = await weights(clip);
  const moves = (name: string, decay: number): number[] => [...after.get(name)!].map((w, i) => Math.abs(w - before.get(name)![i]! * (1 - 1e-3 * decay)));
  for (const d of moves("visual_projection.weight", 0.1)) expect(Math.abs(d - 1e-3)).toBeLessThan(1e-12);
  for (const d of moves("vision_model.post_layernorm.weight", 0)) expect(Math.abs(d - 1e-3)).toBeLessThan(1e-12);
});

test("in part: what is frozen keeps every bit, what is trained moves", async () => {
  const clip = await make("f32");
  const before = await weights(clip);
  const trains = hpsTrains(clip.config, { textLayers: 1, imageLayers: 1 });
  const trainer = new RewardTrainer(clip, { learningRate: 1e-2, trains, losses: choiceEntropies, reduction: "sum", logitScaleRange: [0, 2.6592] });
  for (let i = 0; i < 3; i++) await trainer.step([randomBatch(4, 40 + 2 * i, [1, 0, 1, 1])]);
  for (const [name, value] of await weights(clip)) {
    if (!trains(name)) expect([name, [...value]]).toEqual([name, [...before.get(name)!]]);
    else if (name !== "logit_scale" && !name.endsWith("k_proj.bias")) expect([name, [...value]]).not.toEqual([name, [...before.get(name)!]]);
  }
  expect(trainer.trained).toEqual(expect.arrayContaining(["logit_scale", "vision_model.encoder.layers.1.mlp.fc1.weight"]));
  expect(trainer.trained).not.toContain("vision_model.encoder.layers.0.mlp.fc1.weight");
  expect((await weights(clip)).get("logit_scale")![0]).toBeLessThanOrEqual(Math.fround(2.6592));
});

test("a batch that makes the gradient infinite moves nothing", async () => {
  const clip = await make("f32");
  const before = await weights(clip);
  const trainer = new RewardTrainer(clip, { learningRate: 1e-2 });
  const batch = randomBatch(2, 60, [1, 0]);
  const pixels = Float32Array.from(numbers(batch.first));
  pixels[5] = Number.POSITIVE_INFINITY;
  const { gradNorm } = await trainer.step([{ ...batch, first: hostTensor("f32", batch.first.shape, pixels) }]);
  expect(Number.isFinite(gradNorm)).toBe(false);
  expect(await weights(clip)).toEqual(before);
});

test("what does not fit is refused before anything runs", async () => {
  const clip = await make("f32");
  expect(() => new RewardTrainer(clip, { learningRate: 0 })).toThrow(ConfigError);
  expect(() => new RewardTrainer(clip, { learningRate: 1, trains: () => false })).toThrow(/trains/);
  const trainer = new RewardTrainer(clip, { learningRate: 1e-3 });
  const batch = randomBatch(2, 70, [1, 0]);
  await expect(trainer.step([{ ...batch, labels: [1] }])).rejects.toThrow(ShapeError);
  await expect(trainer.step([{ ...batch, labels: [1, 0.3] }])).rejects.toThrow(/labels/);
  await expect(trainer.step([])).rejects.toThrow(ConfigError);
});

test("it learns what was chosen: bright pictures of one prompt, dark ones of the other; and then the self test passes", async () => {
  const random = new Random(9);
  const grey = (level: number): Image => ({
    ...{ width: 16, height: 16, channels: 3 },
    data: Uint8Array.from({ length: 768 }, () => Math.min(255, Math.max(0, Math.round(level + 30 * random.normal())))),
  });
  /** The picture that fits the prompt, and one that fits it less. */
  const draw = () => {
    const prompt = random.uniform() < 0.5 ? "bright" : "dark";
    const [low, high] = [20 + 90 * random.uniform(), 140 + 90 * random.uniform()];
    return { prompt, winner: grey(prompt === "bright" ? high : low), loser: grey(prompt === "bright" ? low : high) };
  };
  const batchOf = (pairs: readonly ReturnType<typeof draw>[]): ChoiceBatch => {
    const labels = pairs.map(() => Number(random.uniform() < 0.5));
    const at = (first: boolean) =>
      clipImages(
        pairs.map((p, i) => ((labels[i] === 1) === first ? p.winner : p.loser)),
        { size: 16 },
      );
    return { first: at(true), second: at(false), inputIds: idsOf(pairs.map(p => p.prompt)), labels };
  };
  const clip = await make("f32", 5);
  const trainer = new RewardTrainer(clip, { learningRate: 3e-3 });
  const held = Array.from({ length: 32 }, draw);
  const test = [batchOf(held)];
  const before = await trainer.evaluate(test);
  for (let i = 0; i < 40; i++) await trainer.step([batchOf(Array.from({ length: 16 }, draw))]);
  const after = await trainer.evaluate(test);
  expect(after.accuracy).toBeGreaterThanOrEqual(0.95);
  expect(after.loss).toBeLessThan(before.loss / 4);
  const reward = pickScore(clipBackbone(clip, { tokenizer: { encode: texts => letterTokenizer.encode(texts, { maxLength: 12 }) } }));
  const bright = held.filter(p => p.prompt === "bright");
  const dark = held.filter(p => p.prompt === "dark");
  const items = [...bright.slice(0, 4), ...dark.slice(0, 4)].map(({ prompt, winner: image }) => ({ prompt, image }));
  const report = await rewardSelfTest(reward, { items, pairs: held });
  const right = Object.fromEntries(report.checks.map(c => [c.name, c.right / c.total]));
  expect(right["shuffled prompt"]).toBe(1);
  expect(right["gold pair"]).toBeGreaterThanOrEqual(0.95);
  expect(right["batch size"]).toBe(1);
});
