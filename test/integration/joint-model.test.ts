/** UNet and text encoders trained together: one adapter for both, which the pipeline then loads. */

import fs from "node:fs";
import path from "node:path";
import { type Device, openDevice } from "../../lib/device.js";
import { compileGraph } from "../../lib/graph/compile.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { Params } from "../../lib/nn/params.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { sft } from "../../lib/objectives/sft.js";
import { JointModel } from "../../lib/pipeline/joint-model.js";
import { DiffusionPipeline } from "../../lib/pipeline/pipeline.js";
import type { StepEvent } from "../../lib/train/events.js";
import { tensorPairs } from "../../lib/train/pair-data.js";
import { PreferenceTrainer } from "../../lib/train/trainer.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const at = scratchFolder();
const folder = path.join(goldenSet("pipelines"), "sd");
const prompts = ["a photo of a cat", "two red cubes"];
const size = { height: 8, width: 8 };
let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});

function waves(...shape: number[]): HostTensor {
  return hostTensor(
    "f32",
    shape,
    Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(7.3 * i)),
  );
}

/** The joint model's prediction on two samples. */
async function predicted(model: JointModel): Promise<Float64Array> {
  const { denoiser } = model.trainable(size).model;
  const graph = buildGraph(g => {
    const sample = input("sample", typed("f32", 2, 8, 8, 4), "bchw");
    const params = new Params(model.store, model.adapter ? { adapter: model.adapter } : {});
    g.output("y", denoiser.predict(sample, input("timestep", typed("f32", 2)), denoiser.condition(2), params), "bchw");
  });
  const arenas = { ...model.store.arenas, ...model.adapter?.store.arenas };
  const executable = model.session.compile(compileGraph(graph, { name: "predict", arenas, target: model.session.target }));
  const { condition } = model.condition(prompts);
  const { y } = await model.session.run(executable, { inputs: { ...condition, sample: waves(2, 4, 8, 8), timestep: hostTensor("f32", [2], [300, 700]) } });
  return Float64Array.from(y!.data as Float32Array);
}

/** The same by the parts of a pipeline. */
async function byParts(pipeline: DiffusionPipeline): Promise<Float64Array> {
  const { encoderHiddenStates } = await pipeline.encodePrompt(prompts);
  const y = await pipeline.unet.forward({ sample: waves(2, 4, 8, 8), timestep: hostTensor("f32", [2], [300, 700]), encoderHiddenStates });
  return Float64Array.from(y.data as Float32Array);
}

test("one adapter of both is trained, written, and means the same to a pipeline", async () => {
  const model = await JointModel.load(folder, { device });
  const pipeline = await DiffusionPipeline.load(folder, { device });
  try {
    expect(relL2(await predicted(model), await byParts(pipeline))).toBeLessThan(1e-6); // the same sums, in programs of their own
    const lora = await model.addLora({ rank: 2 }, { seed: 1 });
    const names = [...lora.store.entries.keys()];
    for (const part of ["unet.", "text_encoder."]) expect(names.some(name => name.startsWith(part))).toBe(true);
    const { condition } = model.condition(prompts);
    const trainer = new PreferenceTrainer({
      ...model.trainable(size),
      data: tensorPairs({ winners: waves(2, 4, 8, 8), losers: waves(2, 4, 8, 8), condition }),
      objective: diffusionDpo({ beta: 2000 }),
      lora,
      optimizer: { learningRate: 1e-2 },
      conditionDropout: 0.1,
      batchSize: 2,
      steps: 3,
    });
    const steps: StepEvent[] = [];
    for await (const event of trainer.run()) if (event.type === "step") steps.push(event);
    expect(steps[0]!.loss).toBeCloseTo(Math.LN2, 6); // policy and reference begin alike
    await model.saveLora(at("lora.safetensors"));
    await pipeline.loadLora(at("lora.safetensors"));
    expect(pipeline.textEncoders[0]!.model.adapters.active).toBeDefined();
    const [joint, parts] = [await predicted(model), await byParts(pipeline)];
    expect(relL2(parts, joint)).toBeLessThan(1e-5);
    pipeline.setAdapters({});
    const before = await byParts(pipeline);
    expect(relL2(joint, before)).toBeGreaterThan(1e-3); // it has moved
    for (const host of [pipeline.unet.adapters, pipeline.textEncoders[0]!.model.adapters]) {
      host.set({ default: 1 });
      expect(relL2(await byParts(pipeline), before)).toBeGreaterThan(1e-5); // and each part of it by itself
      host.set({});
    }
  } finally {
    await model.close();
    await pipeline.close();
  }
});

test("the weights themselves can be trained, text encoder and all", async () => {
  const model = await JointModel.load(folder, { device, trainable: true });
  try {
    const { condition } = model.condition(prompts);
    const data = tensorPairs({ winners: waves(2, 4, 8, 8), condition });
    const before = await predicted(model);
    const trainer = new PreferenceTrainer({ ...model.trainable(size), data, objective: sft(), optimizer: { learningRate: 1e-3 }, batchSize: 2, steps: 2 });
    for await (const event of trainer.run()) if (event.type === "step") expect(event.skipped).toBe(false);
    expect(relL2(await predicted(model), before)).toBeGreaterThan(1e-4);
  } finally {
    await model.close();
  }
});

const xl = path.join(goldenSet("pipelines"), "sdxl");
(fs.existsSync(xl) ? test : test.skip)("SDXL's two encoders, pooled text and sizes", async () => {
  const model = await JointModel.load(xl, { device });
  const pipeline = await DiffusionPipeline.load(xl, { device });
  try {
    const sizes = [64, 64, 0, 0, 64, 64];
    const { denoiser } = model.trainable(size).model;
    const graph = buildGraph(g => {
      const sample = input("sample", typed("f32", 2, 8, 8, 4), "bchw");
      g.output("y", denoiser.predict(sample, input("timestep", typed("f32", 2)), denoiser.condition(2), new Params(model.store)), "bchw");
    });
    const executable = model.session.compile(compileGraph(graph, { name: "predict", arenas: model.store.arenas, target: model.session.target }));
    const timestep = hostTensor("f32", [2], [300, 700]);
    const { y } = await model.session.run(executable, { inputs: { ...model.condition(prompts, sizes).condition, sample: waves(2, 4, 8, 8), timestep } });
    const { encoderHiddenStates, textEmbeds } = await pipeline.encodePrompt(prompts);
    const timeIds = hostTensor("f32", [2, 6], [...sizes, ...sizes]);
    const parts = await pipeline.unet.forward({ sample: waves(2, 4, 8, 8), timestep, encoderHiddenStates, addedText: { textEmbeds: textEmbeds!, timeIds } });
    expect(relL2(Float64Array.from(y!.data as Float32Array), Float64Array.from(parts.data as Float32Array))).toBeLessThan(1e-6);
    expect(() => model.condition(prompts)).toThrow(/sizes to be 6 numbers, for SDXL/);
  } finally {
    await model.close();
    await pipeline.close();
  }
});
