/** OpenCLIP's text encoder (SD 2.x, the second of SDXL): queries, keys and values are one matrix in the file, the projection is stored transposed.
 *  mlfoundations/open_clip `transformer.py`. */

import type { TensorFile } from "../../data/safetensors.js";
import { clipConfig, positionIds } from "./clip.js";
import { moduleRules, sameRule, type TensorRule } from "./rules.js";
import { Shapes } from "./shapes.js";

/** SD 2.x reads the layer before the last; its folders leave the last of the 24 out, as diffusers' conversion does. */
export const sd2Layers = 23;

export function openClipRules(layers: number, { projection }: { projection: boolean }): TensorRule[] {
  const perLayer = (i: number): TensorRule[] => {
    const [folder, file] = [`text_model.encoder.layers.${i}`, `transformer.resblocks.${i}`];
    const fused = (leaf: string): TensorRule => ({
      folder: ["q", "k", "v"].map(part => `${folder}.self_attn.${part}_proj.${leaf}`),
      file: `${file}.attn.in_proj_${leaf}`,
      how: "stacked",
      optional: false,
    });
    const pairs = [
      ["layer_norm1", "ln_1"],
      ["layer_norm2", "ln_2"],
      ["mlp.fc1", "mlp.c_fc"],
      ["mlp.fc2", "mlp.c_proj"],
      ["self_attn.out_proj", "attn.out_proj"],
    ];
    return [...pairs.flatMap(([a, b]) => moduleRules(`${folder}.${a}`, `${file}.${b}`)), fused("weight"), fused("bias")];
  };
  return [
    sameRule("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    sameRule("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    sameRule(positionIds, positionIds, true),
    ...moduleRules("text_model.final_layer_norm", "ln_final"),
    ...(projection ? [{ folder: ["text_projection.weight"], file: "text_projection", how: "transposed" as const, optional: false }] : []),
    ...Array.from({ length: layers }, (_, i) => perLayer(i)).flat(),
  ];
}

export function detectOpenClipConfig(source: TensorFile, prefix: string, { projection }: { projection: boolean }): Record<string, unknown> {
  const shapes = new Shapes(source, prefix);
  const [vocabulary, width] = shapes.of("token_embedding.weight");
  const layers = shapes.count("transformer.resblocks");
  return {
    ...clipConfig({ vocabulary: vocabulary!, width: width!, layers: projection ? layers : Math.min(layers, sd2Layers) }),
    architectures: [projection ? "CLIPTextModelWithProjection" : "CLIPTextModel"],
    hidden_act: "gelu",
    intermediate_size: shapes.of("transformer.resblocks.0.mlp.c_fc.weight")[0]!,
    max_position_embeddings: shapes.of("positional_embedding")[0]!,
    projection_dim: shapes.has("text_projection") ? shapes.of("text_projection")[1]! : width,
  };
}
