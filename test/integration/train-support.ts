/** What the training tests share: a denoiser of three layers that takes milliseconds, with a frozen word table of its own, and random pairs for it. */

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Denoiser } from "../../lib/diffusion/denoiser.js";
import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { add, mean, silu } from "../../lib/graph/ops/elementwise.js";
import { embedding, timestepEmbedding } from "../../lib/graph/ops/embed.js";
import { full, input } from "../../lib/graph/ops/leaf.js";
import { concat, reshape } from "../../lib/graph/ops/shape.js";
import { Session } from "../../lib/graph/session.js";
import { buildGraph, type Tensor, typed } from "../../lib/graph/tensor.js";
import { initialise, initialStreams, reserve } from "../../lib/nn/init.js";
import { conv2d, linear } from "../../lib/nn/layers.js";
import { ParameterStore, Params } from "../../lib/nn/params.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import type { StepEvent, TrainEvent } from "../../lib/train/events.js";
import { type PairBatch, type PairData, tensorPairs } from "../../lib/train/pair-data.js";
import type { Trainable } from "../../lib/train/trainable.js";
import { PreferenceTrainer } from "../../lib/train/trainer.js";
import type { TrainerOptions } from "../../lib/train/trainer-options.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { Random } from "../../lib/util/random.js";

/** A folder that is gone when the file's tests are over. */
export function temporaryFolder(): { readonly path: string } {
  const folder = { path: "" };
  beforeAll(() => {
    folder.path = fs.mkdtempSync(path.join(os.tmpdir(), "attune-train-"));
  });
  afterAll(() => fs.rmSync(folder.path, { recursive: true, force: true }));
  return folder;
}

const words = 5;
const width = 8;

/** Samples [2, 4, 4]; the condition is three word ids, whose embeddings are frozen. */
function toyDenoiser(table: ParameterStore, dtype: "f32" | "f64"): Denoiser {
  return {
    sampleShape: [4, 4, 2],
    condition: batch => ({ ids: input("ids", typed("i32", batch, 3)) }),
    uncondition: ({ ids }) => ({ ids: full(0, ids!.shape, "i32") }),
    predict(x: Tensor, t: Tensor, { ids }, p: Params): Tensor {
      const batch = x.shape[0]!;
      const text = reshape(mean(embedding(table.tensor("words", [words, width], { init: { bound: 1 } }), ids!), [1]), [batch, width]);
      const time = timestepEmbedding(t, { dim: width, flipSinToCos: true, shift: 0, dtype });
      const shift = linear(concat([time, text], 1), p.at("embed"), { features: width });
      const h = add(conv2d(x, p.at("conv_in"), { channels: width }), reshape(shift, [batch, 1, 1, width]));
      return conv2d(silu(h), p.at("conv_out"), { channels: 2 });
    },
  };
}

const open = new Set<Session>();
afterEach(async () => {
  for (const session of open) await session.close();
  open.clear();
});

/** The toy with the same weights every time, in a session of its own that is closed after the test. */
export async function openToy({
  dtype = "f32",
  threads = 1,
  memoryLimit = 1 << 26,
}: {
  dtype?: "f32" | "f64";
  threads?: number;
  memoryLimit?: number;
} = {}): Promise<Trainable> {
  const session = Session.open({ backend: "cpu", threads, memoryLimit });
  open.add(session);
  const store = new ParameterStore({ arena: "toy", dtype, trainable: true });
  const table = new ParameterStore({ arena: "words", dtype, trainable: false });
  const denoiser = toyDenoiser(table, dtype);
  buildGraph(() => void denoiser.predict(input("x", typed(dtype, 1, 4, 4, 2)), input("t", typed("i32", 1)), denoiser.condition(1), new Params(store)));
  store.seal();
  for (const [i, s] of [store, table].entries()) {
    reserve(session, s);
    await initialise(session, s, { seed: 5, stream: initialStreams.model + 100 * i });
  }
  return { denoiser, store, session };
}

/** Pairs of random maps: winners lie around +offset, losers around -offset. */
export function toyPairs(length: number, { offset = 0, seed = 1 } = {}): PairBatch & { readonly losers: NonNullable<PairBatch["losers"]> } {
  const random = new Random(seed);
  const maps = (centre: number) =>
    hostTensor(
      "f32",
      [length, 2, 4, 4],
      Float32Array.from({ length: length * 32 }, () => centre + random.normal()),
    );
  const ids = hostTensor(
    "i32",
    [length, 3],
    Int32Array.from({ length: length * 3 }, () => random.integer(words)),
  );
  return { winners: maps(offset), losers: maps(-offset), condition: { ids } };
}

export type ToyOptions = Partial<TrainerOptions> & { readonly model: Trainable };

/** A trainer with everything chosen but what the test is about. */
export function toyTrainer(options: ToyOptions): PreferenceTrainer {
  return new PreferenceTrainer({
    data: toyData(),
    objective: diffusionDpo({ beta: 50 }),
    schedule: noiseSchedule(),
    optimizer: { learningRate: 0.01 },
    steps: 6,
    seed: 3,
    ...options,
  });
}

export const toyData = (): PairData => tensorPairs(toyPairs(7));

export async function collect(events: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  const all: TrainEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** What must repeat to the last bit: not the clock. */
export function timeless(event: StepEvent): Omit<StepEvent, "samplesPerSecond" | "etaSeconds"> {
  const { samplesPerSecond: _, etaSeconds: __, ...rest } = event;
  return rest;
}

export function steps(events: readonly TrainEvent[]): StepEvent[] {
  return events.filter(event => event.type === "step");
}

/** The bytes of a store. */
export async function bytesOf({ session }: Trainable, store: ParameterStore): Promise<Buffer> {
  return Buffer.from(await session.read(store.arena, 0, store.bytes));
}

/** The weights as numbers, padding included. */
export async function weightsOf(model: Trainable, store: ParameterStore = model.store): Promise<ArrayLike<number>> {
  const bytes = await model.session.read(store.arena, 0, store.bytes);
  return store.dtype === "f64" ? new Float64Array(bytes) : new Float32Array(bytes);
}
