/** The transformer that both towers of CLIP are: layers of self-attention and a feed-forward part, each on a normalised copy and added.
 *  Radford et al. 2021, arXiv:2103.00020. Parameter names are transformers'. */

import { attention } from "../graph/ops/attention.js";
import { gelu, geluTanh, quickGelu } from "../graph/ops/elementwise.js";
import type { Tensor } from "../graph/tensor.js";
import { layerNorm, linear } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import type { ClipActivation, ClipTowerConfig } from "./clip-config.js";
import { type RecomputeOptions, regionOf } from "./regions.js";

export interface ClipEncoderOptions extends RecomputeOptions {
  /** Token i sees tokens up to i. */
  readonly causal: boolean;
  /** [B, 1, 1, N], added to the logits. */
  readonly mask?: Tensor | undefined;
}

const activate: { readonly [K in ClipActivation]: (x: Tensor) => Tensor } = { quick_gelu: quickGelu, gelu, gelu_tanh: geluTanh };

/** x [B, N, width] -> x and what every layer makes of it: layers + 1 tensors like x. */
export function clipEncoder(x: Tensor, config: ClipTowerConfig, p: Params, options: ClipEncoderOptions): readonly Tensor[] {
  const region = regionOf(options);
  return p.scope(() => {
    const states = [x];
    for (let i = 0; i < config.layers; i++) states.push(region(() => encoderLayer(states.at(-1)!, config, p.at(`layers.${i}`), options)));
    return states;
  });
}

function encoderLayer(x: Tensor, config: ClipTowerConfig, p: Params, options: ClipEncoderOptions): Tensor {
  const { eps, activation, hidden, width: features } = config;
  return p.scope(() => {
    const attended = selfAttention(layerNorm(x, p.at("layer_norm1"), { eps }), x, config, p.at("self_attn"), options);
    const mlp = p.at("mlp");
    const normed = layerNorm(attended, p.at("layer_norm2"), { eps });
    return mlp.scope(() => linear(activate[activation](linear(normed, mlp.at("fc1"), { features: hidden })), mlp.at("fc2"), { features, residual: attended }));
  });
}

/** Attention of x [B, N, width] to itself, added to `residual`. */
function selfAttention(x: Tensor, residual: Tensor, { width: features, heads }: ClipTowerConfig, p: Params, { causal, mask }: ClipEncoderOptions): Tensor {
  return p.scope(() => {
    const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(name => linear(x, p.at(name), { features }));
    return linear(attention(q!, k!, v!, { heads, causal }, mask), p.at("out_proj"), { features, residual });
  });
}
