/** The families of single-file checkpoints and the models that each holds: which prefix, which rules, which folder. */

import type { TensorFile } from "../../data/safetensors.js";
import { ConfigError, DataError, type WeightsError } from "../../errors.js";
import { sameShape } from "../../graph/tensor.js";
import { outsideShape } from "../../util/host-tensor.js";
import { isLayers, layersText } from "../config-reader.js";
import { parseUNetConfig } from "../unet-config.js";
import { declareUNet } from "../unet-parameters.js";
import { classicClipName, clipRules, detectClipConfig } from "./clip.js";
import { detectOpenClipConfig, openClipRules } from "./open-clip.js";
import type { TensorRule } from "./rules.js";
import { detectUNetConfig, unetPrefix, unetRules } from "./unet.js";
import { currentVaeName, detectVaeConfig, vaePrefix, vaeRules } from "./vae.js";

export type Family = "sd1" | "sd2" | "sdxl" | "sdxl-refiner";
export type PartName = "unet" | "vae" | "text_encoder" | "text_encoder_2";
export type Config = Readonly<Record<string, unknown>>;

/** One model of a checkpoint. */
export interface Part {
  readonly name: PartName;
  /** Base name of its weights in a folder. */
  readonly baseName: string;
  /** Of its names in a file. Some old files lack what stands in `optionalPrefix` behind it. */
  readonly prefix: string;
  readonly optionalPrefix?: string;
  readonly rules: (config: Config, source: string) => TensorRule[];
  readonly detect: (file: TensorFile, prefix: string) => Config;
  /** The name that rules have for a tensor, whatever library version wrote it. */
  readonly currentName: (name: string) => string;
  /** Tensors of a folder whose shapes are not those of the model. */
  readonly mismatched?: (config: Config, tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>) => WeightsError["mismatched"];
}

const diffusersName = "diffusion_pytorch_model";

const unet: Part = {
  name: "unet",
  baseName: diffusersName,
  prefix: unetPrefix,
  rules: (config, source) => unetRules(parseUNetConfig(config, source)),
  detect: detectUNetConfig,
  currentName: name => name,
  mismatched(config, tensors) {
    const { entries } = declareUNet(parseUNetConfig(config, "unet"), "f32");
    return [...entries.values()].flatMap(({ name, shape, layout }) => {
      const [expected, received] = [outsideShape(shape, layout), tensors.get(name)?.shape ?? []];
      return sameShape(expected, received) ? [] : [{ name, expected: `[${expected}]`, received: `[${received}]` }];
    });
  },
};

function levelsOf({ block_out_channels: channels }: Config, source: string): number {
  if (!Array.isArray(channels) || !isLayers(channels.length)) throw new ConfigError(source, "block_out_channels", "an array of widths", channels);
  return channels.length;
}

const vae = (scalingFactor: number, sampleSize: number): Part => ({
  name: "vae",
  baseName: diffusersName,
  prefix: vaePrefix,
  rules: (config, source) => vaeRules({ levels: levelsOf(config, source), layers: layersOf(config, "layers_per_block", source) }),
  detect: file => detectVaeConfig(file, { scalingFactor, sampleSize }),
  currentName: currentVaeName,
});

/** A config is data from elsewhere: rules are made for every layer that it speaks of. */
function layersOf(config: Config, field: string, source: string): number {
  const layers = config[field];
  if (!isLayers(layers)) throw new ConfigError(source, field, layersText, layers);
  return layers;
}

const clip = (prefix: string): Part => ({
  name: "text_encoder",
  baseName: "model",
  prefix,
  optionalPrefix: "text_model.",
  rules: (config, source) => clipRules(layersOf(config, "num_hidden_layers", source)),
  detect: detectClipConfig,
  currentName: classicClipName,
});

const openClip = (name: PartName, prefix: string, projection: boolean): Part => ({
  name,
  baseName: "model",
  prefix,
  rules: (config, source) => openClipRules(layersOf(config, "num_hidden_layers", source), { projection }),
  detect: (file, at) => detectOpenClipConfig(file, at, { projection }),
  currentName: classicClipName,
});

/** What each family may hold, and the factor by which its latents are scaled: Rombach et al. 2022; Podell et al. 2023. */
export const families: { readonly [F in Family]: readonly Part[] } = {
  sd1: [unet, vae(0.18215, 512), clip("cond_stage_model.transformer.")],
  sd2: [unet, vae(0.18215, 768), openClip("text_encoder", "cond_stage_model.model.", false)],
  sdxl: [unet, vae(0.13025, 1024), clip("conditioner.embedders.0.transformer."), openClip("text_encoder_2", "conditioner.embedders.1.model.", true)],
  "sdxl-refiner": [unet, vae(0.13025, 1024), openClip("text_encoder_2", "conditioner.embedders.0.model.", true)],
};

const marks: readonly (readonly [string, Family])[] = [
  ["conditioner.embedders.1.model.", "sdxl"],
  ["conditioner.embedders.0.transformer.", "sdxl"],
  ["conditioner.embedders.0.model.", "sdxl-refiner"],
  ["cond_stage_model.model.", "sd2"],
  ["cond_stage_model.transformer.", "sd1"],
];

/** By the text encoders, which say most; of a UNet alone, by its shapes. Throws DataError for a file without a UNet of this make. */
export function detectFamily(file: TensorFile): Family {
  const names = [...file.tensors.keys()];
  const key = `${unetPrefix}input_blocks.0.0.weight`;
  if (!file.tensors.has(key)) {
    const others = names.slice(0, 5).join(", ");
    throw new DataError(file.source, `expected a Stable Diffusion checkpoint in CompVis' layout, received tensors such as ${others || "none"}`, { field: key });
  }
  const found = marks.find(([prefix]) => names.some(name => name.startsWith(prefix)));
  if (found) return found[1];
  if (file.tensors.has(`${unetPrefix}label_emb.0.0.weight`))
    return file.tensors.has(`${unetPrefix}input_blocks.10.0.in_layers.0.weight`) ? "sdxl-refiner" : "sdxl";
  return file.tensors.get(`${unetPrefix}middle_block.1.proj_in.weight`)?.shape.length === 2 ? "sd2" : "sd1";
}

/** The family of a folder, by the configs that it has. */
export function familyOf(configs: Readonly<Partial<Record<PartName, Config>>>): Family {
  if (configs.unet?.addition_embed_type === "text_time") return configs.text_encoder_2 && !configs.text_encoder ? "sdxl-refiner" : "sdxl";
  if (configs.text_encoder) return configs.text_encoder.hidden_act === "gelu" ? "sd2" : "sd1";
  return configs.unet?.use_linear_projection === true ? "sd2" : "sd1";
}
