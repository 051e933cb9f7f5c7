/** What a run promises: it repeats to the bit, whatever way it is cut, stops when told, survives bad numbers, and learns. */

import fs from "node:fs";
import path from "node:path";
import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { CheckpointError, ConfigError, DataError, NonFiniteError, PlanError } from "../../lib/errors.js";
import { cast } from "../../lib/graph/ops/elementwise.js";
import { embedding } from "../../lib/graph/ops/embed.js";
import { assign } from "../../lib/graph/ops/optimizer.js";
import { broadcast } from "../../lib/graph/ops/reduce.js";
import { reshape } from "../../lib/graph/ops/shape.js";
import { scalar } from "../../lib/graph/scalars.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { dspo } from "../../lib/objectives/dspo.js";
import { sft } from "../../lib/objectives/sft.js";
import { listCheckpoints } from "../../lib/train/checkpoint.js";
import { cosine } from "../../lib/train/lr-schedule.js";
import { adamW, type Optimizer } from "../../lib/train/optimizer.js";
import { type PairBatch, type PairData, tensorPairs } from "../../lib/train/pair-data.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { relL2 } from "../support/compare.js";
import { bytesOf, collect, openToy, steps, type ToyOptions, temporaryFolder, timeless, toyData, toyPairs, toyTrainer, weightsOf } from "./train-support.js";

const scratch = temporaryFolder();
const folder = (name: string): string => path.join(scratch.path, name);

/** name -> contents of the files of a run's newest checkpoint, without the manifest. */
async function newestFiles(output: string): Promise<Record<string, string>> {
  const [newest] = await listCheckpoints(output);
  const names = fs.readdirSync(newest!).filter(name => name !== "manifest.json");
  return Object.fromEntries(names.map(name => [name, fs.readFileSync(path.join(newest!, name)).toString("base64")]));
}

describe("resuming", () => {
  const kinds: readonly (readonly [string, Partial<ToyOptions>])[] = [
    ["full", {}],
    ["full, averaged, accumulated", { ema: { decay: 0.9 }, gradientAccumulationSteps: 3, conditionDropout: 0.3 }],
    ["adapter", { lora: { rank: 2, targets: ["embed", "conv_out"] }, objective: dspo({ beta: 0.5 }) }],
    ["supervised", { objective: sft(), learningRateSchedule: cosine({ warmup: 2, total: 6 }) }],
  ];
  test.each(kinds)("%s: two interruptions leave no trace, to the last bit", async (name, options) => {
    const whole = folder(`${name} whole`);
    const parts = folder(`${name} parts`);
    const uninterrupted = steps(await collect(toyTrainer({ ...options, model: await openToy(), output: whole }).run())).map(timeless);
    const resumed: ReturnType<typeof timeless>[] = [];
    for (const stopAfter of [2, 5, 6]) {
      // A new process: fresh weights, a fresh session.
      for await (const event of toyTrainer({ ...options, model: await openToy(), output: parts, resume: "latest" }).run()) {
        if (event.type === "plan") expect(event.startStep).toBe(resumed.length);
        if (event.type === "step") resumed.push(timeless(event));
        if (event.type === "step" && event.step === stopAfter) break;
      }
    }
    expect(resumed).toEqual(uninterrupted);
    const files = [options.lora ? "adapter" : "parameters", "exp_avg", "exp_avg_sq", ...(options.ema ? ["ema"] : [])].map(file => `${file}.safetensors`);
    expect(Object.keys(await newestFiles(parts)).sort()).toEqual([...files, "state.json"].sort());
    expect(await newestFiles(parts)).toEqual(await newestFiles(whole));
  });

  test("a damaged newest checkpoint is passed over with a warning, and the result is the same", async () => {
    const output = folder("fallback");
    const options = { checkpointEvery: 2, output };
    await collect(toyTrainer({ ...options, model: await openToy() }).run());
    const expected = await newestFiles(output);
    fs.truncateSync(path.join(output, "checkpoint-6/exp_avg.safetensors"), 10);
    const events = await collect(toyTrainer({ ...options, model: await openToy(), resume: "latest" }).run());
    expect(events[0]).toMatchObject({ type: "warning", code: "CHECKPOINT_SKIPPED", step: 4 });
    expect(events[1]).toMatchObject({ type: "plan", startStep: 4 });
    expect(await newestFiles(output)).toEqual(expected);
  });

  test("a used folder, another run's checkpoint and other start weights are refused", async () => {
    const output = folder("refused");
    await collect(toyTrainer({ model: await openToy(), output }).run());
    await expect(collect(toyTrainer({ model: await openToy(), output }).run())).rejects.toThrow(ConfigError);
    const other = toyTrainer({ model: await openToy(), output, resume: "latest", seed: 4 });
    await expect(collect(other.run())).rejects.toThrow(/seed 3, this run has 4/);
    const trained = await openToy();
    trained.session.write("toy", 0, Float32Array.of(1));
    await expect(collect(toyTrainer({ model: trained, output, resume: "latest" }).run())).rejects.toThrow(CheckpointError);
    await expect(collect(toyTrainer({ model: await openToy(), output, resume: folder("nowhere") }).run())).rejects.toThrow(CheckpointError);
    expect(() => toyTrainer({ model: trained, resume: "latest" })).toThrow(ConfigError);
  });
});

describe("determinism", () => {
  test("the same seed gives the same bits with one thread and with two; another seed does not", async () => {
    const run = async (threads: number, seed: number): Promise<Buffer> => {
      const model = await openToy({ threads });
      await collect(toyTrainer({ model, seed, batchSize: 3 }).run());
      return bytesOf(model, model.store);
    };
    const first = await run(1, 3);
    expect((await run(1, 3)).equals(first)).toBe(true);
    expect((await run(2, 3)).equals(first)).toBe(true);
    expect((await run(1, 4)).equals(first)).toBe(false);
  });

  // A micro-batch of one and a batch of six sum the same numbers in another order: k ulp of the gradient, which AdamW turns into as many of the way.
  test.each([
    ["f64", 1e-10],
    ["f32", 1e-5],
  ] as const)("in %s, n micro-batches of one are one batch of n", async (dtype, bound) => {
    const run = async (batchSize: number, gradientAccumulationSteps: number) => {
      const model = await openToy({ dtype });
      const events = steps(
        await collect(toyTrainer({ model, batchSize, gradientAccumulationSteps, conditionDropout: 0.4, optimizer: { learningRate: 1e-3 } }).run()),
      );
      return { losses: events.map(e => e.loss), norms: events.map(e => e.gradNorm), weights: await weightsOf(model) };
    };
    const [one, many] = [await run(6, 1), await run(1, 6)];
    expect(relL2(many.losses, one.losses)).toBeLessThan(bound);
    expect(relL2(many.norms, one.norms)).toBeLessThan(bound);
    expect(relL2(many.weights, one.weights)).toBeLessThan(bound);
  });

  test("a second run on the same session starts as the first did: nothing of moments, gradients or reference is left", async () => {
    const model = await openToy();
    const start = await bytesOf(model, model.store);
    await collect(toyTrainer({ model, ema: {} }).run());
    const first = await bytesOf(model, model.store);
    model.session.write(model.store.arena, 0, start);
    await collect(toyTrainer({ model, ema: {} }).run());
    expect((await bytesOf(model, model.store)).equals(first)).toBe(true);
  });

  test("dropping every condition is training with the empty one", async () => {
    const run = async (options: Partial<ToyOptions>): Promise<Buffer> => {
      const model = await openToy();
      await collect(toyTrainer({ model, batchSize: 2, ...options }).run());
      return bytesOf(model, model.store);
    };
    const pairs = toyPairs(7);
    const empty = { ...pairs, condition: { ids: hostTensor("i32", [7, 3]) } };
    const always = 1 - 2 ** -25; // 1 in float32, where the draw is below 1
    expect((await run({ conditionDropout: always })).equals(await run({ data: tensorPairs(empty) }))).toBe(true);
    const half = await run({ conditionDropout: 0.5 });
    expect(half.equals(await run({}))).toBe(false);
    expect(half.equals(await run({ data: tensorPairs(empty) }))).toBe(false);
  });
});

describe("stopping", () => {
  test("break saves the step whose event was received, and run() goes on from there", async () => {
    const output = folder("break");
    const model = await openToy();
    const trainer = toyTrainer({ model, output });
    for await (const event of trainer.run()) if (event.type === "step" && event.step === 2) break;
    expect((await listCheckpoints(output)).map(p => path.basename(p))).toEqual(["checkpoint-2"]);
    expect(trainer.step).toBe(2);
    const events = await collect(trainer.run());
    expect(steps(events).map(e => e.step)).toEqual([3, 4, 5, 6]);
    expect(events.at(-1)).toMatchObject({ type: "done", step: 6, skippedSteps: 0, checkpoint: path.join(output, "checkpoint-6") });
    const whole = await openToy();
    await collect(toyTrainer({ model: whole }).run());
    expect((await bytesOf(model, model.store)).equals(await bytesOf(whole, whole.store))).toBe(true);
  });

  test("abort is honoured before the next micro-batch, and the last whole step is saved", async () => {
    const output = folder("abort");
    const model = await openToy();
    const stop = new AbortController();
    const data = toyData();
    let loads = 0;
    const watched: PairData = {
      length: data.length,
      batch: (indices, options) => {
        if (++loads === 25) stop.abort(new Error("enough")); // in the third step of ten micro-batches
        return data.batch(indices, options);
      },
    };
    const trainer = toyTrainer({ model, data: watched, output, gradientAccumulationSteps: 10 });
    await expect(collect(trainer.run({ signal: stop.signal }))).rejects.toThrow("enough");
    expect(loads).toBeLessThanOrEqual(26);
    expect(trainer.step).toBe(2);
    expect((await listCheckpoints(output)).map(p => path.basename(p))).toEqual(["checkpoint-2"]);
    // What the broken step had added to the gradients is forgotten.
    await collect(trainer.run());
    const whole = await openToy();
    await collect(toyTrainer({ model: whole, gradientAccumulationSteps: 10 }).run());
    expect((await bytesOf(model, model.store)).equals(await bytesOf(whole, whole.store))).toBe(true);
  });

  test("a signal that is aborted already starts nothing, and one trainer runs once at a time", async () => {
    const trainer = toyTrainer({ model: await openToy() });
    await expect(collect(trainer.run({ signal: AbortSignal.abort(new Error("never")) }))).rejects.toThrow("never");
    expect(trainer.step).toBe(0);
    const events = trainer.run();
    await events.next();
    await expect(collect(trainer.run())).rejects.toThrow(/idle, received "running"/);
    await events.return();
  });

  test("an error of the data set ends the run with the last whole step saved", async () => {
    const output = folder("broken data");
    const data = toyData();
    const broken: PairData = {
      length: data.length,
      batch(indices, options) {
        if (options.position === 3) throw new Error("unreadable image");
        return data.batch(indices, options);
      },
    };
    await expect(collect(toyTrainer({ model: await openToy(), data: broken, output }).run())).rejects.toThrow("unreadable image");
    expect((await listCheckpoints(output)).map(p => path.basename(p))).toEqual(["checkpoint-3"]);
  });
});

test("after an update that failed half way nothing is saved, and the trainer refuses to go on", async () => {
  const output = folder("torn");
  const adam = adamW({ learningRate: 0.01 });
  const failing: Optimizer = {
    ...adam,
    state: parameters => ({ ...adam.state(parameters), row: parameters.mirror("row") }),
    update(ctx) {
      adam.update(ctx);
      const rows = ctx.state.row!.flat();
      const row = embedding(reshape(rows, [-1, 1]), cast(scalar("row"), "i32")); // throws where there is no such row
      assign(rows, broadcast(reshape(row, [1]), rows.shape));
    },
    scalars: (t, rate) => ({ ...adam.scalars(t, rate), row: t === 3 ? 1e6 : 0 }),
  };
  const trainer = toyTrainer({ model: await openToy(), optimizer: failing, output });
  await expect(collect(trainer.run())).rejects.toThrow(DataError);
  expect(await listCheckpoints(output)).toEqual([]);
  await expect(collect(trainer.run())).rejects.toThrow(/update that failed half way"; resume from a checkpoint/);
});

describe("numbers that are not finite", () => {
  /** The pairs with NaN in the winner of these draws. */
  function poisoned(positions: (position: number) => boolean): PairData {
    const data = toyData();
    return {
      length: data.length,
      async batch(indices, options) {
        const batch = await data.batch(indices, options);
        if (!positions(options.position)) return batch;
        return {
          ...batch,
          winners: hostTensor(
            "f32",
            batch.winners.shape,
            (batch.winners.data as Float32Array).map(() => Number.NaN),
          ),
        };
      },
    };
  }

  test("a poisoned step is skipped, counted and told; the run goes on as if the update had not been", async () => {
    const model = await openToy();
    const updates: number[] = [];
    const adam = adamW({ learningRate: 0.01 });
    const scalars: Optimizer["scalars"] = (t, rate) => {
      updates.push(t);
      return adam.scalars(t, rate);
    };
    const optimizer = { ...adam, scalars };
    const events = await collect(toyTrainer({ model, data: poisoned(p => p === 2 || p === 3), optimizer, ema: {} }).run());
    expect(updates).toEqual([1, 2, 3, 3, 3, 4]); // the bias corrections count updates, not steps
    expect(steps(events).map(e => e.skipped)).toEqual([false, false, true, true, false, false]);
    expect(events.filter(e => e.type === "warning").map(e => [e.code, e.step])).toEqual([
      ["NON_FINITE_GRADIENT", 3],
      ["NON_FINITE_GRADIENT", 4],
    ]);
    expect(events.at(-1)).toMatchObject({ type: "done", skippedSteps: 2 });
    expect(Array.from(await weightsOf(model)).every(Number.isFinite)).toBe(true);
  });

  test("three in a row end the run with the weights of the last finite step saved", async () => {
    const output = folder("poisoned");
    const model = await openToy();
    const good = await openToy();
    await expect(collect(toyTrainer({ model, data: poisoned(p => p >= 2), output }).run())).rejects.toThrow(NonFiniteError);
    await collect(toyTrainer({ model: good, steps: 2 }).run());
    expect((await bytesOf(model, model.store)).equals(await bytesOf(good, good.store))).toBe(true);
    const state = JSON.parse(fs.readFileSync(path.join(output, "checkpoint-5/state.json"), "utf8"));
    expect(state).toMatchObject({ step: 5, updates: 2, skippedSteps: 3, skippedInARow: 3 });
  });
});

describe("learning", () => {
  const twoPairs = tensorPairs(toyPairs(2, { offset: 1 }));

  // Diffusion-DPO may raise the error of winners as long as it raises that of losers more; DSPO's first term is the winners' error itself.
  test.each([
    ["diffusion-dpo", diffusionDpo({ beta: 2000 }), Infinity],
    ["dspo", dspo({ beta: 0.9 }), 1],
  ] as const)("%s learns two pairs by heart", async (_, objective, limit) => {
    const model = await openToy();
    const data = twoPairs;
    const settings = { model, data, objective, batchSize: 2, gradientAccumulationSteps: 4, steps: 60, validation: { data, every: 60 } };
    const events = await collect(toyTrainer(settings).run());
    const last = events.find(e => e.type === "validation")!;
    expect(last.implicitAccuracy).toBe(1);
    for (const band of last.bands) expect(band.winnerRatio).toBeLessThan(Math.min(limit, band.loserRatio));
  });

  test("supervised fine-tuning lowers the denoising error of the winners", async () => {
    const events = steps(
      await collect(toyTrainer({ model: await openToy(), data: twoPairs, objective: sft(), batchSize: 2, gradientAccumulationSteps: 4, steps: 60 }).run()),
    );
    const mean = (part: typeof events): number => part.reduce((sum, e) => sum + e.loss, 0) / part.length;
    expect(mean(events.slice(-10))).toBeLessThan(0.7 * mean(events.slice(0, 10)));
  });

  test("an adapter learns while the model's own weights keep every bit", async () => {
    const model = await openToy();
    const before = await bytesOf(model, model.store);
    const trainer = toyTrainer({ model, lora: { rank: 2, targets: ["embed"] }, steps: 10 });
    const events = steps(await collect(trainer.run()));
    expect(events[0]!.loss).toBe(Math.LN2); // B is zero: the policy is the reference
    expect(events.at(-1)!.loss).not.toBe(Math.LN2);
    expect((await bytesOf(model, model.store)).equals(before)).toBe(true);
    expect(trainer.adapter!.store.entries.size).toBe(2);
  });
});

describe("validation", () => {
  test("at the start weights every ratio is 1 and every comparison a tie; a last batch that is not full counts its pairs once", async () => {
    const model = await openToy();
    const events = await collect(toyTrainer({ model, batchSize: 4, steps: 1, optimizer: { learningRate: 1e-300 }, validation: { data: toyData() } }).run());
    const result = events.find(e => e.type === "validation")!;
    expect(result).toEqual({
      type: "validation",
      step: 1,
      pairs: 7,
      implicitAccuracy: 0.5,
      bands: [100, 300, 500, 700, 900].map(timestep => ({ timestep, winnerRatio: 1, loserRatio: 1 })),
    });
  });

  test("the batch size does not change what is measured", async () => {
    const measure = async (batchSize: number) => {
      const model = await openToy({ dtype: "f64" });
      const pairs = { batchSize, gradientAccumulationSteps: 6 / batchSize, validation: { data: toyData(), every: 6 } };
      return (await collect(toyTrainer({ model, ...pairs }).run())).find(e => e.type === "validation")!;
    };
    const [a, b] = [await measure(2), await measure(3)];
    expect(
      relL2(
        a.bands.map(band => band.winnerRatio),
        b.bands.map(band => band.winnerRatio),
      ),
    ).toBeLessThan(1e-9);
    expect(a.implicitAccuracy).toBe(b.implicitAccuracy);
  });

  test("a winner error far above the reference's raises REWARD_HACKING_SUSPECTED", async () => {
    const run = async (winnerRatioLimit: number) => {
      const model = await openToy();
      const events = await collect(toyTrainer({ model, steps: 20, optimizer: { learningRate: 0.3 }, validation: { data: toyData(), winnerRatioLimit } }).run());
      return events.filter(e => e.type === "warning").map(e => e.code);
    };
    expect(await run(1.25)).toEqual(["REWARD_HACKING_SUSPECTED"]);
    expect(await run(1e9)).toEqual([]);
  });
});

describe("the plan and the average", () => {
  test("the plan counts what is trained and adds up every arena", async () => {
    const model = await openToy();
    const [plan] = await collect(toyTrainer({ model, batchSize: 2, gradientAccumulationSteps: 4, ema: {}, steps: 1 }).run());
    if (plan?.type !== "plan") throw new Error(`expected a plan first, received ${plan?.type}`);
    expect(plan).toMatchObject({ objective: "diffusion-dpo", trainableParameters: model.store.count, effectiveBatch: 8, pairs: 7, steps: 1, startStep: 0 });
    const { arenas, bytes } = plan.memory;
    expect(bytes).toBe(arenas.reduce((sum, arena) => sum + arena.bytes, 0));
    for (const name of ["toy", "toy/reference", "toy/gradient", "toy/exp_avg", "toy/exp_avg_sq", "toy/ema"])
      expect(arenas).toContainEqual({ name, bytes: model.store.bytes });
    const held = model.session.memory().arenas;
    for (const arena of arenas) expect(held[arena.name]).toBeGreaterThanOrEqual(arena.bytes);
    expect(held.scratch).toBe(arenas.find(arena => arena.name === "scratch")!.bytes);
  });

  test("the average is that of the weights after every step", async () => {
    const model = await openToy();
    const trainer = toyTrainer({ model, ema: { decay: 0.5 }, steps: 4 });
    let shadow = Float64Array.from(await weightsOf(model));
    for await (const event of trainer.run()) {
      if (event.type !== "step") continue;
      const decay = event.step === 1 ? 0 : Math.min(0.5, event.step / (9 + event.step));
      const now = await weightsOf(model);
      shadow = shadow.map((x, i) => x + (1 - decay) * (now[i]! - x));
    }
    await trainer.applyEma();
    expect(relL2(await weightsOf(model), shadow)).toBeLessThan(1e-6);
  });
});

describe("memory", () => {
  test("a run that does not fit fails before anything is allocated, with the largest buffers and two changes", async () => {
    const model = await openToy({ memoryLimit: 20_000 });
    const held = model.session.memory().total;
    const attempt = collect(toyTrainer({ model, batchSize: 64 }).run());
    await expect(attempt).rejects.toThrow(PlanError);
    await expect(attempt).rejects.toThrow(/64 -> 32 with gradientAccumulationSteps 1 -> 2 .*; or lora: /);
    expect(model.session.memory().total).toBe(held);
  });
});

test("options are checked where they are received", async () => {
  const model = await openToy();
  const refused: readonly Partial<ToyOptions>[] = [
    { steps: 0 },
    { batchSize: 1.5 },
    { maxGradNorm: 0 },
    { conditionDropout: 1 },
    { seed: -1 },
    { lora: { rank: 2, targets: ["nothing"] } },
    { optimizer: { learningRate: -1 } },
  ];
  for (const options of refused) expect(() => toyTrainer({ model, ...options })).toThrow(ConfigError);
  const winners: PairBatch = { winners: toyPairs(3).winners, condition: toyPairs(3).condition };
  await expect(collect(toyTrainer({ model, data: tensorPairs(winners) }).run())).rejects.toThrow(/expected losers in every batch/);
  expect(() => tensorPairs({ ...winners, losers: toyPairs(2).winners })).toThrow(/losers is \[2,2,4,4\], expected 3 rows/);
  expect(noiseSchedule().steps).toBe(1000);
});
