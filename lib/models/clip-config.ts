/** config.json of transformers' CLIP models, brought into the shape that the towers read. Every field of the models is used, without effect here, or refused
 *  by name; so is every field that transformers 4 wrote into any model's config. */

import { ConfigReader } from "./config-reader.js";

export type ClipActivation = "quick_gelu" | "gelu" | "gelu_tanh";

/** What the transformer of either tower is made of. */
export interface ClipTowerConfig {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Width between the two layers of the feed-forward part. */
  readonly hidden: number;
  readonly activation: ClipActivation;
  readonly eps: number;
}

export interface ClipTextConfig extends ClipTowerConfig {
  readonly vocabulary: number;
  /** The most tokens, 77 of every released model. */
  readonly positions: number;
  /** Of the token at which a text is pooled; 2 stands for the largest id of the text, as configs from before 2023 have it. */
  readonly eosTokenId: number;
  /** Whether Stable Diffusion's pipelines hide padding from this encoder; of no released model they do. */
  readonly usesAttentionMask: boolean;
  /** Width of text_embeds, of a model with projection. */
  readonly projection: number | undefined;
  readonly json: Readonly<Record<string, unknown>>;
}

export interface ClipVisionConfig extends ClipTowerConfig {
  readonly channels: number;
  /** Side of a picture, a multiple of the patch. */
  readonly imageSize: number;
  readonly patch: number;
}

export interface ClipConfig {
  readonly text: ClipTextConfig;
  readonly vision: ClipVisionConfig;
  /** Width of the embeddings of both towers. */
  readonly projection: number;
  /** First value of the logarithm of the factor that makes logits of cosines. */
  readonly logitScale: number;
  readonly json: Readonly<Record<string, unknown>>;
}

/** CLIPTextModel or CLIPTextModelWithProjection, as "architectures" says; `projection` says it where the config does not.
 *  Throws one ConfigError that lists every unsupported field with its value. `source` is the path that errors name. */
export function parseClipTextConfig(json: unknown, source: string, { projection }: { readonly projection?: boolean } = {}): ClipTextConfig {
  const r = new ConfigReader(json, source);
  r.only("model_type", "clip_text_model");
  const architectures = r.strings("architectures", ["CLIPTextModel", "CLIPTextModelWithProjection"], ["CLIPTextModel"]);
  const width = r.count("projection_dim", 512);
  const projects = projection ?? architectures.includes("CLIPTextModelWithProjection");
  const config = { ...parseText(r), projection: projects ? width : undefined, json: json as Record<string, unknown> };
  r.finish();
  return config;
}

/** CLIPModel: both towers. Throws ConfigError. */
export function parseClipConfig(json: unknown, source: string): ClipConfig {
  const r = new ConfigReader(json, source);
  r.only("model_type", "clip");
  r.strings("architectures", ["CLIPModel"], ["CLIPModel"]);
  ignoreGeneral(r);
  const text = new ConfigReader(tower(r, "text_config"), `${source} (text_config)`);
  const vision = new ConfigReader(tower(r, "vision_config"), `${source} (vision_config)`);
  for (const [one, type] of [
    [text, "clip_text_model"],
    [vision, "clip_vision_model"],
  ] as const) {
    one.only("model_type", type);
    one.ignore("projection_dim", "architectures"); // that of the whole model counts
  }
  const projection = r.count("projection_dim", 512);
  const config: ClipConfig = {
    text: { ...parseText(text), projection, json: {} },
    vision: parseVision(vision),
    projection,
    logitScale: r.number("logit_scale_init_value", 2.6592),
    json: json as Record<string, unknown>,
  };
  for (const reader of [text, vision, r]) reader.finish();
  return config;
}

/** Where `<name>_dict` is given, as transformers before 4.27 wrote it, it is what counts. */
function tower(r: ConfigReader, name: string): unknown {
  const [older, newer] = [r.raw(`${name}_dict`), r.raw(name)];
  return older ?? newer ?? {};
}

function parseText(r: ConfigReader): Omit<ClipTextConfig, "projection" | "json"> {
  return {
    ...parseTower(r, { width: 512, layers: 12, heads: 8, hidden: 2048 }),
    vocabulary: r.count("vocab_size", 49408),
    positions: r.count("max_position_embeddings", 77),
    eosTokenId: r.number("eos_token_id", 49407),
    usesAttentionMask: r.boolean("use_attention_mask", false),
  };
}

function parseVision(r: ConfigReader): ClipVisionConfig {
  const [imageSize, patch] = [r.count("image_size", 224), r.count("patch_size", 32)];
  if (imageSize % patch !== 0) r.problem("patch_size", `a divisor of image_size (${imageSize})`, patch);
  return { ...parseTower(r, { width: 768, layers: 12, heads: 12, hidden: 3072 }), channels: r.count("num_channels", 3), imageSize, patch };
}

const activations: Readonly<Record<string, ClipActivation>> = {
  quick_gelu: "quick_gelu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
};

type Sizes = Pick<ClipTowerConfig, "width" | "layers" | "heads" | "hidden">;

function parseTower(r: ConfigReader, fallback: Sizes): ClipTowerConfig {
  r.only("attention_dropout", 0);
  ignoreGeneral(r);
  const [width, heads] = [r.count("hidden_size", fallback.width), r.count("num_attention_heads", fallback.heads)];
  if (width % heads !== 0) r.problem("num_attention_heads", `a divisor of hidden_size (${width})`, heads);
  const named = r.raw("hidden_act") ?? "quick_gelu";
  const activation = typeof named === "string" && Object.hasOwn(activations, named) ? activations[named] : undefined;
  if (!activation) r.problem("hidden_act", Object.keys(activations).join(" or "), named);
  const eps = r.number("layer_norm_eps", 1e-5);
  if (!(eps > 0)) r.problem("layer_norm_eps", "a number > 0", eps);
  const layers = r.layers("num_hidden_layers", fallback.layers);
  return { width, layers, heads, hidden: r.count("intermediate_size", fallback.hidden), activation: activation ?? "gelu", eps };
}

/** What transformers writes into the config of any model: notes of the saver, training from scratch, text generation, labels. */
const general = [
  ["dtype", "torch_dtype", "transformers_version", "return_dict", "output_attentions", "output_hidden_states", "torchscript", "use_bfloat16"],
  ["initializer_factor", "initializer_range", "tie_word_embeddings", "tf_legacy_loss", "tokenizer_class", "prefix", "use_cache"],
  ["id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params", "chunk_size_feed_forward"],
  ["bad_words_ids", "begin_suppress_tokens", "suppress_tokens", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "sep_token_id"],
  ["diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty", "max_length"],
  ["min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values"],
  ["bos_token_id", "pad_token_id", "eos_token_id"], // the last is read of texts
  ["repetition_penalty", "return_dict_in_generate", "temperature", "top_k", "top_p", "typical_p", "cross_attention_hidden_size"],
].flat();

function ignoreGeneral(r: ConfigReader): void {
  r.ignore(...general);
  r.only("dropout", 0);
  for (const flag of ["add_cross_attention", "is_decoder", "is_encoder_decoder", "tie_encoder_decoder"]) r.only(flag, false);
  const pruned = r.raw("pruned_heads");
  if (pruned !== undefined && Object.keys(pruned as object).length > 0) r.problem("pruned_heads", "empty", pruned);
}
