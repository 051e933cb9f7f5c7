/** Whole guided runs of Stable Diffusion pipelines of diffusers, from the text encoder's states to the last latents: the sampler, its schedulers and the UNet
 *  in the executor. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { type SampleOptions, Sampler } from "../../lib/diffusion/sampler.js";
import { schedulerFromConfig } from "../../lib/diffusion/scheduler-config.js";
import { unetDenoiser } from "../../lib/diffusion/unet-denoiser.js";
import { UNet } from "../../lib/models/unet-model.js";
import type { Scheduler } from "../../lib/schedulers/scheduler.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { parsePythonJson } from "../../lib/util/python-json.js";
import { expectClose, expectSame } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";

interface Meta {
  readonly height: number;
  readonly width: number;
  readonly steps: number;
  readonly cases: Readonly<
    Record<string, { scheduler: string; scheduler_config: Record<string, unknown>; guidance_scale: number; f64_rel_l2: { latents: number } }>
  >;
}

const folder = goldenSet("pipelines");
const meta = parsePythonJson(fs.readFileSync(path.join(folder, "meta.json")), "meta.json") as Meta;
const pipelines = ["sd", "sdxl"].filter(name => fs.existsSync(path.join(folder, `${name}.safetensors`)));
const names = (pipeline: string): string[] => Object.keys(meta.cases).filter(name => name.startsWith(`${pipeline}|`));

let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});

describe.each(pipelines)("%s", pipeline => {
  let model: UNet, golden: SafetensorsFile;
  beforeAll(async () => {
    model = await UNet.load(path.join(folder, pipeline, "unet"), { device, trainable: false });
    golden = readSafetensors(path.join(folder, `${pipeline}.safetensors`));
  });
  afterAll(async () => {
    golden.close();
    await model.close();
  });

  const pictures = (tensor: string): HostTensor => golden.tensor(tensor);
  const condition = (prefix: "" | "negative_"): Record<string, HostTensor> => {
    const encoderHiddenStates = pictures(`${prefix}prompt_embeds`);
    if (!model.config.addedText) return { encoderHiddenStates };
    const sizes = [meta.height, meta.width, 0, 0, meta.height, meta.width];
    return { encoderHiddenStates, textEmbeds: pictures(`${prefix}pooled_prompt_embeds`), timeIds: hostTensor("f32", [2, 6], [...sizes, ...sizes]) };
  };
  const denoised = (name: string, options: Partial<SampleOptions> & { scheduler?: Scheduler } = {}): Promise<HostTensor> => {
    const { scheduler, scheduler_config, guidance_scale: guidanceScale } = meta.cases[name]!;
    const config = { ...scheduler_config, _class_name: scheduler };
    const denoiser = unetDenoiser(model.config, { height: meta.height / 8, width: meta.width / 8, tokens: 77 });
    const sampler = new Sampler({ session: model.session, denoiser, store: model.store, schedule: noiseScheduleFromConfig(config, name) });
    // what a pipeline takes for no negative prompt at all is zeros
    const uncondition = name.endsWith("none_neg")
      ? mapValues(condition(""), (host, key) => (key === "timeIds" ? host : hostTensor("f32", host.shape)))
      : condition("negative_");
    const noise = options.seeds || options.seed !== undefined ? {} : { seed: 1, latents: pictures("in.latents") };
    const given = { ...noise, condition: condition(""), uncondition };
    return sampler.sample({ scheduler: schedulerFromConfig(config, name), steps: meta.steps, guidanceScale, ...given, ...options });
  };

  test.each(names(pipeline))("%s: every step's latents", async name => {
    const { f64_rel_l2, scheduler, scheduler_config } = meta.cases[name]!;
    const whole = schedulerFromConfig({ ...scheduler_config, _class_name: scheduler }, name);
    for (let done = 1; done <= meta.steps; done++) {
      const latents = await denoised(name, { scheduler: (process, steps) => whole(process, steps).slice(0, done) });
      const expected = pictures(`${name.split("|")[1]}|latents.${done - 1}`);
      expectClose(latents.data as Float32Array, expected.data as Float32Array, Math.max(20 * f64_rel_l2.latents, 1e-4), `step ${done}`);
    }
  });

  test("a picture of a batch is the one that its own seed draws alone", async () => {
    const [name] = names(pipeline) as [string];
    const one = (host: HostTensor, i: number): HostTensor => {
      const size = host.data.length / host.shape[0]!;
      return { ...host, shape: host.shape.with(0, 1), data: (host.data as Float32Array).subarray(i * size, (i + 1) * size) };
    };
    const batch = await denoised(name, { seeds: [7, 9] });
    for (const [i, seed] of [7, 9].entries()) {
      const only = (prefix: "" | "negative_") => mapValues(condition(prefix), host => one(host, i));
      const alone = await denoised(name, { condition: only(""), uncondition: only("negative_"), seed });
      expectSame(one(batch, i).data as Float32Array, alone.data as Float32Array, `picture ${i}`);
    }
  });
});

function mapValues(record: Readonly<Record<string, HostTensor>>, of: (host: HostTensor, key: string) => HostTensor): Record<string, HostTensor> {
  return Object.fromEntries(Object.entries(record).map(([key, host]) => [key, of(host, key)]));
}
