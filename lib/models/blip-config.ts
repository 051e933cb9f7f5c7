/** The parts of BLIP (Li et al. 2022, arXiv:2201.12086) that reward models are built on: a ViT, and a BERT whose layers also attend to the picture. */

import { ConfigReader } from "./config-reader.js";

export interface BlipVisionConfig {
  /** Side of a picture, a multiple of the patch. */
  readonly imageSize: number;
  readonly patch: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Width between the two layers of the feed-forward part. */
  readonly hidden: number;
  readonly eps: number;
}

export interface BlipTextConfig {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly positions: number;
  readonly eps: number;
}

export interface BlipConfig {
  readonly vision: BlipVisionConfig;
  readonly text: BlipTextConfig;
  /** Width in which BLIP compares pictures and texts. */
  readonly projection: number;
}

/** The ViT-L/16 of BLIP-large, at the size that ImageReward uses it. */
export const blipLargeVision: BlipVisionConfig = { imageSize: 224, patch: 16, width: 1024, layers: 24, heads: 16, hidden: 4096, eps: 1e-6 };

/** med_config.json, BLIP's and ImageReward's. `encoder_width` is not read: the code sets it to the ViT's. Throws ConfigError listing what is not supported. */
export function parseMedConfig(json: unknown, source: string): BlipTextConfig {
  const r = new ConfigReader(json, source);
  r.only("model_type", "bert");
  r.only("hidden_act", "gelu");
  r.only("add_cross_attention", true);
  r.strings("architectures", ["BertModel"], ["BertModel"]);
  r.ignore("attention_probs_dropout_prob", "hidden_dropout_prob", "initializer_range", "pad_token_id", "type_vocab_size", "encoder_width", "torch_dtype");
  r.ignore("fusion_layer", "transformers_version", "reduction_factor", "scale_factor"); // the last two of other uses of the same file
  const [width, heads] = [r.count("hidden_size", 768), r.count("num_attention_heads", 12)];
  if (width % heads !== 0) r.problem("num_attention_heads", `a divisor of hidden_size (${width})`, heads);
  const config = {
    width,
    heads,
    layers: r.count("num_hidden_layers", 12),
    hidden: r.count("intermediate_size", 3072),
    vocabulary: r.count("vocab_size", 30524),
    positions: r.count("max_position_embeddings", 512),
    eps: r.number("layer_norm_eps", 1e-12),
  };
  r.finish();
  return config;
}
