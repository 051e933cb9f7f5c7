/** Reward models from the files that their authors publish, as they are: a folder of transformers, a checkpoint of open_clip or ImageReward, in safetensors or torch's format. */

import { readFileSync, statSync } from "node:fs";
import { readTensors } from "../data/weights.js";
import type { WordPieceTokenizer } from "../data/wordpiece.js";
import { ConfigError, DataError } from "../errors.js";
import { blipLargeVision, parseMedConfig } from "../models/blip-config.js";
import { Clip } from "../models/clip-model.js";
import type { ModelLoadOptions } from "../models/model-handle.js";
import { openClipWeights, parseOpenClipConfig } from "../models/open-clip.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type ClipBackbone, type ClipBackboneOptions, clipBackbone } from "./clip-backbone.js";
import { type AffineHead, readHead } from "./head.js";
import { type ImageRewardOptions, imageReward } from "./image-reward.js";
import { type ImageRewardConfig, ImageRewardModel, imageRewardConfig } from "./image-reward-model.js";
import type { Reward } from "./reward.js";

export interface LoadClipBackboneOptions extends ModelLoadOptions, ClipBackboneOptions {
  /** For a single file: open_clip's model config (`openClipVitH14`, `openClipVitL14`, or what its JSON holds), which the file does not say. */
  readonly architecture?: unknown;
}

/** The backbone of PickScore (a folder), HPSv2 (HPS_v2_compressed.pt with `openClipVitH14`), CLIPScore and aesthetic predictors (a folder of ViT-L/14).
 *  Close `clip` when done. Throws DataError, ConfigError, WeightsError, the signal's reason. */
export async function loadClipBackbone(path: string, options: LoadClipBackboneOptions): Promise<ClipBackbone> {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new DataError(path, "expected a folder or a file, received neither");
  if (stat.isDirectory()) return clipBackbone(await Clip.load(path, options), options);
  if (options.architecture === undefined)
    throw new ConfigError("loadClipBackbone", "architecture", "given for a single file, which does not say how many heads it has", undefined);
  const config = parseOpenClipConfig(options.architecture, "architecture");
  const file = readTensors(path);
  try {
    return clipBackbone(await Clip.fromWeights(config, openClipWeights(file), options), options);
  } finally {
    file.close(); // also where an option was refused before it was read
  }
}

/** A head of the LAION aesthetic predictor, or of any affine chain of the same names. Throws DataError. */
export function loadAestheticHead(path: string, prefix?: string): AffineHead {
  const file = readTensors(path);
  try {
    return readHead(file, prefix);
  } finally {
    file.close();
  }
}

export interface LoadImageRewardOptions extends Omit<ModelLoadOptions, "variant">, Omit<ImageRewardOptions, "tokenizer"> {
  /** Path of med_config.json. */
  readonly medConfig: string;
  /** bert-base-uncased with [DEC] and [ENC] added. */
  readonly tokenizer: WordPieceTokenizer;
  /** Where the model is not ImageReward v1.0: another ViT, normalisation, head. */
  readonly config?: Partial<ImageRewardConfig>;
}

/** ImageReward.pt, or a reward of its format. Close `model` when done. Throws DataError, ConfigError, WeightsError, the signal's reason. */
export async function loadImageReward(path: string, options: LoadImageRewardOptions): Promise<{ readonly reward: Reward; readonly model: ImageRewardModel }> {
  const { medConfig, tokenizer, config = {} } = options;
  const parsed = imageRewardConfig({ vision: blipLargeVision, text: parseMedConfig(readJson(medConfig), medConfig), ...config });
  if (tokenizer.vocabSize > parsed.text.vocabulary)
    throw new ConfigError("loadImageReward", "the tokenizer's vocabulary", `at most the model's ${parsed.text.vocabulary}`, tokenizer.vocabSize);
  const file = readTensors(path);
  try {
    const model = await ImageRewardModel.fromWeights(parsed, file, options);
    return { reward: imageReward(model, options), model };
  } finally {
    file.close();
  }
}

function readJson(path: string): unknown {
  try {
    return parseStrictJson(readFileSync(path), path);
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
}
