/** The parameters of an autoencoder: declared by building it once, on the smallest picture, and the older names of its attention. */

import { input } from "../graph/ops/leaf.js";
import { buildGraph, typed } from "../graph/tensor.js";
import { type ModelDType, ParameterStore, Params, storage } from "../nn/params.js";
import { vaeDecode, vaeMoments } from "./vae.js";
import { type VaeConfig, vaeFactor } from "./vae-config.js";

/** All parameters of a model that computes in `dtype`, encoder first, sealed. */
export function declareVae(
  config: VaeConfig,
  dtype: ModelDType,
  { arena = "vae", trainable = false }: { arena?: string; trainable?: boolean } = {},
): ParameterStore {
  const store = new ParameterStore({ arena, ...storage(dtype, trainable) });
  const plain = dtype === "f64" ? "f64" : "f32";
  const side = vaeFactor(config);
  buildGraph(() => {
    const params = new Params(store);
    vaeMoments(config, params, input("pixels", typed(plain, 1, side, side, config.inChannels)));
    vaeDecode(config, params, input("latents", typed(plain, 1, 1, 1, config.latentChannels)));
  });
  store.seal();
  return store;
}

const renamed: Readonly<Record<string, string>> = { query: "to_q", key: "to_k", value: "to_v", proj_attn: "to_out.0" };

/** The parameter that a stored name stands for: diffusers before 0.18 called the projections of an attention query, key, value and proj_attn. */
export function vaeParameterOf(stored: string): string {
  return stored.replace(
    /(\.mid_block\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)/,
    (_, place: string, old: string) => place + renamed[old]!,
  );
}
