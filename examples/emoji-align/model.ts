/** The demo's model: diffusers' UNet2DConditionModel on 16 x 16 pixels, looking at one learned vector per word of the prompt. There is no VAE: pictures
 *  are the latents, values in [-1, 1]. The folder is laid out as diffusers does, with `words/` where a text encoder would be. */

import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import type { Device } from "../../lib/device.js";
import type { Denoiser } from "../../lib/diffusion/denoiser.js";
import { type NoiseSchedule, noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { DataError } from "../../lib/errors.js";
import { embedding } from "../../lib/graph/ops/embed.js";
import { full, input } from "../../lib/graph/ops/leaf.js";
import type { Session } from "../../lib/graph/session.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { loadWeights, storedWeights } from "../../lib/models/load.js";
import { unet } from "../../lib/models/unet.js";
import { parseUNetConfig, type UNetConfig } from "../../lib/models/unet-config.js";
import { readUNetConfig } from "../../lib/models/unet-model.js";
import { initialise, initialStreams, reserve } from "../../lib/nn/init.js";
import { ParameterStore, Params } from "../../lib/nn/params.js";
import type { Trainable } from "../../lib/train/trainable.js";
import { writeAtomically, writeFully } from "../../lib/util/atomic-file.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { parseStrictJson } from "../../lib/util/strict-json.js";
import { side } from "./drawings.js";
import { promptLength, Vocabulary } from "./vocabulary.js";

/** Width of a word's vector. */
const wordWidth = 64;

/** What the base model's config.json holds. */
export const unetConfig = {
  sample_size: side,
  in_channels: 3,
  out_channels: 3,
  block_out_channels: [32, 48, 64],
  layers_per_block: 1,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  cross_attention_dim: wordWidth,
  attention_head_dim: 4,
  norm_num_groups: 8,
};

/** Stable Diffusion's forward process; what DDIM needs besides stands in the same file. */
export const schedulerConfig = {
  _class_name: "DDIMScheduler",
  num_train_timesteps: 1000,
  beta_schedule: "scaled_linear",
  beta_start: 0.00085,
  beta_end: 0.012,
  prediction_type: "epsilon",
  clip_sample: false,
  set_alpha_to_one: false,
  steps_offset: 1,
};

export interface EmojiModel extends Trainable {
  readonly vocabulary: Vocabulary;
  readonly schedule: NoiseSchedule;
  close(): Promise<void>;
}

/** The base model of a folder, its word vectors frozen. */
export async function loadModel(folder: string, device: Device): Promise<EmojiModel> {
  const config = readUNetConfig(join(folder, "unet"));
  const vocabulary = new Vocabulary(readWords(join(folder, "words", "words.json")));
  const wordStore = new ParameterStore({ arena: "words", dtype: "f32", trainable: false });
  const store = new ParameterStore({ arena: "parameters", dtype: "f32", trainable: true });
  const denoiser = emojiDenoiser({ config, words: vocabulary.size, table: new Params(wordStore) });
  declare(denoiser, store);
  wordStore.seal();
  const schedule = readSchedule(join(folder, "scheduler", "scheduler_config.json"));
  return opened(device, { denoiser, store, vocabulary, schedule }, async session => {
    for (const [target, ...path] of [
      [store, "unet", "diffusion_pytorch_model.safetensors"],
      [wordStore, "words", "model.safetensors"],
    ] as const) {
      const file = readSafetensors(join(folder, ...path));
      reserve(session, target);
      await loadWeights(session, target, file).finally(() => file.close());
    }
  });
}

/** A model with random weights whose word vectors are trained with the rest. */
export async function createModel({ vocabulary, device, seed }: { vocabulary: Vocabulary; device: Device; seed: number }): Promise<EmojiModel> {
  const store = new ParameterStore({ arena: "parameters", dtype: "f32", trainable: true });
  const denoiser = emojiDenoiser({ config: parseUNetConfig(unetConfig, "the demo's UNet"), words: vocabulary.size });
  declare(denoiser, store);
  return opened(device, { denoiser, store, vocabulary, schedule: noiseScheduleFromConfig(schedulerConfig, "the demo's schedule") }, async session => {
    reserve(session, store);
    await initialise(session, store, { seed, stream: initialStreams.model });
  });
}

async function opened(device: Device, parts: Omit<EmojiModel, "session" | "close">, fill: (session: Session) => void | Promise<void>): Promise<EmojiModel> {
  const session = device.openSession();
  try {
    await fill(session);
    return { ...parts, session, close: () => session.close() };
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** Prompts as word ids i32 [B, promptLength]. The vectors are parameters `words.weight` [words, wordWidth]: of `table` if it is given, else of the model itself. */
function emojiDenoiser({ config, words, table }: { config: UNetConfig; words: number; table?: Params }): Denoiser {
  const uniform = { bound: Math.sqrt(3) }; // unit variance
  return {
    sampleShape: [side, side, 3],
    condition: batch => ({ ids: input("ids", typed("i32", batch, promptLength)) }),
    uncondition: ({ ids }) => ({ ids: full(0, ids!.shape, "i32") }),
    predict(sample, timestep, { ids }, params) {
      const vectors = (table ?? params).at("words").tensor("weight", [words, wordWidth], { init: uniform });
      return unet(config, params, { sample, timestep, encoderHiddenStates: embedding(vectors, ids!) });
    },
  };
}

/** Declares the parameters by building one forward pass. */
function declare(denoiser: Denoiser, store: ParameterStore): void {
  buildGraph(() =>
    denoiser.predict(input("sample", typed("f32", 1, ...denoiser.sampleShape)), input("timestep", typed("i32", 1)), denoiser.condition(1), new Params(store)),
  );
  store.seal();
}

/** Writes a model from createModel as a folder that loadModel reads, weights in half precision. */
export async function saveModel({ store, session, vocabulary }: EmojiModel, folder: string): Promise<void> {
  for (const part of ["unet", "scheduler", "words"]) await mkdir(join(folder, part), { recursive: true });
  const weights = [...storedWeights(session, store, "f16")];
  const isWord = (name: string) => name.startsWith("words.");
  await writeSafetensors(join(folder, "unet", "diffusion_pytorch_model.safetensors"), new Map(weights.filter(([name]) => !isWord(name))), { format: "pt" });
  await writeSafetensors(join(folder, "words", "model.safetensors"), new Map(weights.filter(([name]) => isWord(name))), { format: "pt" });
  await writeJson(join(folder, "unet", "config.json"), { _class_name: "UNet2DConditionModel", ...unetConfig });
  await writeJson(join(folder, "scheduler", "scheduler_config.json"), schedulerConfig);
  await writeJson(join(folder, "words", "words.json"), vocabulary.words);
}

/** Word ids of prompts, as the denoiser's condition. */
export function conditionOf(vocabulary: Vocabulary, prompts: readonly string[]): { readonly ids: HostTensor } {
  return { ids: hostTensor("i32", [prompts.length, promptLength], vocabulary.encode(prompts)) };
}

function readWords(path: string): string[] {
  const words = readJson(path);
  if (!Array.isArray(words) || words.some(word => typeof word !== "string")) throw new DataError(path, "expected a list of words");
  return words as string[];
}

function readSchedule(path: string): NoiseSchedule {
  return noiseScheduleFromConfig(readJson(path) as Record<string, unknown>, path);
}

function readJson(path: string): unknown {
  return parseStrictJson(readFileSync(path), path);
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeAtomically(path, file => writeFully(file, new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`)));
}
