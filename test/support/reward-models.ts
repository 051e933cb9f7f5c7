/** The tiny reward models of the golden set, and tokenizers that know the set's own texts only. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Image } from "../../lib/data/image.js";
import { readSafetensors } from "../../lib/data/safetensors.js";
import type { TokenBatch } from "../../lib/data/tokenizer.js";
import { openDevice } from "../../lib/device.js";
import type { ClipConfig } from "../../lib/models/clip-config.js";
import { Clip } from "../../lib/models/clip-model.js";
import { openClipWeights, parseOpenClipConfig } from "../../lib/models/open-clip.js";
import type { ModelDType } from "../../lib/nn/params.js";
import { type ImageRewardConfig, ImageRewardModel, imageRewardConfig } from "../../lib/rewards/image-reward-model.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { Random } from "../../lib/util/random.js";

function json(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
}

export function tinyHpsConfig(folder: string): ClipConfig {
  const { act: _a, ln_eps: _e, ...config } = json(join(folder, "hpsv2-tiny/config.json")); // notes of the set: open_clip has neither
  return parseOpenClipConfig(config, "hpsv2-tiny");
}

export async function tinyHps(folder: string, dtype: ModelDType): Promise<Clip> {
  const file = readSafetensors(join(folder, "hpsv2-tiny/model.safetensors"));
  try {
    return await Clip.fromWeights(tinyHpsConfig(folder), openClipWeights(file), { device: await openDevice("cpu"), dtype });
  } finally {
    file.close();
  }
}

export function tinyImageRewardConfig(folder: string): ImageRewardConfig {
  const c = json(join(folder, "imagereward-tiny/config.json")) as Record<string, number> & { mlp: number[] };
  return imageRewardConfig({
    vision: { imageSize: c.image_size!, patch: c.patch!, width: c.vw!, layers: c.vdepth!, heads: c.vheads!, hidden: 4 * c.vw!, eps: c.ln_vision! },
    text: { width: c.th!, layers: c.tlayers!, heads: c.theads!, hidden: c.inter!, vocabulary: c.vocab!, positions: c.maxpos!, eps: c.ln_text! },
    projection: c.embed!,
    mean: c.mean!,
    std: c.std!,
    maxLength: c.max_length!,
    head: [0, 2, 4, 6, 7].map((place, i) => [place, c.mlp[i + 1]!] as const),
  });
}

export async function tinyImageReward(folder: string, dtype: ModelDType): Promise<ImageRewardModel> {
  const file = readSafetensors(join(folder, "imagereward-tiny/model.safetensors"));
  try {
    return await ImageRewardModel.fromWeights(tinyImageRewardConfig(folder), file, { device: await openDevice("cpu"), dtype });
  } finally {
    file.close();
  }
}

/** A tokenizer for the tiny CLIP: a character is an id, 118 begins and 119, the largest, ends. Different prompts have different ids. */
export const letterTokenizer = {
  encode(texts: readonly string[], { maxLength = 77 }: { readonly maxLength?: number } = {}): TokenBatch {
    const rows = texts.map(text => [118, ...[...text].slice(0, maxLength - 2).map(c => c.charCodeAt(0) % 118), 119]);
    return batchOf(rows, maxLength, 119);
  },
};

/** One for the tiny ImageReward, whose vocabulary has 60 ids. */
export const letterTokenizerOf60 = {
  encode(texts: readonly string[], { maxLength = 35 }: { readonly maxLength?: number } = {}): TokenBatch {
    const rows = texts.map(text => [58, ...[...text].slice(0, maxLength - 2).map(c => 1 + (c.charCodeAt(0) % 57)), 59]);
    return batchOf(rows, Math.max(...rows.map(row => row.length)), 0);
  },
};

function batchOf(rows: readonly number[][], length: number, pad: number): TokenBatch {
  const filled = (value: (row: readonly number[], i: number) => number): HostTensor =>
    hostTensor("i32", [rows.length, length], Int32Array.from(rows.flatMap(row => Array.from({ length }, (_, i) => value(row, i)))));
  return { ids: filled((row, i) => row[i] ?? pad), attentionMask: filled((row, i) => Number(i < row.length)), truncated: [] };
}

/** A picture that looks random and is the same in every run. */
export function pseudoImage(salt: number, width = 40, height = 30): Image {
  const random = new Random(salt, "picture");
  return { width, height, channels: 3, data: Uint8Array.from({ length: 3 * width * height }, () => random.integer(256)) };
}
