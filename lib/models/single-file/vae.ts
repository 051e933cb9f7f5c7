/** The autoencoder: levels of the decoder are numbered from the bottom in CompVis' files and from the top by diffusers, and the middle attention, linear in diffusers, is of
 *  1 x 1 convolutions there. CompVis/taming-transformers `model.py`. */

import type { TensorFile } from "../../data/safetensors.js";
import { moduleRules, type TensorRule } from "./rules.js";
import { Shapes } from "./shapes.js";

export const vaePrefix = "first_stage_model.";

/** What of config.json decides the names. */
export interface VaeStructure {
  readonly levels: number;
  readonly layers: number;
}

export function vaeRules({ levels, layers }: VaeStructure): TensorRule[] {
  const rules = [...moduleRules("quant_conv", "quant_conv", { optional: true }), ...moduleRules("post_quant_conv", "post_quant_conv", { optional: true })];
  for (const side of ["encoder", "decoder"]) {
    for (const [folder, file] of [
      ["conv_in", "conv_in"],
      ["conv_norm_out", "norm_out"],
      ["conv_out", "conv_out"],
    ])
      rules.push(...moduleRules(`${side}.${folder}`, `${side}.${file}`));
    for (const i of [0, 1]) rules.push(...resnetRules(`${side}.mid_block.resnets.${i}`, `${side}.mid.block_${i + 1}`));
    rules.push(...attentionRules(`${side}.mid_block.attentions.0`, `${side}.mid.attn_1`));
  }
  for (let i = 0; i < levels; i++) {
    const up = levels - 1 - i;
    for (let j = 0; j < layers; j++) rules.push(...resnetRules(`encoder.down_blocks.${i}.resnets.${j}`, `encoder.down.${i}.block.${j}`));
    for (let j = 0; j <= layers; j++) rules.push(...resnetRules(`decoder.up_blocks.${i}.resnets.${j}`, `decoder.up.${up}.block.${j}`));
    if (i === levels - 1) break;
    rules.push(...moduleRules(`encoder.down_blocks.${i}.downsamplers.0.conv`, `encoder.down.${i}.downsample.conv`));
    rules.push(...moduleRules(`decoder.up_blocks.${i}.upsamplers.0.conv`, `decoder.up.${up}.upsample.conv`));
  }
  return rules;
}

function resnetRules(folder: string, file: string): TensorRule[] {
  const same = ["norm1", "conv1", "norm2", "conv2"].flatMap(name => moduleRules(`${folder}.${name}`, `${file}.${name}`));
  return [...same, ...moduleRules(`${folder}.conv_shortcut`, `${file}.nin_shortcut`, { optional: true })];
}

function attentionRules(folder: string, file: string): TensorRule[] {
  const pairs = [
    ["to_q", "q"],
    ["to_k", "k"],
    ["to_v", "v"],
    ["to_out.0", "proj_out"],
  ] as const;
  const linear = pairs.flatMap(([a, b]) => moduleRules(`${folder}.${a}`, `${file}.${b}`));
  return [
    ...moduleRules(`${folder}.group_norm`, `${file}.norm`),
    ...linear.map(rule => (rule.file.endsWith(".weight") ? { ...rule, how: "conv1x1" as const } : rule)),
  ];
}

const oldNames: Readonly<Record<string, string>> = { query: "to_q", key: "to_k", value: "to_v", proj_attn: "to_out.0" };

/** Names that diffusers gave the middle attention before 0.18. */
export function currentVaeName(name: string): string {
  return name.replace(/(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)/, (_, place: string, old: string) => place + oldNames[old]);
}

/** config.json for the autoencoder of a file. 32 groups and the scaling factor are as published. */
export function detectVaeConfig(source: TensorFile, { scalingFactor, sampleSize }: { scalingFactor: number; sampleSize: number }): Record<string, unknown> {
  const shapes = new Shapes(source, vaePrefix);
  const levels = shapes.count("encoder.down");
  const channels = Array.from({ length: levels }, (_, i) => shapes.of(`encoder.down.${i}.block.0.conv1.weight`)[0]!);
  return {
    _class_name: "AutoencoderKL",
    act_fn: "silu",
    block_out_channels: channels,
    down_block_types: channels.map(() => "DownEncoderBlock2D"),
    in_channels: shapes.of("encoder.conv_in.weight")[1]!,
    latent_channels: shapes.of("decoder.conv_in.weight")[1]!,
    layers_per_block: shapes.count("encoder.down.0.block"),
    norm_num_groups: 32,
    out_channels: shapes.of("decoder.conv_out.weight")[0]!,
    sample_size: sampleSize,
    scaling_factor: scalingFactor,
    up_block_types: channels.map(() => "UpDecoderBlock2D"),
    use_post_quant_conv: shapes.has("post_quant_conv.weight"),
    use_quant_conv: shapes.has("quant_conv.weight"),
  };
}
