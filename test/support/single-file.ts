/** Folders and configs for tests of single-file checkpoints: tiny models of the golden sets put together, and the configs that the published models have. */

import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import type { HostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "./goldens.js";

export type Json = Record<string, unknown>;

/** Folders of tiny models. */
export type Models = Readonly<Record<"vae" | "text_encoder" | "text_encoder_2", string>>;
export type Parts = readonly (keyof Models | "sd2 text_encoder")[];

export const readJson = (path: string): Json => JSON.parse(readFileSync(path, "utf8")) as Json;

export function readAll(path: string): Map<string, HostTensor> {
  const file = readSafetensors(path);
  const tensors = new Map([...file.tensors.keys()].map(name => [name, file.tensor(name)]));
  file.close();
  return tensors;
}

/** A diffusers folder with a UNet of the goldens and, of a VAE and text encoders, those that are named. SD 2's text encoder is the OpenCLIP one without its projection. */
export async function tinyFolder(folder: string, unet: string, parts: Parts, models: Models): Promise<void> {
  mkdirSync(folder);
  cpSync(join(goldenSet(unet), "unet"), join(folder, "unet"), { recursive: true });
  for (const part of parts) {
    if (part !== "sd2 text_encoder") {
      cpSync(models[part], join(folder, part), { recursive: true });
      continue;
    }
    const [from, to] = [models.text_encoder_2, join(folder, "text_encoder")];
    mkdirSync(to);
    const tensors = readAll(join(from, "model.safetensors"));
    tensors.delete("text_projection.weight");
    await writeSafetensors(join(to, "model.safetensors"), tensors, { format: "pt" });
    writeFileSync(join(to, "config.json"), JSON.stringify({ ...readJson(join(from, "config.json")), architectures: ["CLIPTextModel"] }));
  }
}

const cross = "CrossAttnDownBlock2D";
const crossUp = "CrossAttnUpBlock2D";

/** config.json of the published UNets, as far as it decides anything. */
export const publishedUNets = {
  sd1: {
    attention_head_dim: 8,
    block_out_channels: [320, 640, 1280, 1280],
    cross_attention_dim: 768,
    down_block_types: [cross, cross, cross, "DownBlock2D"],
    in_channels: 4,
    sample_size: 64,
    transformer_layers_per_block: 1,
    up_block_types: ["UpBlock2D", crossUp, crossUp, crossUp],
  },
  inpaint: {
    attention_head_dim: 8,
    block_out_channels: [320, 640, 1280, 1280],
    cross_attention_dim: 768,
    down_block_types: [cross, cross, cross, "DownBlock2D"],
    in_channels: 9,
    sample_size: 64,
    transformer_layers_per_block: 1,
    up_block_types: ["UpBlock2D", crossUp, crossUp, crossUp],
  },
  sd2: {
    attention_head_dim: [5, 10, 20, 20],
    block_out_channels: [320, 640, 1280, 1280],
    cross_attention_dim: 1024,
    down_block_types: [cross, cross, cross, "DownBlock2D"],
    in_channels: 4,
    sample_size: 96,
    transformer_layers_per_block: 1,
    up_block_types: ["UpBlock2D", crossUp, crossUp, crossUp],
    use_linear_projection: true,
  },
  sdxl: {
    addition_embed_type: "text_time",
    addition_time_embed_dim: 256,
    attention_head_dim: [5, 10, 20],
    block_out_channels: [320, 640, 1280],
    cross_attention_dim: 2048,
    down_block_types: ["DownBlock2D", cross, cross],
    in_channels: 4,
    projection_class_embeddings_input_dim: 2816,
    sample_size: 128,
    transformer_layers_per_block: [1, 2, 10],
    up_block_types: [crossUp, crossUp, "UpBlock2D"],
    use_linear_projection: true,
  },
  refiner: {
    addition_embed_type: "text_time",
    addition_time_embed_dim: 256,
    attention_head_dim: [6, 12, 24, 24],
    block_out_channels: [384, 768, 1536, 1536],
    cross_attention_dim: 1280,
    down_block_types: ["DownBlock2D", cross, cross, "DownBlock2D"],
    in_channels: 4,
    projection_class_embeddings_input_dim: 2560,
    sample_size: 128,
    transformer_layers_per_block: 4,
    up_block_types: ["UpBlock2D", crossUp, crossUp, "UpBlock2D"],
    use_linear_projection: true,
  },
} as const satisfies Record<string, Json>;
