/** Every objective on a small UNet: some steps on a few pairs bring what it is after down on those pairs, at noise and timesteps that are the same before
 *  and after. */

import { flowSchedule } from "../../lib/diffusion/flow.js";
import { type NoiseSchedule, noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../../lib/diffusion/unet-denoiser.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { Session } from "../../lib/graph/session.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { adaptUNet, declareUNet } from "../../lib/models/unet-parameters.js";
import { initialise, initialStreams, reserve } from "../../lib/nn/init.js";
import type { LoraAdapter } from "../../lib/nn/lora.js";
import { Params } from "../../lib/nn/params.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { armsOf, type Objective } from "../../lib/objectives/objective.js";
import { type PairBatch, tensorPairs } from "../../lib/train/pair-data.js";
import { runInputs } from "../../lib/train/run-inputs.js";
import { microGraph } from "../../lib/train/step.js";
import type { Trainable } from "../../lib/train/trainable.js";
import { PreferenceTrainer } from "../../lib/train/trainer.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { objectiveTable } from "../support/objective-table.js";
import { Rng } from "../support/rng.js";

const config = parseUNetConfig(
  {
    sample_size: 6,
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [8],
    layers_per_block: 1,
    down_block_types: ["CrossAttnDownBlock2D"],
    up_block_types: ["CrossAttnUpBlock2D"],
    cross_attention_dim: 8,
    attention_head_dim: 2,
    norm_num_groups: 4,
  },
  "a small UNet",
);
const size = 6;
const tokens = 3;
const pairs = 4;
const learningRate = 1e-4;

let session: Session;
let model: Trainable;
let guide: LoraAdapter;
beforeAll(async () => {
  session = Session.open({ backend: "cpu", threads: 1, memoryLimit: 1 << 28 });
  const store = declareUNet(config, "f32", { trainable: false });
  model = { denoiser: unetDenoiser(config, { height: size, width: size, tokens }), store, session };
  reserve(session, store);
  await initialise(session, store, { seed: 1, stream: initialStreams.model });
  guide = await adapterOf("guide");
  await train(diffusionDpo({ beta: 100 }), guide, batchOf(diffusionDpo()), 2);
});
afterAll(() => session.close());

/** A fresh adapter: its policy is the reference. */
async function adapterOf(arena: string): Promise<LoraAdapter> {
  const targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_in", "conv_out"];
  const adapter = adaptUNet(config, model.store, { rank: 4, targets }, { arena });
  reserve(session, adapter.store);
  await initialise(session, adapter.store, { seed: 2, stream: initialStreams.adapter });
  return adapter;
}

/** Winners around one picture and losers around another, with all that the objective asks for. */
function batchOf(objective: Objective): PairBatch {
  const rng = new Rng(5);
  const map = (sign: number): HostTensor =>
    hostTensor(
      "f32",
      [pairs, 4, size, size],
      Float32Array.from({ length: pairs * 4 * size * size }, (_, i) => sign * Math.sin(i / 3) + 0.3 * rng.normal()),
    );
  const text = (): Record<string, HostTensor> => ({
    encoderHiddenStates: hostTensor(
      "f32",
      [pairs, tokens, 8],
      Float32Array.from({ length: pairs * tokens * 8 }, () => rng.normal()),
    ),
  });
  const extras = Object.entries(objective.inputs ?? {}).map(([name, { size: width = 1, least = -1, most = least + 2 }]) => {
    const flag = name === "desirable" || name === "remembered";
    const draw = (i: number): number => {
      if (flag) return i % 2;
      const x = name === "preference" ? 0.6 + 0.4 * rng.uniform() : least + rng.uniform() * (most - least);
      return name.endsWith("Length") ? Math.round(x) : x;
    };
    return [
      name,
      hostTensor(
        "f32",
        width > 1 ? [pairs, width] : [pairs],
        Float32Array.from({ length: pairs * width }, (_, i) => draw(i)),
      ),
    ] as const;
  });
  const arms = armsOf(objective);
  const others = arms.map(({ sample }) => sample).filter(sample => sample !== "winners" && sample !== "losers");
  const sets = arms.map(({ condition }) => condition).filter(condition => condition !== undefined);
  return {
    winners: map(1),
    losers: map(-1),
    condition: text(),
    extras: Object.fromEntries(extras),
    samples: Object.fromEntries(others.map((name, i) => [name, map(0.5 - i)])),
    conditions: Object.fromEntries(sets.map(name => [name, text()])),
  };
}

const scheduleOf = ({ name }: Objective): NoiseSchedule => (name === "flow-dpo" ? flowSchedule() : noiseSchedule());
const guideOf = ({ uses }: Objective) => (uses?.includes("guide") ? { guide } : {});

async function train(objective: Objective, lora: LoraAdapter, batch: PairBatch, steps: number): Promise<void> {
  const options = { model, objective, lora, ...guideOf(objective), schedule: scheduleOf(objective), optimizer: { learningRate, weightDecay: 0 } };
  const trainer = new PreferenceTrainer({ ...options, data: tensorPairs(batch), steps, batchSize: pairs, seed: 4 });
  for await (const event of trainer.run()) if (event.type === "warning") throw new Error(event.message);
}

/** Mean of an output over noise and timesteps that are always the same. */
async function measured(output: string, objective: Objective, adapter: LoraAdapter, batch: PairBatch): Promise<number> {
  const micro = microGraph({
    denoiser: model.denoiser,
    objective,
    schedule: scheduleOf(objective),
    policy: new Params(model.store, { adapter }),
    reference: new Params(model.store),
    guide: new Params(model.store, { adapter: guide }),
    trainable: adapter.store,
    gradients: adapter.store.mirror(`${adapter.store.arena}/probe`),
    batch: pairs,
    accumulation: 1,
    noise: "given",
    conditionDropout: 0,
  });
  const executable = session.compile(compileGraph(micro, { name: "probe", target: session.target }));
  let total = 0;
  for (const [draw, timestep] of [100, 400, 700].entries()) {
    const rng = new Rng(draw, "noise");
    const noise = hostTensor(
      "f32",
      [pairs, 4, size, size],
      Float32Array.from({ length: pairs * 4 * size * size }, () => rng.normal()),
    );
    const inputs = { ...runInputs(objective, batch), noise, timestep: hostTensor("i32", [pairs], new Int32Array(pairs).fill(timestep)) };
    total += Number((await session.run(executable, { inputs }))[output]!.data[0]) / 3;
  }
  return total;
}

test.each(objectiveTable.map((row, i) => [row.objective.name, row, i] as const))("%s", async (_name, { objective, goal = "loss" }, i) => {
  const batch = batchOf(objective);
  const adapter = await adapterOf(`adapter ${i}`);
  const before = await measured(goal, objective, adapter, batch);
  await train(objective, adapter, batch, 20);
  expect(await measured(goal, objective, adapter, batch)).toBeLessThan(before);
});
