/** The graphs that the handles of CLIP models run. Only shapes and dtype matter here; what comes out is f32 of a model of bf16. */

import { wide } from "../graph/ops/check.js";
import { cast } from "../graph/ops/elementwise.js";
import { input } from "../graph/ops/leaf.js";
import { transpose } from "../graph/ops/shape.js";
import { buildGraph, type Graph, type NamedTensor, type Tensor, typed } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import type { HostTensor } from "../util/host-tensor.js";
import { clipImageFeatures, clipLogits, clipTextFeatures } from "./clip.js";
import type { ClipConfig, ClipTextConfig } from "./clip-config.js";
import { type ClipTextInputs, clipFinalNorm, clipText, pooledRows } from "./clip-text.js";
import { addGradients } from "./gradients.js";
import type { RecomputeOptions } from "./regions.js";

export interface ClipTextHostInputs {
  /** Token ids [B, N], any integer dtype. */
  readonly inputIds: HostTensor;
  /** [B, N], 1 for tokens that are seen and 0 for padding. Stable Diffusion passes none: padding is seen. */
  readonly attentionMask?: HostTensor | undefined;
}

/** What of a text encoder's results is wanted. */
export interface ClipTextSelection {
  /** Which hidden states, 0 the embeddings, -1 the last, -2 the penultimate. None by default. */
  readonly hiddenStates?: readonly number[];
  /** lastHiddenState is the normalised state so many layers before the last, as diffusers' clip_skip. 0 by default. */
  readonly clipSkip?: number;
}

/** Outputs "lastHiddenState", "pooled", "textEmbeds" of a model with projection, "hiddenStates.<k>" by place in the selection. */
export function textGraph(config: ClipTextConfig, params: Params, shapes: ClipTextHostInputs, selection: ClipTextSelection): Graph {
  return buildGraph(g => output(g, textOutputs(config, params, shapes, selection)));
}

/** The same with gradients of those named in `cotangents`, each fed as "d <name>". */
export function textGradientGraph(
  config: ClipTextConfig,
  params: Params,
  shapes: ClipTextHostInputs,
  { cotangents, recompute, ...selection }: ClipTextSelection & RecomputeOptions & { readonly cotangents: readonly string[] },
): Graph {
  return buildGraph(g => {
    const outputs = textOutputs(config, params, shapes, selection, { recompute });
    output(g, outputs);
    addGradients({ outputs: named(outputs, cotangents), inputs: [], stores: [params.store], unreachable: "zeros" });
  });
}

function textOutputs(
  config: ClipTextConfig,
  params: Params,
  shapes: ClipTextHostInputs,
  { hiddenStates = [], clipSkip = 0 }: ClipTextSelection,
  options: RecomputeOptions = {},
) {
  const { textEmbeds, ...text } = clipText(config, params, declareText(params, shapes), options);
  const last = clipSkip === 0 ? text.lastHiddenState : clipFinalNorm(config, params, text.hiddenStates.at(-1 - clipSkip)!);
  const chosen = hiddenStates.map((index, k): [string, Tensor] => [`hiddenStates.${k}`, text.hiddenStates.at(index)!]);
  return { lastHiddenState: last, pooled: text.pooled, ...(textEmbeds && { textEmbeds }), ...Object.fromEntries(chosen) };
}

/** Output "textEmbeds". */
export function textFeatureGraph(config: ClipConfig, params: Params, shapes: ClipTextHostInputs): Graph {
  return buildGraph(g => output(g, { textEmbeds: clipTextFeatures(config, params, declareText(params, shapes)).textEmbeds }));
}

/** Outputs "imageEmbeds", "pooled", "hiddenStates.<k>". */
export function imageFeatureGraph(config: ClipConfig, params: Params, pixels: HostTensor, hiddenStates: readonly number[]): Graph {
  return buildGraph(g => {
    const image = clipImageFeatures(config, params, declarePixels(params, pixels));
    const chosen = hiddenStates.map((index, k): [string, Tensor] => [`hiddenStates.${k}`, image.hiddenStates.at(index)!]);
    output(g, { imageEmbeds: image.imageEmbeds, pooled: image.pooled, ...Object.fromEntries(chosen) });
  });
}

/** Outputs "logitsPerImage", "logitsPerText", "textEmbeds", "imageEmbeds"; with `cotangents`, gradients of those named, each fed as "d <name>". */
export function clipGraph(
  config: ClipConfig,
  params: Params,
  shapes: ClipTextHostInputs & { readonly pixels: HostTensor },
  { cotangents, ...options }: RecomputeOptions & { readonly cotangents?: readonly string[] } = {},
): Graph {
  return buildGraph(g => {
    const pixels = declarePixels(params, shapes.pixels);
    const { textEmbeds } = clipTextFeatures(config, params, declareText(params, shapes), options);
    const { imageEmbeds } = clipImageFeatures(config, params, pixels, options);
    const logitsPerImage = clipLogits(config, params, textEmbeds, imageEmbeds);
    const outputs = { logitsPerImage, logitsPerText: transpose(logitsPerImage, [1, 0]), textEmbeds, imageEmbeds };
    output(g, outputs);
    const inputs: NamedTensor[] = [{ name: "pixels", tensor: pixels, layout: "bchw" }];
    if (cotangents) addGradients({ outputs: named(outputs, cotangents), inputs, stores: [params.store], unreachable: "zeros" });
  });
}

/** Host tensors by the names of the graphs' inputs. */
export function textFeed(config: ClipTextConfig, { inputIds, attentionMask }: ClipTextHostInputs): Record<string, HostTensor> {
  return { inputIds, pooledRows: pooledRows(config, inputIds), ...(attentionMask && { attentionMask }) };
}

function declareText({ store }: Params, { inputIds, attentionMask }: ClipTextHostInputs): ClipTextInputs {
  return {
    inputIds: input("inputIds", typed("i32", ...inputIds.shape)),
    pooledRows: input("pooledRows", typed("i32", inputIds.shape[0]!)),
    attentionMask: attentionMask && input("attentionMask", typed(wide(store.computes), ...attentionMask.shape)),
  };
}

function declarePixels({ store }: Params, { shape: [batch = 0, channels = 0, height = 0, width = 0] }: HostTensor): Tensor {
  return input("pixels", typed(wide(store.computes), batch, height, width, channels), "bchw");
}

function output(g: Graph, outputs: Readonly<Record<string, Tensor>>): void {
  for (const [name, tensor] of Object.entries(outputs)) g.output(name, cast(tensor, wide(tensor.dtype)));
}

function named(outputs: Readonly<Record<string, Tensor>>, names: readonly string[]): NamedTensor[] {
  return names.map(name => ({ name: `d ${name}`, tensor: outputs[name]!, layout: "plain" }));
}
