/** Small encoders with inputs and cotangents: an autoencoder, a text encoder, both towers of CLIP. */

import type { Graph } from "../../lib/graph/tensor.js";
import { parseClipConfig, parseClipTextConfig } from "../../lib/models/clip-config.js";
import { clipGraph, textFeed, textGradientGraph } from "../../lib/models/clip-graphs.js";
import { declareClip, declareClipText } from "../../lib/models/clip-parameters.js";
import type { RecomputeOptions } from "../../lib/models/regions.js";
import { parseVaeConfig } from "../../lib/models/vae-config.js";
import { vaeGradientGraph } from "../../lib/models/vae-graphs.js";
import { declareVae } from "../../lib/models/vae-parameters.js";
import type { ModelDType, ParameterStore, Params } from "../../lib/nn/params.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { numbers } from "./gradients.js";
import { pseudoRandom } from "./unet.js";

export interface Encoder {
  declare(dtype: ModelDType): ParameterStore;
  build(params: Params, options?: RecomputeOptions): Graph;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  readonly outputs: readonly string[];
}

const tower = { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4 };
const textConfig = { ...tower, vocab_size: 50, max_position_embeddings: 9 };
const inputIds = hostTensor(
  "i32",
  [2, 9],
  Int32Array.from({ length: 18 }, (_, i) => (i * 7) % 50),
);
const attentionMask = hostTensor(
  "u8",
  [2, 9],
  Uint8Array.from({ length: 18 }, (_, i) => Number(i % 9 < 7)),
);

function autoencoder(): Encoder {
  const blocks = { down_block_types: Array(2).fill("DownEncoderBlock2D"), up_block_types: Array(2).fill("UpDecoderBlock2D") };
  const config = parseVaeConfig({ block_out_channels: [8, 16], norm_num_groups: 4, ...blocks }, "vae");
  const [pixels, latents] = [pseudoRandom([2, 3, 8, 8], 1), pseudoRandom([2, 4, 4, 4], 2)];
  const cotangents = { "d mean": pseudoRandom([2, 4, 4, 4], 3), "d logvar": pseudoRandom([2, 4, 4, 4], 4), "d decoded": pseudoRandom([2, 3, 8, 8], 5) };
  return {
    declare: dtype => declareVae(config, dtype),
    build: (params, options) => vaeGradientGraph({ config, params }, { pixels: pixels.shape, latents: latents.shape }, options),
    inputs: { pixels, latents, ...cotangents },
    outputs: ["mean", "logvar", "decoded", "d input pixels", "d input latents"],
  };
}

function textEncoder(): Encoder {
  const config = parseClipTextConfig({ ...textConfig, projection_dim: 12 }, "text", { projection: true });
  return {
    declare: dtype => declareClipText(config, dtype),
    build: (params, options) => textGradientGraph(config, params, { inputIds, attentionMask }, { hiddenStates: [-2], cotangents: ["textEmbeds"], ...options }),
    inputs: { ...textFeed(config, { inputIds, attentionMask }), "d textEmbeds": pseudoRandom([2, 12]) },
    outputs: ["lastHiddenState", "hiddenStates.0", "textEmbeds"],
  };
}

function bothTowers(): Encoder {
  const config = parseClipConfig({ text_config: textConfig, vision_config: { ...tower, image_size: 16, patch_size: 4 }, projection_dim: 12 }, "clip");
  const pixels = pseudoRandom([3, 3, 16, 16]);
  return {
    declare: dtype => declareClip(config, dtype),
    build: (params, options) => clipGraph(config, params, { inputIds, pixels }, { cotangents: ["logitsPerImage"], ...options }),
    inputs: { ...textFeed(config.text, { inputIds }), pixels, "d logitsPerImage": pseudoRandom([3, 2]) },
    outputs: ["logitsPerImage", "textEmbeds", "imageEmbeds", "d input pixels"],
  };
}

export const encoders: readonly (readonly [string, () => Encoder])[] = [
  ["an autoencoder", autoencoder],
  ["a text encoder", textEncoder],
  ["both towers of CLIP", bothTowers],
];

/** The gradients of all parameters, one after another. */
export function parameterGradients(result: Readonly<Record<string, HostTensor>>): number[] {
  return Object.entries(result).flatMap(([name, t]) => (name.startsWith("d parameter") ? [...numbers(t)] : []));
}
