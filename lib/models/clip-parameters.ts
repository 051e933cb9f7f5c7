/** The parameters of CLIP models, declared by building them once, and the names that checkpoints give them. */

import { ConfigError } from "../errors.js";
import { input } from "../graph/ops/leaf.js";
import { buildGraph, type Tensor, typed } from "../graph/tensor.js";
import { LoraAdapter, type LoraOptions } from "../nn/lora.js";
import { type ModelDType, ParameterStore, Params, storage } from "../nn/params.js";
import { clipImageFeatures, clipLogits, clipTextFeatures } from "./clip.js";
import type { ClipConfig, ClipTextConfig } from "./clip-config.js";
import { type ClipTextInputs, clipText } from "./clip-text.js";

export interface ClipStoreOptions {
  readonly arena?: string;
  readonly trainable?: boolean;
}

/** All parameters of a text encoder that computes in `dtype`, sealed. */
export function declareClipText(config: ClipTextConfig, dtype: ModelDType, { arena = "clip text", trainable = false }: ClipStoreOptions = {}): ParameterStore {
  return declared(new ParameterStore({ arena, ...storage(dtype, trainable) }), p => void clipText(config, p, oneToken()));
}

/** What the diffusers training examples adapt in a text encoder. */
export const textAttentionProjections = ["q_proj", "k_proj", "v_proj", "out_proj"] as const;

/** An adapter for the modules of a text encoder that its targets name (the projections of its attention by default), in a sealed store of its own. Throws
 *  ConfigError where they name none. */
export function adaptClipText(config: ClipTextConfig, base: ParameterStore, options: LoraOptions, { arena = "lora" }: { arena?: string } = {}): LoraAdapter {
  const store = new ParameterStore({ arena, ...storage(base.computes, true) });
  const adapter = new LoraAdapter(store, { targets: textAttentionProjections, ...options });
  buildGraph(() => void clipText(config, new Params(base, { adapter }), oneToken()));
  if (store.entries.size === 0) throw new ConfigError("lora", "targets", "names of modules of this model", adapter.targets);
  store.seal();
  return adapter;
}

/** All parameters of both towers, sealed. */
export function declareClip(config: ClipConfig, dtype: ModelDType, { arena = "clip", trainable = false }: ClipStoreOptions = {}): ParameterStore {
  const { imageSize, channels } = config.vision;
  return declared(new ParameterStore({ arena, ...storage(dtype, trainable) }), p => {
    const pixels = input("pixels", typed(dtype === "f64" ? "f64" : "f32", 1, imageSize, imageSize, channels));
    clipLogits(config, p, clipTextFeatures(config, p, oneToken()).textEmbeds, clipImageFeatures(config, p, pixels).imageEmbeds);
  });
}

function declared(store: ParameterStore, build: (p: Params) => void): ParameterStore {
  buildGraph(() => build(new Params(store)));
  store.seal();
  return store;
}

function oneToken(): ClipTextInputs {
  const whole = (name: string, ...shape: number[]): Tensor => input(name, typed("i32", ...shape));
  return { inputIds: whole("ids", 1, 1), pooledRows: whole("rows", 1) };
}

/** The parameter that a stored name stands for; undefined for position ids, which older files hold and which are 0, 1, 2, ... A text encoder saved by
 *  transformers 5 lacks the prefix `text_model.`. */
export function clipParameterOf(stored: string): string | undefined {
  if (/(^|\.)embeddings\.position_ids$/.test(stored)) return undefined;
  return /^(embeddings|encoder|final_layer_norm)\./.test(stored) ? `text_model.${stored}` : stored;
}
