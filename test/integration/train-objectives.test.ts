/** What an objective declares reaches it: numbers stay with their pairs through shuffling, micro-batches, validation and resuming; arms and guides are those
 *  that were asked for. */

import path from "node:path";
import { flowSchedule } from "../../lib/diffusion/flow.js";
import { ConfigError, DataError } from "../../lib/errors.js";
import { initialise, reserve } from "../../lib/nn/init.js";
import { LoraAdapter } from "../../lib/nn/lora.js";
import { plackettLuce } from "../../lib/objectives/adpo-listwise.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { flowDpo } from "../../lib/objectives/flow-dpo.js";
import { kto } from "../../lib/objectives/kto.js";
import { ldDpo } from "../../lib/objectives/ld-dpo.js";
import type { Objective } from "../../lib/objectives/objective.js";
import { ofsFast, ofsSlow } from "../../lib/objectives/ofs-dpo.js";
import { rdpo } from "../../lib/objectives/rdpo.js";
import { rewardWeighted } from "../../lib/objectives/reward-weighted.js";
import { sdpo } from "../../lib/objectives/sdpo.js";
import { givenWeight, minSnr, weightErrors, weightLosses } from "../../lib/objectives/weighting.js";
import type { StepEvent, TrainEvent } from "../../lib/train/events.js";
import { type PairBatch, tensorPairs } from "../../lib/train/pair-data.js";
import type { Trainable } from "../../lib/train/trainable.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { collect, openToy, steps, temporaryFolder, timeless, toyPairs, toyTrainer, weightsOf } from "./train-support.js";

const scratch = temporaryFolder();
const pairs = 7;
const numbers = (at: (i: number) => number, width = 1): HostTensor =>
  hostTensor(
    "f32",
    width > 1 ? [pairs, width] : [pairs],
    Float32Array.from({ length: pairs * width }, (_, i) => at(i)),
  );
const plain: PairBatch = toyPairs(pairs);
const optimizer = { learningRate: 0.01, weightDecay: 0 };

interface Run {
  readonly events: StepEvent[];
  readonly weights: number[];
}

async function train(objective: Objective, data: PairBatch, options: Partial<Parameters<typeof toyTrainer>[0]> = {}): Promise<Run> {
  const model = options.model ?? (await openToy());
  const events = steps(await collect(toyTrainer({ batchSize: 2, optimizer, ...options, model, objective, data: tensorPairs(data) }).run()));
  return { events, weights: Array.from(await weightsOf(model)) };
}

const lossesOf = ({ events }: Run): number[] => events.map(({ loss }) => loss);

test("weights of 1 train as no weights do, and weights of 0 leave the model as it was", async () => {
  const objective = weightLosses(diffusionDpo({ beta: 50 }), givenWeight);
  const [free, ones] = [await train(diffusionDpo({ beta: 50 }), plain), await train(objective, { ...plain, extras: { weight: numbers(() => 1) } })];
  expect(ones.weights).toEqual(free.weights);
  const start = Array.from(await weightsOf(await openToy()));
  const none = await train(objective, { ...plain, extras: { weight: numbers(() => 0) } });
  expect(none.weights).toEqual(start);
  expect(none.events.every(({ gradNorm }) => gradNorm === 0)).toBe(true);
});

test("a number stays with its pair, whatever the order and the batches", async () => {
  const objective = weightLosses(diffusionDpo({ beta: 50 }), givenWeight);
  const extras = { weight: numbers(i => Number(i === 3)) };
  // All other pairs count nothing: they may hold anything.
  const other = toyPairs(pairs, { seed: 9 });
  const mixed = (a: HostTensor, b: HostTensor): HostTensor => {
    const data = (b.data as Float32Array).slice();
    const width = data.length / pairs;
    data.set((a.data as Float32Array).subarray(3 * width, 4 * width), 3 * width);
    return { ...a, data };
  };
  const altered = { ...plain, winners: mixed(plain.winners, other.winners), losers: mixed(plain.losers!, other.losers) };
  for (const shape of [{ batchSize: 1, gradientAccumulationSteps: 2 }, { batchSize: 2 }, { batchSize: 3 }]) {
    const [a, b] = [await train(objective, { ...plain, extras }, shape), await train(objective, { ...altered, extras }, shape)];
    expect(b.weights).toEqual(a.weights);
    expect(a.weights).not.toEqual((await train(objective, { ...plain, extras: { weight: numbers(i => Number(i === 4)) } }, shape)).weights);
  }
});

test("a run with labels is resumed to the same bits, and is validated", async () => {
  const data = tensorPairs({ ...plain, extras: { desirable: numbers(i => i % 2) } });
  const objective = kto({ beta: 50 });
  const output = path.join(scratch.path, "kto");
  const options = { objective, data, batchSize: 2, steps: 6, optimizer, conditionDropout: 0.3, validation: { data: tensorPairs(toyPairs(4)), every: 3 } };
  const whole = await openToy();
  const wholeEvents = await collect(toyTrainer({ ...options, model: whole }).run());
  const first = await openToy();
  const trainer = toyTrainer({ ...options, model: first, output, checkpointEvery: 2 });
  for await (const event of trainer.run()) if (event.type === "step" && event.step === 3) break;
  const second = await openToy();
  const rest = await collect(toyTrainer({ ...options, model: second, output, resume: "latest" }).run());
  expect(steps(rest).map(timeless)).toEqual(steps(wholeEvents).slice(3).map(timeless));
  expect(Array.from(await weightsOf(second))).toEqual(Array.from(await weightsOf(whole)));
  expect(wholeEvents.filter(event => event.type === "validation").length).toBe(2);
});

test("a checkpoint of one objective is not resumed with another", async () => {
  const data = tensorPairs({ ...plain, extras: { desirable: numbers(i => i % 2), weight: numbers(() => 1) } });
  const output = path.join(scratch.path, "other");
  await collect(toyTrainer({ model: await openToy(), objective: diffusionDpo({ beta: 50 }), data, steps: 1, output }).run());
  const resumed = toyTrainer({
    model: await openToy(),
    objective: weightLosses(diffusionDpo({ beta: 50 }), givenWeight),
    data,
    steps: 2,
    output,
    resume: "latest",
  });
  await expect(collect(resumed.run())).rejects.toThrow(/objective "diffusion-dpo", this run has "diffusion-dpo-weighted"/);
});

test.each<[string, Partial<PairBatch>, RegExp]>([
  ["no labels", {}, /expected extras.desirable in every batch, which the objective kto asks for/],
  ["labels of another shape", { extras: { desirable: numbers(() => 1, 2) } }, /extras.desirable to be \[2\], received \[2,2\]/],
  ["a label above 1", { extras: { desirable: numbers(() => 2) } }, /row 0.*extras.desirable to be in \[0, 1\], received 2/],
  ["a label that is no number", { extras: { desirable: numbers(() => Number.NaN) } }, /received NaN/],
])("%s: refused with the field named, nothing trained", async (_name, extras, message) => {
  const model = await openToy();
  const before = Array.from(await weightsOf(model));
  const run = collect(toyTrainer({ model, objective: kto({ beta: 50 }), data: tensorPairs({ ...plain, ...extras }), batchSize: 2 }).run());
  await expect(run).rejects.toThrow(DataError);
  await expect(run).rejects.toThrow(message);
  expect(Array.from(await weightsOf(model))).toEqual(before);
});

test("samples and conditions that are asked for are named where they are missing", async () => {
  await expect(train(rdpo({ beta: 50 }), plain)).rejects.toThrow(/expected conditions.contrast in every batch, which the objective rdpo asks for/);
  const rewarded = { ...plain, extras: { reward: numbers(() => 1) } };
  await expect(train(rewardWeighted({ beta: 1 }), rewarded)).rejects.toThrow(/expected samples.pretrain in every batch/);
  expect(() => tensorPairs({ ...plain, extras: { weight: hostTensor("f32", [3]) } })).toThrow(/extras.weight is \[3\], expected 7 rows/);
  expect(() => tensorPairs({ ...plain, conditions: { contrast: { ids: hostTensor("i32", [2, 3]) } } })).toThrow(/conditions.contrast.ids is \[2,3\]/);
});

test("the contrast of a prompt with itself adds ln 2, and nothing to learn", async () => {
  const [dpo, both] = [
    await train(diffusionDpo({ beta: 50 }), plain),
    await train(rdpo({ beta: 50 }), { ...plain, conditions: { contrast: plain.condition } }),
  ];
  for (const [i, loss] of lossesOf(both).entries()) expect(loss - lossesOf(dpo)[i]!).toBeCloseTo(Math.LN2, 5);
  expect(both.events.every(({ metrics }) => metrics.conditionAccuracy === 0.5)).toBe(true);
});

test("another prompt as contrast is told from the own one in time", async () => {
  const ids = hostTensor(
    "i32",
    [pairs, 3],
    Int32Array.from({ length: pairs * 3 }, (_, i) => ((plain.condition.ids!.data as Int32Array)[i]! + 2) % 5),
  );
  const { events } = await train(rdpo({ beta: 500 }), { ...plain, conditions: { contrast: { ids } } }, { steps: 60 });
  const late = events.slice(-20).reduce((sum, { metrics }) => sum + metrics.conditionMargin!, 0);
  expect(late).toBeGreaterThan(0);
});

test("a group of two ranked by hard labels trains as pairs do; a third picture takes part", async () => {
  const extras = { rewards: numbers(i => (i + 1) % 2, 2) };
  const [dpo, ranked] = [await train(diffusionDpo({ beta: 50 }), plain), await train(plackettLuce({ size: 2, beta: 50 }), { ...plain, extras })];
  for (const [i, loss] of lossesOf(ranked).entries()) expect(loss).toBeCloseTo(lossesOf(dpo)[i]!, 6);
  const third = (seed: number): PairBatch => ({ ...plain, samples: { 2: toyPairs(pairs, { seed }).winners }, extras: { rewards: numbers(i => -(i % 3), 3) } });
  const [a, b] = [await train(plackettLuce({ size: 3, beta: 50 }), third(4)), await train(plackettLuce({ size: 3, beta: 50 }), third(5))];
  expect(a.events[0]!.loss).toBeCloseTo(Math.log(6) / 2, 6);
  expect(b.weights).not.toEqual(a.weights);
});

/** An adapter of the toy with values of its own. */
async function adapterOf(model: Trainable, seed: number): Promise<LoraAdapter> {
  const trainer = toyTrainer({ model, lora: { rank: 2, targets: ["conv_in", "conv_out"] }, steps: 2, seed });
  await collect(trainer.run());
  return trainer.adapter!;
}

test("a guide is asked for and read as it stands", async () => {
  const model = await openToy();
  expect(() => toyTrainer({ model, objective: ofsFast({ beta: 50 }) })).toThrow(/expected guide to be an adapter for the objective ofs-dpo-fast/);
  const guide = await adapterOf(model, 1);
  expect(() => toyTrainer({ model, guide })).toThrow(/expected guide to be absent for the objective diffusion-dpo/);
  expect(() => toyTrainer({ model, guide, lora: guide, objective: ofsFast({ beta: 50 }) })).toThrow(ConfigError);
  const own = new LoraAdapter(guide.store.mirror("own", { trainable: true }), { rank: 2, targets: ["conv_in", "conv_out"] });
  reserve(model.session, own.store);
  await initialise(model.session, own.store, { seed: 2, stream: 99 });
  const before = Array.from(await weightsOf(model, guide.store));
  const trainer = toyTrainer({ model, guide, lora: own, objective: ofsFast({ beta: 50, alpha: 0.5 }), batchSize: 2 });
  const [first] = steps(await collect(trainer.run()));
  expect(Array.from(await weightsOf(model, guide.store))).toEqual(before);
  // The own adapter begins as the reference: m_F = 0, so the loss is ln 2 + alpha softplus(m_S), above the value of a guide that is the reference.
  expect(Math.abs(first!.loss - 1.5 * Math.LN2)).toBeGreaterThan(1e-6);
  expect(first!.metrics.implicitAccuracy).toBe(0.5);
});

test("fast and slow adapters chase each other step by step, each reading the other as it stands", async () => {
  const model = await openToy();
  const targets = ["conv_in", "conv_out"];
  const layout = (await adapterOf(model, 1)).store;
  const fresh = async (arena: string): Promise<LoraAdapter> => {
    const adapter = new LoraAdapter(layout.mirror(arena, { trainable: true }), { rank: 2, targets });
    reserve(model.session, adapter.store);
    await initialise(model.session, adapter.store, { seed: 2, stream: 99 });
    return adapter;
  };
  const data = tensorPairs(toyPairs(pairs, { offset: 1 }));
  const settings = { model, data, batchSize: 7, steps: 40, optimizer: { learningRate: 0.002, weightDecay: 0 }, maxGradNorm: Infinity };
  const nextStep = async (run: AsyncGenerator<TrainEvent, void>): Promise<StepEvent> => {
    for (;;) {
      const event = (await run.next()).value!;
      if (event.type === "step") return event;
    }
  };
  /** Both modules in turns: the gradient that fast begins with, and how far its margins are ahead. */
  const chase = async (alpha: number): Promise<{ gradNorm: number; lead: number }> => {
    const [fast, slow] = [await fresh(`fast ${alpha}`), await fresh(`slow ${alpha}`)];
    const first = toyTrainer({ ...settings, lora: fast, guide: slow, objective: ofsFast({ beta: 200, alpha }) }).run();
    const second = toyTrainer({ ...settings, lora: slow, guide: fast, objective: ofsSlow({ beta: 200, alpha }) }).run();
    const { gradNorm } = await nextStep(first);
    let lead = 0;
    for (let step = 0; step < 39; step++) lead -= (await nextStep(second)).metrics.margin! - (await nextStep(first)).metrics.margin!;
    return { gradNorm, lead };
  };
  const [free, chased] = [await chase(0), await chase(0.5)];
  expect(chased.gradNorm / free.gradNorm).toBeCloseTo(1.5, 5); // where the two agree the chase adds alpha times DPO's own slope
  expect(chased.lead).toBeGreaterThan(free.lead);
});

test("segments, cross terms and levels of noise are made where they are asked for", async () => {
  const lengths = { winnerLength: numbers(() => 4), loserLength: numbers(() => 4) };
  const dpo = await train(diffusionDpo({ beta: 50 }), plain);
  const whole = await train(ldDpo({ segments: 4, beta: 50 }), { ...plain, extras: lengths });
  for (const [i, loss] of lossesOf(whole).entries()) expect(loss).toBeCloseTo(lossesOf(dpo)[i]!, 6);
  const safe = await train(sdpo(diffusionDpo({ beta: 50 }), { mu: 0.9 }), plain);
  expect(safe.events[0]!.loss).toBe(dpo.events[0]!.loss); // values are the same, steps are not
  expect(safe.events.every(({ metrics }) => metrics.loserScale! >= 0 && metrics.loserScale! <= 1)).toBe(true);
  expect(safe.weights).not.toEqual(dpo.weights);
  const weighted = await train(weightErrors(diffusionDpo({ beta: 50 }), minSnr()), plain);
  expect(weighted.events[0]!.metrics.modelMse!).toBeLessThanOrEqual(dpo.events[0]!.metrics.modelMse!); // no weight is above 1
});

test("a flow is trained, validated and repeatable", async () => {
  const schedule = flowSchedule({ shift: 3 });
  const options = { schedule, steps: 40, validation: { data: tensorPairs(toyPairs(4)) } };
  const [a, b] = [await train(flowDpo(), plain, options), await train(flowDpo(), plain, options)];
  expect(a.events[0]!.loss).toBeCloseTo(Math.LN2, 12);
  expect(b.weights).toEqual(a.weights);
  const early = a.events.slice(0, 10).reduce((sum, { loss }) => sum + loss, 0);
  const late = a.events.slice(-10).reduce((sum, { loss }) => sum + loss, 0);
  expect(late).toBeLessThan(early);
});
