/** DiffusionPipeline as its users call it: seeds, batches, pictures to begin with, holes, errors, progress, files. */

import fs from "node:fs";
import path from "node:path";
import type { Image } from "../../lib/data/image.js";
import { writeSafetensors } from "../../lib/data/safetensors.js";
import { openDevice } from "../../lib/device.js";
import { UNet } from "../../lib/models/unet-model.js";
import type { GenerateOptions } from "../../lib/pipeline/generate-options.js";
import { modelIndexOf } from "../../lib/pipeline/model-index.js";
import { DiffusionPipeline } from "../../lib/pipeline/pipeline.js";
import { euler } from "../../lib/schedulers/euler.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";

const source = path.join(goldenSet("pipelines"), "sd");
const size = { height: 64, width: 64 } as const;
const at = scratchFolder();
let pipeline: DiffusionPipeline;
beforeAll(async () => {
  pipeline = await DiffusionPipeline.load(source, { device: await openDevice("cpu") });
});
afterAll(() => pipeline.close());

const generate = (options: Partial<GenerateOptions> = {}): Promise<Image[]> =>
  pipeline.generate({ prompt: "a cat", steps: 3, ...size, onWarning: () => undefined, ...options });
const distance = (a: Image, b: Image): number => a.data.reduce((sum, v, i) => sum + Math.abs(v - b.data[i]!), 0) / a.data.length;
const flat = (value: number): Image => ({ width: 64, height: 64, channels: 3, data: new Uint8Array(64 * 64 * 3).fill(value) });

test("a picture is a function of its own prompt and seed, whatever else is in the call", async () => {
  const prompt = ["a cat", "a dog"];
  const all = await generate({ prompt, imagesPerPrompt: 2, seed: [5, 6, 7, 8], batchSize: 3 });
  expect(all).toHaveLength(4);
  const [alone] = await generate({ prompt: "a dog", seed: 7 });
  expect(alone!.data).toEqual(all[2]!.data);
  const [again] = await generate({ prompt: "a dog", seed: 7 });
  expect(again!.data).toEqual(alone!.data);
  expect(distance(all[2]!, all[3]!)).toBeGreaterThan(1); // another seed
  const counted = await generate({ prompt: "a dog", imagesPerPrompt: 2, seed: 7 });
  expect(counted.map(i => [...i.data])).toEqual([[...all[2]!.data], [...all[3]!.data]]);
});

test("guidance scale 1 runs without the negative prompt, and a negative prompt matters otherwise", async () => {
  const [plain] = await generate({ guidanceScale: 1 });
  const [same] = await generate({ guidanceScale: 1, negativePrompt: "blurry" });
  expect(same!.data).toEqual(plain!.data);
  const [guided] = await generate({ negativePrompt: "blurry" });
  const [empty] = await generate({ negativePrompt: "" });
  const [none] = await generate();
  expect(none!.data).toEqual(empty!.data);
  expect(distance(guided!, empty!)).toBeGreaterThan(0);
});

test("that holds for pictures that begin with a picture, too", async () => {
  const [image] = await generate({ seed: 1 });
  const both = await generate({ image: image!, imagesPerPrompt: 2, seed: 4, batchSize: 2 });
  const [second] = await generate({ image: image!, seed: 5 });
  expect(second!.data).toEqual(both[1]!.data);
  expect(distance(both[0]!, both[1]!)).toBeGreaterThan(0.1);
});

test("image to image keeps more of the picture the less strength it is given", async () => {
  const [start] = await generate({ seed: 1 });
  const [through] = await generate({ image: start!, mask: flat(0), seed: 2 }); // an autoencoder of random weights changes a picture by itself
  const round = async (strength: number): Promise<number> => {
    const [made] = await generate({ image: start!, strength, steps: 10, guidanceScale: 1, scheduler: euler(), seed: 2 });
    return distance(made!, through!);
  };
  const [little, more] = [await round(0.1), await round(1)];
  expect(little).toBeLessThan(more);
});

test("inpainting leaves what the mask does not cover as the autoencoder has it", async () => {
  const [start] = await generate({ seed: 1 });
  const kept = await generate({ image: start!, mask: flat(0), seed: 3 });
  const [through] = await generate({ image: start!, mask: flat(0), seed: 3, steps: 1 });
  expect(distance(kept[0]!, through!)).toBeLessThan(0.01); // nothing is painted: the picture through the autoencoder, whatever the steps
  const half: Image = { ...flat(0), data: flat(0).data.map((_, i) => (Math.floor(i / 3) % 64 < 32 ? 255 : 0)) };
  const [painted] = await generate({ image: start!, mask: half, seed: 3 });
  expect(distance(painted!, kept[0]!)).toBeGreaterThan(0.01);
});

test("a prompt that is too long is cut, and the cut is told", async () => {
  const warnings: string[] = [];
  await generate({ prompt: `${"word ".repeat(200)}end`, onWarning: message => warnings.push(message) });
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(/tokens are not seen.*end/s);
});

test("steps are told as they are done, a preview is a picture, and a signal stops the run", async () => {
  const stop = new AbortController();
  const seen: number[] = [];
  const run = generate({
    steps: 5,
    signal: stop.signal,
    onStep({ step, steps }) {
      seen.push(step / steps);
      if (step === 2) stop.abort(new Error("enough"));
    },
  });
  await expect(run).rejects.toThrow("enough");
  expect(seen).toEqual([0.2, 0.4]);
  const pictures: Image[][] = [];
  const waiting: Promise<unknown>[] = [];
  const [made] = await generate({ steps: 2, scheduler: euler(), onStep: ({ preview: look }) => void waiting.push(look().then(p => pictures.push(p))) });
  await Promise.all(waiting);
  expect(pictures).toHaveLength(2);
  expect(pictures[1]![0]!.data).toEqual(made!.data); // after the last step the estimate is the result
});

test("options that do not fit are refused by name", async () => {
  const refused: readonly (readonly [Partial<GenerateOptions>, RegExp])[] = [
    [{ prompt: [] }, /prompt to be at least one/],
    [{ height: 60 }, /height to be a multiple of/],
    [{ seed: [1, 2] }, /seed to be one number, or one for each of 1/],
    [{ seed: -1 }, /seed to be a whole number/],
    [{ negativePrompt: ["a", "b"] }, /negativePrompt to be one, or one for each of 1/],
    [{ mask: flat(0) }, /image to be given where mask is/],
    [{ strength: 0.5 }, /image to be given where strength is/],
    [{ batchSize: 0 }, /batchSize/],
    [{ imagesPerPrompt: 0.5 }, /imagesPerPrompt/],
    [{ steps: 0 }, /steps/],
    [{ guidanceScale: Number.NaN }, /guidanceScale/],
  ];
  for (const [options, message] of refused) await expect(generate(options)).rejects.toThrow(message);
});

test("a saved pipeline loads, and makes the same pictures", async () => {
  const folder = at();
  await pipeline.save(folder);
  const again = await DiffusionPipeline.load(folder, { device: await openDevice("cpu") });
  try {
    const [a] = await generate({ seed: 4 });
    const [b] = await again.generate({ prompt: "a cat", steps: 3, ...size, seed: 4 });
    expect(b!.data).toEqual(a!.data);
  } finally {
    await again.close();
  }
});

test("without an autoencoder the UNet's samples are the pixels, or the folder is refused", async () => {
  const folder = at();
  fs.cpSync(source, folder, { recursive: true });
  const index = JSON.parse(fs.readFileSync(path.join(folder, "model_index.json"), "utf8")) as Record<string, unknown>;
  fs.writeFileSync(path.join(folder, "model_index.json"), JSON.stringify({ ...index, vae: [null, null] }));
  await expect(DiffusionPipeline.load(folder, { device: await openDevice("cpu") })).rejects.toThrow(/out_channels of the unet to be 3, those of the pixels/);
});

test("every problem of model_index.json is told at once", () => {
  const json = {
    _class_name: "FluxPipeline",
    unet: ["diffusers", "UNet2DModel"],
    vae: ["diffusers", "AutoencoderKL"],
    scheduler: "DDIM",
    transformer: ["diffusers", "FluxTransformer2DModel"],
    text_encoder: ["transformers", "CLIPTextModel"],
    safety_checker: ["stable_diffusion", "StableDiffusionSafetyChecker"],
  };
  const problems = [
    /_class_name: expected one of .*StableDiffusionPipeline.*, received FluxPipeline/,
    /unet: expected UNet2DConditionModel, received UNet2DModel/,
    /vae: its folder is missing/,
    /scheduler: expected \[library, class\], received "DDIM"/,
    /transformer: unexpected part/,
    /tokenizer: missing/,
  ];
  for (const problem of problems) expect(() => modelIndexOf(json, "model_index.json", part => part !== "vae")).toThrow(problem);
});

/** An adapter of rank 2 for one module of the UNet and one of the text encoder, written as kohya's scripts would. */
async function writeAdapter(file: string, extra: Readonly<Record<string, readonly number[]>> = {}): Promise<void> {
  const width = (store: { entries: ReadonlyMap<string, { shape: readonly number[] }> }, module: string) => store.entries.get(`${module}.weight`)!.shape;
  const [unetModule, textModule] = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", "text_model.encoder.layers.0.self_attn.q_proj"];
  const [o1, i1] = width(pipeline.unet.store, unetModule) as [number, number];
  const [o2, i2] = width(pipeline.textEncoders[0]!.model.store, textModule) as [number, number];
  const wave = (shape: readonly number[]) =>
    hostTensor(
      "f32",
      shape,
      Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i + shape[0]!)),
    );
  const pair = (name: string, inputs: number, outputs: number) => ({
    [`${name}.lora_down.weight`]: wave([2, inputs]),
    [`${name}.lora_up.weight`]: wave([outputs, 2]),
    [`${name}.alpha`]: hostTensor("f32", [], [2]),
  });
  const unet = `lora_unet_${unetModule.replaceAll(".", "_")}`,
    text = `lora_te_${textModule.replaceAll(".", "_")}`;
  const others = Object.fromEntries(Object.entries(extra).map(([name, shape]) => [name, wave(shape)]));
  await writeSafetensors(file, { ...pair(unet, i1, o1), ...pair(text, i2, o2), ...others });
}

test("an adapter of UNet and text encoder changes pictures, comes off without a trace, folds in and out, and is written as it was read", async () => {
  await writeAdapter(at("style.safetensors"));
  const [before] = await generate({ seed: 9 });
  await pipeline.loadLora(at("style.safetensors"), { name: "style", strength: 0.8 });
  const [applied] = await generate({ seed: 9 });
  expect(distance(applied!, before!)).toBeGreaterThan(1);
  await pipeline.fuseLora();
  const [fused] = await generate({ seed: 9 });
  expect(distance(fused!, applied!)).toBeLessThan(0.05); // rounding: a few pixels by one
  await pipeline.unfuseLora();
  expect((await generate({ seed: 9 }))[0]!.data).toEqual(applied!.data);
  expect(await pipeline.saveLora(at("out"), { name: "style", format: "kohya" })).toEqual([]);
  pipeline.setAdapters({});
  expect((await generate({ seed: 9 }))[0]!.data).toEqual(before!.data);
  await pipeline.loadLora(at("out"), { name: "again", strength: 0.8 });
  expect((await generate({ seed: 9 }))[0]!.data).toEqual(applied!.data);
  pipeline.setAdapters({ style: 0.4, again: 0.4 });
  const [both] = await generate({ seed: 9 });
  expect(distance(both!, applied!)).toBeLessThan(0.05);
  pipeline.setAdapters({});
});

test("an adapter with tensors for no module of the pipeline is refused whole, and lists them", async () => {
  await writeAdapter(at("odd.safetensors"), { "lora_unet_no_such_module.lora_down.weight": [2, 2] });
  const before = pipeline.unet.adapters.revision;
  await expect(pipeline.loadLora(at("odd.safetensors"), { name: "odd" })).rejects.toThrow(/lora_unet_no_such_module.lora_down.weight/);
  expect(pipeline.unet.adapters.revision).toBe(before);
  expect(() => pipeline.setAdapters({ odd: 1 })).toThrow(/one that is there, received "odd"/);
  await expect(pipeline.saveLora(at("nothing"), { name: "odd" })).rejects.toThrow(/of an adapter that is there/);
});

test("a UNet for inpainting is told the mask and what lies around it", async () => {
  const folder = at();
  fs.cpSync(source, folder, { recursive: true });
  const config = JSON.parse(fs.readFileSync(path.join(source, "unet/config.json"), "utf8")) as Record<string, unknown>;
  const device = await openDevice("cpu");
  const unet = await UNet.create({ ...config, in_channels: 9 }, { device, seed: 1 });
  await unet.save(path.join(folder, "unet"));
  await unet.close();
  const painter = await DiffusionPipeline.load(folder, { device });
  try {
    const options = { prompt: "a cat", steps: 2, ...size, seed: 2, guidanceScale: 1 };
    await expect(painter.generate(options)).rejects.toThrow(/image and mask to be given: the UNet is one for inpainting/);
    const paint = async (image: Image, mask: Image, more: Partial<GenerateOptions> = {}) => (await painter.generate({ ...options, image, mask, ...more }))[0]!;
    const all = await paint(flat(200), flat(255));
    expect(distance(await paint(flat(20), flat(255)), all)).toBe(0); // all of the picture is hidden, and the run begins with noise
    expect(distance(await paint(flat(200), flat(0)), all)).toBeGreaterThan(0);
    expect(distance(await paint(flat(20), flat(0)), await paint(flat(200), flat(0)))).toBeGreaterThan(0);
    expect(distance(await paint(flat(20), flat(255), { strength: 0.5 }), await paint(flat(200), flat(255), { strength: 0.5 }))).toBeGreaterThan(0);
    const pair = await painter.generate({ ...options, image: flat(200), mask: flat(0), imagesPerPrompt: 2, batchSize: 2 });
    expect(pair[0]!.data).toEqual((await paint(flat(200), flat(0))).data);
  } finally {
    await painter.close();
  }
});
