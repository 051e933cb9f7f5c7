/** The two graphs that a UNet handle runs: its forward pass, and the gradients of sum(output * cotangent). */

import { input } from "../graph/ops/leaf.js";
import { buildGraph, type Graph, type NamedTensor, type Tensor, typed } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { addGradients } from "./gradients.js";
import { type UNetInputs, type UNetOptions, unet } from "./unet.js";
import type { UNetConfig } from "./unet-config.js";

export interface UNetHostInputs {
  /** [B, inChannels, H, W]. */
  readonly sample: HostTensor;
  /** [B], or one number for the whole batch. */
  readonly timestep: HostTensor | number;
  /** [B, M, crossAttentionDim]. */
  readonly encoderHiddenStates: HostTensor;
  /** SDXL: pooled text [B, E] and sizes [B, 6]. */
  readonly addedText?: { readonly textEmbeds: HostTensor; readonly timeIds: HostTensor };
}

type Recompute = NonNullable<UNetOptions["recompute"]>;

/** Output "output" [B, outChannels, H, W]; inputs as feedOf names them. Only shapes and dtype matter here. */
export function forwardGraph(config: UNetConfig, params: Params, shapes: UNetHostInputs, recompute: Recompute): Graph {
  return buildGraph(graph => void buildForward(graph, config, params, shapes, recompute));
}

/** Besides "output": "loss", and gradients of inputs and parameters, each shaped and laid out like what it belongs to. One more input, "cotangent". */
export function gradientGraph(config: UNetConfig, params: Params, shapes: UNetHostInputs, recompute: Recompute): Graph {
  return buildGraph(graph => {
    const { inputs, output } = buildForward(graph, config, params, shapes, recompute);
    const stores = [params.store, ...(params.adapter?.stores ?? [])];
    addGradients({ outputs: [{ name: "cotangent", tensor: output, layout: "bchw" }], inputs: differentiableInputs(inputs), stores });
  });
}

/** Host tensors by the names of the graphs' inputs. */
export function feedOf({ sample, timestep, encoderHiddenStates, addedText }: UNetHostInputs): Record<string, HostTensor> {
  const batch = sample.shape[0]!;
  const steps = typeof timestep === "number" ? hostTensor("f64", [batch], new Float64Array(batch).fill(timestep)) : timestep;
  return { sample, timestep: steps, encoderHiddenStates, ...addedText };
}

function buildForward(graph: Graph, config: UNetConfig, params: Params, shapes: UNetHostInputs, recompute: Recompute): { inputs: UNetInputs; output: Tensor } {
  const inputs = declareInputs(shapes, params.store.computes === "f64" ? "f64" : "f32");
  const output = unet(config, params, inputs, { recompute });
  graph.output("output", output, "bchw");
  return { inputs, output };
}

function declareInputs({ sample, encoderHiddenStates, addedText }: UNetHostInputs, dtype: "f32" | "f64"): UNetInputs {
  const [batch = 0, channels = 0, height = 0, width = 0] = sample.shape;
  const plain = (name: string, { shape }: HostTensor): Tensor => input(name, typed(dtype, ...shape));
  return {
    sample: input("sample", typed(dtype, batch, height, width, channels), "bchw"),
    timestep: input("timestep", typed(dtype, batch)),
    encoderHiddenStates: plain("encoderHiddenStates", encoderHiddenStates),
    addedText: addedText && { textEmbeds: plain("textEmbeds", addedText.textEmbeds), timeIds: plain("timeIds", addedText.timeIds) },
  };
}

function differentiableInputs({ sample, encoderHiddenStates, addedText }: UNetInputs): NamedTensor[] {
  const named = (name: string, tensor: Tensor, layout: NamedTensor["layout"] = "plain"): NamedTensor => ({ name, tensor, layout });
  const always = [named("sample", sample, "bchw"), named("encoderHiddenStates", encoderHiddenStates)];
  return addedText ? [...always, named("textEmbeds", addedText.textEmbeds)] : always;
}
