/** The parameters of a UNet, found by running its forward pass over the smallest map: the model function is the only list of names and shapes. */

import { ConfigError } from "../errors.js";
import { input } from "../graph/ops/leaf.js";
import { buildGraph, typed } from "../graph/tensor.js";
import { LoraAdapter, type LoraOptions } from "../nn/lora.js";
import { type ModelDType, ParameterStore, Params, storage } from "../nn/params.js";
import { unet } from "./unet.js";
import type { UNetConfig } from "./unet-config.js";

/** All parameters of a model that computes in `dtype`, in the order of its forward pass, sealed. */
export function declareUNet(
  config: UNetConfig,
  dtype: ModelDType,
  { arena = "parameters", trainable = true }: { arena?: string; trainable?: boolean } = {},
): ParameterStore {
  const store = new ParameterStore({ arena, ...storage(dtype, trainable) });
  visit(config, new Params(store));
  store.seal();
  return store;
}

/** An adapter for the modules of a model that its targets name, in a sealed store of its own. Throws ConfigError where they name none. */
export function adaptUNet(config: UNetConfig, base: ParameterStore, options: LoraOptions, { arena = "lora" }: { arena?: string } = {}): LoraAdapter {
  const adapter = new LoraAdapter(new ParameterStore({ arena, ...storage(base.computes, true) }), options);
  visit(config, new Params(base, { adapter }));
  if (adapter.store.entries.size === 0) throw new ConfigError("lora", "targets", "names of modules of this model", adapter.targets);
  adapter.store.seal();
  return adapter;
}

function visit(config: UNetConfig, params: Params): void {
  const dtype = params.store.computes === "f64" ? "f64" : "f32";
  const side = 2 ** (config.down.length - 1);
  const added = config.addedText;
  const sizes = added ? Math.min(6, Math.floor((added.inputs - 1) / added.dim)) : 0;
  buildGraph(() => {
    const plain = (name: string, ...shape: number[]) => input(name, typed(dtype, ...shape));
    const addedText = added && { textEmbeds: plain("pooled", 1, added.inputs - sizes * added.dim), timeIds: plain("sizes", 1, sizes) };
    const inputs = { sample: plain("sample", 1, side, side, config.inChannels), timestep: plain("timestep", 1), addedText };
    unet(config, params, { ...inputs, encoderHiddenStates: plain("text", 1, 1, config.crossAttentionDim) });
  });
}
