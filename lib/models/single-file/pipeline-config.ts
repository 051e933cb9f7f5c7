/** What a diffusers folder says beside its models: the noise process, and the classes that a pipeline is put together from. */

import type { Config, Family, PartName } from "./parts.js";

/** The noise process of every Stable Diffusion up to XL (Rombach et al. 2022, CompVis/stable-diffusion `v1-inference.yaml`). */
export function schedulerConfig(family: Family, predictionType: string): Config {
  const xl = family.startsWith("sdxl");
  return {
    _class_name: xl ? "EulerDiscreteScheduler" : "DDIMScheduler",
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    beta_start: 0.00085,
    ...(xl ? { interpolation_type: "linear", use_karras_sigmas: false } : { clip_sample: false, set_alpha_to_one: false }),
    num_train_timesteps: 1000,
    prediction_type: predictionType,
    steps_offset: 1,
    timestep_spacing: "leading",
  };
}

const classes: { readonly [P in PartName]: (family: Family) => readonly [string, string] } = {
  unet: () => ["diffusers", "UNet2DConditionModel"],
  vae: () => ["diffusers", "AutoencoderKL"],
  text_encoder: () => ["transformers", "CLIPTextModel"],
  text_encoder_2: () => ["transformers", "CLIPTextModelWithProjection"],
};

const tokenizers: Readonly<Partial<Record<PartName, string>>> = { text_encoder: "tokenizer", text_encoder_2: "tokenizer_2" };

export function modelIndex(family: Family, parts: readonly { readonly part: { readonly name: PartName }; readonly config: Config }[]): Config {
  const entries = parts.flatMap(({ part: { name } }): [string, readonly [string, string]][] => {
    const tokenizer = tokenizers[name];
    return [[name, classes[name](family)], ...(tokenizer ? [[tokenizer, ["transformers", "CLIPTokenizer"]] as [string, readonly [string, string]]] : [])];
  });
  const scheduler = ["diffusers", String(schedulerConfig(family, "epsilon")._class_name)];
  const inpaints = parts.some(({ part, config }) => part.name === "unet" && config.in_channels === 9);
  return { _class_name: pipelineClass(family, inpaints), ...Object.fromEntries(entries), scheduler };
}

function pipelineClass(family: Family, inpaints: boolean): string {
  if (family === "sdxl-refiner") return "StableDiffusionXLImg2ImgPipeline";
  return `StableDiffusion${family === "sdxl" ? "XL" : ""}${inpaints ? "Inpaint" : ""}Pipeline`;
}
