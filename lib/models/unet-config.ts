/** config.json of diffusers' UNet2DConditionModel, brought into the shape that the forward pass reads. Every field of diffusers 0.40 is used,
 *  without effect here, or refused by name: a model never runs with a field that was overlooked. */

import { ConfigReader, isLayers, layersText } from "./config-reader.js";

export interface AttentionConfig {
  readonly heads: number;
  /** Transformer layers of each attention of the block, in order. */
  readonly depths: readonly number[];
  /** The first attention of each layer looks at the text too, not at the map itself. */
  readonly crossOnly: boolean;
}

export interface BlockConfig {
  readonly channels: number;
  /** ResNet layers, each followed by an attention if there is one. */
  readonly layers: number;
  readonly attention: AttentionConfig | undefined;
}

export interface UNetConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  /** Size of the latents that the model was made for; any other works. */
  readonly sampleSize: number | undefined;
  readonly down: readonly BlockConfig[];
  readonly mid: BlockConfig & { readonly attention: AttentionConfig };
  readonly up: readonly BlockConfig[];
  /** Width of the text features. */
  readonly crossAttentionDim: number;
  readonly groups: number;
  readonly eps: number;
  readonly timeDim: number;
  readonly flipSinToCos: boolean;
  readonly frequencyShift: number;
  /** SDXL: pooled text and sizes added to the time embedding. `dim` is the width of one embedded size, `inputs` the width of all together. */
  readonly addedText: { readonly dim: number; readonly inputs: number } | undefined;
  readonly linearProjection: boolean;
  readonly centerInput: boolean;
  readonly convInKernel: number;
  readonly convOutKernel: number;
  /** [top, bottom, left, right] of the strided convolutions. */
  readonly downsamplePadding: readonly [number, number, number, number];
  /** The fields as they were read, for saving. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Throws one ConfigError that lists every unsupported field with its value. `source` is the path that errors name. */
export function parseUNetConfig(json: unknown, source: string): UNetConfig {
  const r = new ConfigReader(json, source);
  refuseVariants(r);
  const channels = r.counts("block_out_channels", [320, 640, 1280, 1280]);
  const groups = r.count("norm_num_groups", 32);
  for (const c of channels) if (c % groups !== 0) r.problem("norm_num_groups", `a divisor of every block_out_channels (${channels})`, groups);
  const config: UNetConfig = {
    inChannels: r.count("in_channels", 4),
    outChannels: r.count("out_channels", 4),
    sampleSize: r.raw("sample_size") === undefined ? undefined : r.count("sample_size"),
    ...parseBlocks(r, channels),
    crossAttentionDim: parseTextWidth(r, channels.length),
    groups,
    eps: r.number("norm_eps", 1e-5),
    timeDim: r.count("time_embedding_dim", channels[0]! * 4),
    flipSinToCos: r.boolean("flip_sin_to_cos", true),
    frequencyShift: r.number("freq_shift", 0),
    addedText: parseAddedText(r),
    linearProjection: r.boolean("use_linear_projection", false),
    centerInput: r.boolean("center_input_sample", false),
    convInKernel: oddKernel(r, "conv_in_kernel"),
    convOutKernel: oddKernel(r, "conv_out_kernel"),
    downsamplePadding: parseDownsamplePadding(r),
    json: json as Record<string, unknown>,
  };
  r.finish();
  return config;
}

/** Fields with one supported meaning, and fields without effect. */
function refuseVariants(r: ConfigReader): void {
  r.only("_class_name", "UNet2DConditionModel");
  r.only("mid_block_type", "UNetMidBlock2DCrossAttn");
  r.only("act_fn", "silu", "swish");
  r.only("time_embedding_type", "positional");
  r.only("resnet_time_scale_shift", "default");
  r.only("attention_type", "default");
  r.only("dropout", 0);
  r.only("mid_block_scale_factor", 1);
  r.only("resnet_out_scale_factor", 1);
  for (const flag of ["dual_cross_attention", "resnet_skip_time_act", "class_embeddings_concat"]) r.only(flag, false);
  for (const feature of ["class_embed_type", "num_class_embeds", "num_attention_heads", "cross_attention_norm"]) r.only(feature, null);
  for (const feature of ["encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim", "time_embedding_act_fn", "timestep_post_act"]) r.only(feature, null);
  r.ignore("upcast_attention"); // attention logits are f32 or f64 here
  r.ignore("addition_embed_type_num_heads", "mid_block_only_cross_attention"); // read only by variants refused above
}

const downTypes = ["DownBlock2D", "CrossAttnDownBlock2D"] as const;
const upTypes = ["UpBlock2D", "CrossAttnUpBlock2D"] as const;

function parseBlocks(r: ConfigReader, channels: readonly number[]): Pick<UNetConfig, "down" | "mid" | "up"> {
  const n = channels.length;
  const downKinds = r.strings("down_block_types", downTypes, [downTypes[1], downTypes[1], downTypes[1], downTypes[0]]);
  const upKinds = r.strings("up_block_types", upTypes, [upTypes[0], upTypes[1], upTypes[1], upTypes[1]]);
  if (downKinds.length !== n) r.problem("down_block_types", `as many as block_out_channels (${n})`, downKinds);
  if (upKinds.length !== n) r.problem("up_block_types", `as many as block_out_channels (${n})`, upKinds);
  const layers = r.layersPerPlace("layers_per_block", n, 2);
  // The field is named after the width of a head, but diffusers reads it as the number of heads, and so was every checkpoint trained.
  const heads = r.countPerPlace("attention_head_dim", n, 8);
  const crossOnly = r.perPlace("only_cross_attention", n, false, (v): v is boolean => typeof v === "boolean", "true or false");
  const depths = parseDepths(r, layers);
  const block = (i: number, count: number, attends: boolean, depth: readonly number[]): BlockConfig => {
    if (attends && channels[i]! % heads[i]! !== 0) r.problem("attention_head_dim", `a divisor of ${channels[i]} channels`, heads[i]);
    const attention = { heads: heads[i]!, depths: depth, crossOnly: crossOnly[i]! };
    return { channels: channels[i]!, layers: count, attention: attends ? attention : undefined };
  };
  const last = n - 1;
  return {
    down: channels.map((_, i) => block(i, layers[i]!, downKinds[i] === "CrossAttnDownBlock2D", depths.down[i]!)),
    mid: { channels: channels[last]!, layers: 1, attention: { heads: heads[last]!, depths: [depths.mid], crossOnly: false } },
    up: channels.map((_, i) => block(last - i, layers[last - i]! + 1, upKinds[i] === "CrossAttnUpBlock2D", depths.up[i]!)),
  };
}

type Depth = number | readonly number[];
const isDepth = (v: unknown): v is Depth => (Array.isArray(v) ? v.length > 0 && v.every(isLayers) : isLayers(v));

/** Transformer layers of every attention, down, mid and up. Lists within the list (one depth per attention) must be given for both ways. */
function parseDepths(r: ConfigReader, layers: readonly number[]): { down: readonly (readonly number[])[]; mid: number; up: readonly (readonly number[])[] } {
  const field = "transformer_layers_per_block";
  const reverseField = `reverse_${field}`;
  const what = `${layersText} or an array of them`;
  const down = r.perPlace<Depth>(field, layers.length, 1, isDepth, what);
  const reverseGiven = r.raw(reverseField) !== undefined;
  const nested = down.some(d => typeof d !== "number");
  if (nested && !reverseGiven) r.problem(reverseField, `given, because ${field} is nested`, null);
  const up = reverseGiven || nested ? r.perPlace<Depth>(reverseField, layers.length, 1, isDepth, what) : down.toReversed();
  const mid = down.at(-1)!;
  const spread = (name: string, depth: Depth, count: number): readonly number[] => {
    if (typeof depth === "number") return Array.from({ length: count }, () => depth);
    if (depth.length !== count) r.problem(name, `nested arrays of one entry per attention (${count})`, depth);
    return depth;
  };
  if (typeof mid !== "number" && mid.length !== 1) r.problem(field, "one depth in its last entry, which is the mid block's too", mid);
  return {
    down: down.map((d, i) => spread(field, d, layers[i]!)),
    mid: typeof mid === "number" ? mid : mid[0]!,
    up: up.map((d, i) => spread(reverseGiven ? reverseField : field, d, layers.at(-1 - i)! + 1)),
  };
}

function parseTextWidth(r: ConfigReader, blocks: number): number {
  const widths = r.countPerPlace("cross_attention_dim", blocks, 1280);
  if (widths.some(w => w !== widths[0])) r.problem("cross_attention_dim", "one width: all blocks see the same text features", widths);
  return widths[0]!;
}

function parseAddedText(r: ConfigReader): UNetConfig["addedText"] {
  r.only("addition_embed_type", "text_time");
  if (r.raw("addition_embed_type") !== "text_time") {
    r.ignore("addition_time_embed_dim", "projection_class_embeddings_input_dim");
    return undefined;
  }
  const dim = r.count("addition_time_embed_dim");
  const inputs = r.count("projection_class_embeddings_input_dim");
  if (inputs <= dim) r.problem("projection_class_embeddings_input_dim", `more than addition_time_embed_dim (${dim})`, inputs);
  return { dim, inputs };
}

function oddKernel(r: ConfigReader, field: string): number {
  const kernel = r.count(field, 3);
  if (kernel % 2 === 0) r.problem(field, "odd", kernel);
  return kernel;
}

/** 0 means one row of zeros below and one column at the right, as diffusers pads before its strided convolution. */
function parseDownsamplePadding(r: ConfigReader): UNetConfig["downsamplePadding"] {
  r.only("downsample_padding", 1, 0);
  return r.raw("downsample_padding") === 0 ? [0, 1, 0, 1] : [1, 1, 1, 1];
}
