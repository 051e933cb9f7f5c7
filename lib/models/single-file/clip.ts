/** OpenAI's CLIP text encoder (SD 1.x, the first of SDXL): transformers' names on both sides. */

import type { TensorFile } from "../../data/safetensors.js";
import { moduleRules, sameRule, type TensorRule } from "./rules.js";
import { Shapes } from "./shapes.js";

/** Old hub files have the positions as a buffer. */
export const positionIds = "text_model.embeddings.position_ids";

export function clipRules(layers: number): TensorRule[] {
  const modules = Array.from({ length: layers }, (_, i) =>
    ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"].map(
      name => `text_model.encoder.layers.${i}.${name}`,
    ),
  ).flat();
  return [
    sameRule(positionIds, positionIds, true),
    ...["position_embedding", "token_embedding"].map(name => `text_model.embeddings.${name}.weight`).map(name => sameRule(name, name)),
    ...[...modules, "text_model.final_layer_norm"].flatMap(name => moduleRules(name, name)),
  ];
}

/** transformers 5 writes a bare CLIPTextModel without `text_model.`, and some old files have it so too. */
export function classicClipName(name: string): string {
  return /^(embeddings|encoder|final_layer_norm)\./.test(name) ? `text_model.${name}` : name;
}

/** config.json for the text encoder behind `prefix` (up to "text_model."), which has heads of 64 channels. */
export function detectClipConfig(source: TensorFile, prefix: string): Record<string, unknown> {
  const shapes = new Shapes(source, prefix);
  const [vocabulary, width] = shapes.of("embeddings.token_embedding.weight");
  return {
    ...clipConfig({ vocabulary: vocabulary!, width: width!, layers: shapes.count("encoder.layers") }),
    architectures: ["CLIPTextModel"],
    hidden_act: "quick_gelu",
    intermediate_size: shapes.of("encoder.layers.0.mlp.fc1.weight")[0]!,
    max_position_embeddings: shapes.of("embeddings.position_embedding.weight")[0]!,
    projection_dim: width,
  };
}

/** The fields that both makes share. `eos_token_id: 2` is what the published configs have: the pooled position is then that of the largest id. */
export function clipConfig({ vocabulary, width, layers }: { vocabulary: number; width: number; layers: number }): Record<string, unknown> {
  return {
    bos_token_id: 0,
    eos_token_id: 2,
    hidden_size: width,
    layer_norm_eps: 1e-5,
    model_type: "clip_text_model",
    num_attention_heads: width / 64,
    num_hidden_layers: layers,
    pad_token_id: 1,
    vocab_size: vocabulary,
  };
}
