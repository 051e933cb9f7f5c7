/** Whole pipelines against diffusers: prompt features, latents after every step with guidance, and pictures. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { schedulerFromConfig } from "../../lib/diffusion/scheduler-config.js";
import { Generator } from "../../lib/pipeline/generate.js";
import type { GenerateOptions } from "../../lib/pipeline/generate-options.js";
import { DiffusionPipeline } from "../../lib/pipeline/pipeline.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { parsePythonJson } from "../../lib/util/python-json.js";
import { relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";

interface Case {
  readonly scheduler: string;
  readonly scheduler_config: Readonly<Record<string, unknown>>;
  readonly guidance_scale: number;
  readonly negative: readonly string[] | null;
  readonly f64_rel_l2: { readonly latents: number; readonly image: number };
}
interface Meta {
  readonly height: number;
  readonly width: number;
  readonly steps: number;
  readonly prompts: readonly string[];
  readonly cases: Readonly<Record<string, Case>>;
}

const folder = goldenSet("pipelines");
const metaFile = path.join(folder, "meta.json");
const meta = parsePythonJson(fs.readFileSync(metaFile), metaFile) as Meta;
const numbers = (t: HostTensor): Float64Array => Float64Array.from(t.data as Float32Array);

describe.each(fs.readdirSync(folder).filter(name => fs.existsSync(path.join(folder, name, "model_index.json"))))("%s", name => {
  let pipeline: DiffusionPipeline, file: SafetensorsFile, device: Device;
  beforeAll(async () => {
    device = await openDevice("cpu");
    pipeline = await DiffusionPipeline.load(path.join(folder, name), { device });
    file = readSafetensors(path.join(folder, `${name}.safetensors`));
  });
  afterAll(async () => {
    await pipeline.close();
    file.close();
  });

  test("features of prompts", async () => {
    const features = await pipeline.encodePrompt(meta.prompts);
    expect(relL2(numbers(features.encoderHiddenStates), numbers(file.tensor("prompt_embeds")))).toBeLessThan(1e-5);
    if (features.textEmbeds) expect(relL2(numbers(features.textEmbeds), numbers(file.tensor("pooled_prompt_embeds")))).toBeLessThan(1e-5);
  });

  const cases = Object.entries(meta.cases).filter(([key]) => key.startsWith(`${name}|`));
  test.each(cases)("%s", async (key, { scheduler_config, scheduler, guidance_scale, negative, f64_rel_l2 }) => {
    const label = key.slice(name.length + 1);
    const options: GenerateOptions = {
      prompt: meta.prompts,
      ...(negative && { negativePrompt: negative }),
      steps: meta.steps,
      height: meta.height,
      width: meta.width,
      guidanceScale: guidance_scale,
      scheduler: schedulerFromConfig({ _class_name: scheduler, ...scheduler_config }, key),
      latents: file.tensor("in.latents"),
      batchSize: meta.prompts.length,
    };
    const latents: HostTensor[] = [];
    await new Generator(pipeline).run(options, async x => void latents.push(x));
    const last = file.tensor(`${label}|latents.${meta.steps - 1}`);
    expect(latents[0]!.shape).toEqual(last.shape);
    expect(relL2(numbers(latents[0]!), numbers(last))).toBeLessThanOrEqual(Math.max(20 * f64_rel_l2.latents, 1e-4));
    const stored = `${label}|uint8`;
    if (!file.tensors.has(stored)) return;
    const images = await new Generator(pipeline).decode(latents[0]!, {});
    const { data } = file.tensor(stored);
    const actual = images.flatMap(image => [...image.data]).slice(0, data.length);
    const off = actual.map((v, i) => Math.abs(v - Number(data[i])));
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
    expect(off.filter(d => d > 0).length / off.length).toBeLessThan(0.005);
  });
});
