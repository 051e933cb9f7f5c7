/** The UNet of Stable Diffusion: in CompVis' files the blocks of the way down and up are numbered through, `input_blocks.0` being the first convolution and each
 *  downsampler a block of its own; an upsampler stands in the last block of its level. CompVis/latent-diffusion `openaimodel.py`, Stability-AI/generative-models. */

import type { TensorFile } from "../../data/safetensors.js";
import { ConfigError, DataError } from "../../errors.js";
import type { BlockConfig, UNetConfig } from "../unet-config.js";
import { moduleRules, type TensorRule } from "./rules.js";
import { Shapes } from "./shapes.js";

export const unetPrefix = "model.diffusion_model.";

export function unetRules(config: UNetConfig): TensorRule[] {
  const rules = [
    ...moduleRules("time_embedding.linear_1", "time_embed.0"),
    ...moduleRules("time_embedding.linear_2", "time_embed.2"),
    ...moduleRules("conv_in", "input_blocks.0.0"),
    ...moduleRules("conv_norm_out", "out.0"),
    ...moduleRules("conv_out", "out.2"),
    ...resnetRules("mid_block.resnets.0", "middle_block.0"),
    ...attentionRules("mid_block.attentions.0", "middle_block.1", config.mid.attention.depths[0]!),
    ...resnetRules("mid_block.resnets.1", "middle_block.2"),
  ];
  if (config.addedText) rules.push(...moduleRules("add_embedding.linear_1", "label_emb.0.0"), ...moduleRules("add_embedding.linear_2", "label_emb.0.2"));
  let at = 1;
  for (const [i, block] of config.down.entries()) {
    rules.push(...layerRules(`down_blocks.${i}`, block, j => `input_blocks.${at + j}`));
    at += block.layers;
    if (i < config.down.length - 1) rules.push(...moduleRules(`down_blocks.${i}.downsamplers.0.conv`, `input_blocks.${at++}.0.op`));
  }
  at = 0;
  for (const [i, block] of config.up.entries()) {
    rules.push(...layerRules(`up_blocks.${i}`, block, j => `output_blocks.${at + j}`));
    at += block.layers;
    const place = `output_blocks.${at - 1}.${block.attention ? 2 : 1}.conv`;
    if (i < config.up.length - 1) rules.push(...moduleRules(`up_blocks.${i}.upsamplers.0.conv`, place));
  }
  return rules;
}

function layerRules(folder: string, { layers, attention }: BlockConfig, place: (layer: number) => string): TensorRule[] {
  return Array.from({ length: layers }, (_, j) => [
    ...resnetRules(`${folder}.resnets.${j}`, `${place(j)}.0`),
    ...(attention ? attentionRules(`${folder}.attentions.${j}`, `${place(j)}.1`, attention.depths[j]!) : []),
  ]).flat();
}

function resnetRules(folder: string, file: string): TensorRule[] {
  return [
    ...moduleRules(`${folder}.norm1`, `${file}.in_layers.0`),
    ...moduleRules(`${folder}.conv1`, `${file}.in_layers.2`),
    ...moduleRules(`${folder}.time_emb_proj`, `${file}.emb_layers.1`),
    ...moduleRules(`${folder}.norm2`, `${file}.out_layers.0`),
    ...moduleRules(`${folder}.conv2`, `${file}.out_layers.3`),
    ...moduleRules(`${folder}.conv_shortcut`, `${file}.skip_connection`, { optional: true }),
  ];
}

/** Inside a transformer both sides have the same names. */
function attentionRules(folder: string, file: string, depth: number): TensorRule[] {
  const same = (name: string, bias = true): TensorRule[] => moduleRules(`${folder}.${name}`, `${file}.${name}`, { bias });
  const layer = (i: number): TensorRule[] => [
    ...["attn1", "attn2"].flatMap(attention => [
      ...["to_q", "to_k", "to_v"].flatMap(name => same(`transformer_blocks.${i}.${attention}.${name}`, false)),
      ...same(`transformer_blocks.${i}.${attention}.to_out.0`),
    ]),
    ...["ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"].flatMap(name => same(`transformer_blocks.${i}.${name}`)),
  ];
  return [...["norm", "proj_in", "proj_out"].flatMap(name => same(name)), ...Array.from({ length: depth }, (_, i) => layer(i)).flat()];
}

interface Level {
  readonly channels: number;
  readonly layers: number;
  /** Transformer layers of each attention; empty where there are none. */
  readonly depths: readonly number[];
}

/** config.json for the UNet of a file, from its shapes. What shapes do not say is as published: 32 groups; 8 heads where `proj_in` is a convolution (SD 1.x), heads of
 *  64 channels where it is linear (2.x, XL); sizes embedded in 256 numbers. Throws ConfigError where that cannot be, DataError on blocks of another make. */
export function detectUNetConfig(source: TensorFile, prefix: string = unetPrefix): Record<string, unknown> {
  const shapes = new Shapes(source, prefix);
  const levels = detectLevels(shapes);
  const channels = levels.map(level => level.channels);
  const mid = shapes.count("middle_block.1.transformer_blocks");
  const projection = shapes.of("middle_block.1.proj_in.weight");
  const linear = projection.length === 2;
  for (const c of channels)
    if (c % (linear ? 64 : 32) !== 0)
      throw new ConfigError("toDiffusers", "configs.unet", `given, because levels of ${channels} channels leave heads and groups open`, undefined);
  const down = levels.map(({ depths }) => (depths.length > 0 ? "CrossAttnDownBlock2D" : "DownBlock2D"));
  const added = shapes.has("label_emb.0.0.weight") ? shapes.of("label_emb.0.0.weight")[1]! : undefined;
  const { sampleSize } = publishedSizes(linear, added !== undefined);
  return {
    _class_name: "UNet2DConditionModel",
    act_fn: "silu",
    addition_embed_type: added === undefined ? null : "text_time",
    addition_time_embed_dim: added === undefined ? null : 256,
    attention_head_dim: linear ? channels.map(c => c / 64) : 8,
    block_out_channels: channels,
    cross_attention_dim: shapes.of("middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]!,
    down_block_types: down,
    in_channels: shapes.of("input_blocks.0.0.weight")[1]!,
    layers_per_block: uniform(levels.map(level => level.layers)),
    norm_num_groups: 32,
    out_channels: shapes.of("out.2.weight")[0]!,
    projection_class_embeddings_input_dim: added ?? null,
    sample_size: sampleSize,
    transformer_layers_per_block: detectDepths(levels, mid, source.source),
    up_block_types: down.map(type => type.replace("Down", "Up")).toReversed(),
    use_linear_projection: linear,
  };
}

/** Latents per side that the published models were made for: a hint for pipelines, without effect on the model. */
function publishedSizes(linear: boolean, added: boolean): { sampleSize: number } {
  return { sampleSize: added ? 128 : linear ? 96 : 64 };
}

function detectLevels(shapes: Shapes): Level[] {
  const levels: Level[] = [];
  let open: { channels: number; layers: number; depths: number[] } | undefined;
  for (let at = 1; shapes.count(`input_blocks.${at}`) > 0; at++) {
    if (shapes.has(`input_blocks.${at}.0.op.weight`)) {
      if (open) levels.push(open);
      open = undefined;
      continue;
    }
    const [channels] = shapes.of(`input_blocks.${at}.0.out_layers.3.weight`);
    open ??= { channels: channels!, layers: 0, depths: [] };
    open.layers++;
    const depth = shapes.count(`input_blocks.${at}.1.transformer_blocks`);
    if (depth > 0) open.depths.push(depth);
  }
  return open ? [...levels, open] : levels;
}

function detectDepths(levels: readonly Level[], mid: number, source: string): number | number[] {
  for (const { depths, layers } of levels)
    if (new Set(depths).size > 1 || (depths.length > 0 && depths.length !== layers))
      throw new DataError(source, `expected attentions of one depth in each level, received depths ${depths} in ${layers} layers`, { field: unetPrefix });
  const present = new Set([...levels.flatMap(level => level.depths), mid]);
  if (present.size === 1) return mid;
  return levels.map(({ depths }, i) => depths[0] ?? (i === levels.length - 1 ? mid : 1));
}

function uniform(values: readonly number[]): number | readonly number[] {
  return new Set(values).size === 1 ? values[0]! : values;
}
