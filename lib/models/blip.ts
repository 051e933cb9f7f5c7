/** BLIP's picture encoder and its text encoder with cross-attention, under the names of its checkpoints. Li et al. 2022, arXiv:2201.12086; released code
 *  salesforce/BLIP `models/vit.py`, `models/med.py`. */

import { ShapeError } from "../errors.js";
import { attention } from "../graph/ops/attention.js";
import { add, affine, cast, gelu } from "../graph/ops/elementwise.js";
import { embedding } from "../graph/ops/embed.js";
import { l2Normalize } from "../graph/ops/norm.js";
import { broadcast } from "../graph/ops/reduce.js";
import { concat, reshape, slice, split } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { conv2d, layerNorm, linear } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import type { BlipConfig, BlipTextConfig, BlipVisionConfig } from "./blip-config.js";
import { type RecomputeOptions, regionOf } from "./regions.js";

const bound = { bound: 0.02 * Math.sqrt(3) };

/** pixels [B, imageSize, imageSize, 3] -> normalised states [B, 1 + patches, width], the class token first. `p` is at "visual_encoder". Throws ShapeError. */
export function blipVision(config: BlipVisionConfig, p: Params, pixels: Tensor, options: RecomputeOptions = {}): Tensor {
  const { imageSize, patch, width, layers, eps } = config;
  const [batch = 0, ...size] = pixels.shape;
  if (pixels.shape.length !== 4 || [imageSize, imageSize, 3].some((n, i) => n !== size[i]))
    throw new ShapeError("blip vision", `expected pixels [B, ${imageSize}, ${imageSize}, 3] (height, width, channels), received [${pixels.shape.join(", ")}]`);
  const region = regionOf(options);
  return p.scope(() => {
    const dtype = p.store.computes;
    const classToken = cast(p.tensor("cls_token", [1, 1, width], { init: bound }), dtype);
    const map = conv2d(cast(pixels, dtype), p.at("patch_embed.proj"), { channels: width, kernel: patch, stride: patch, padding: 0 });
    const tokens = concat([broadcast(classToken, [batch, 1, width]), reshape(map, [batch, -1, width])], 1);
    let x = add(tokens, p.tensor("pos_embed", [1, 1 + (imageSize / patch) ** 2, width], { init: bound }));
    for (let i = 0; i < layers; i++) x = region(() => visionBlock(x, config, p.at(`blocks.${i}`)));
    return layerNorm(x, p.at("norm"), { eps });
  });
}

function visionBlock(x: Tensor, { width: features, heads, hidden, eps }: BlipVisionConfig, p: Params): Tensor {
  return p.scope(() => {
    const [q, k, v] = split(linear(layerNorm(x, p.at("norm1"), { eps }), p.at("attn.qkv"), { features: 3 * features }), 3, 2);
    const attended = linear(attention(q!, k!, v!, { heads }), p.at("attn.proj"), { features, residual: x });
    const inner = gelu(linear(layerNorm(attended, p.at("norm2"), { eps }), p.at("mlp.fc1"), { features: hidden }));
    return linear(inner, p.at("mlp.fc2"), { features, residual: attended });
  });
}

export interface BlipTextInputs {
  /** Token ids [B, N], i32. */
  readonly inputIds: Tensor;
  /** [B, N], 1 for tokens and 0 for padding. */
  readonly attentionMask: Tensor;
  /** States of the pictures [B, M, vision width] that every layer attends to; without them the layers' cross-attention is left out (BLIP's text mode). */
  readonly image?: Tensor | undefined;
}

/** States after the embeddings and after every layer, layers + 1 of [B, N, width]. `p` is at "text_encoder". Throws ShapeError. */
export function blipText(
  config: BlipTextConfig,
  p: Params,
  { inputIds, attentionMask, image }: BlipTextInputs,
  options: RecomputeOptions = {},
): readonly Tensor[] {
  const { positions, eps, vocabulary, width } = config;
  const [batch = 0, tokens = 0] = inputIds.shape;
  if (inputIds.shape.length !== 2 || tokens > positions)
    throw new ShapeError("blip text", `expected inputIds [B, N] with N <= ${positions}, received [${inputIds.shape}]`);
  if (attentionMask.shape.length !== 2 || attentionMask.shape[0] !== batch || attentionMask.shape[1] !== tokens)
    throw new ShapeError("blip text", `expected attentionMask [${batch}, ${tokens}], received [${attentionMask.shape}]`);
  if (image && (image.shape.length !== 3 || image.shape[0] !== batch))
    throw new ShapeError("blip text", `expected image [${batch}, M, C], received [${image.shape}]`);
  const region = regionOf(options);
  return p.scope(() => {
    const names = p.at("embeddings");
    const words = embedding(names.tensor("word_embeddings.weight", [vocabulary, width], { init: bound }), inputIds);
    const places = slice(names.tensor("position_embeddings.weight", [positions, width], { init: bound }), { axis: 0, start: 0, length: tokens });
    const mask = reshape(cast(affine(attentionMask, { scale: 1e4, shift: -1e4 }), p.store.computes), [batch, 1, 1, tokens]);
    const states = [layerNorm(add(words, places), names.at("LayerNorm"), { eps })];
    for (let i = 0; i < config.layers; i++) states.push(region(() => textLayer(states.at(-1)!, config, p.at(`encoder.layer.${i}`), mask, image)));
    return states;
  });
}

/** Each part is added to what it read, and the sum normalised. */
function textLayer(x: Tensor, config: BlipTextConfig, p: Params, mask: Tensor, image: Tensor | undefined): Tensor {
  const { width: features, hidden, eps } = config;
  return p.scope(() => {
    const attended = textAttention(x, x, config, p.at("attention"), mask);
    const crossed = image ? textAttention(attended, image, config, p.at("crossattention")) : attended;
    const inner = gelu(linear(crossed, p.at("intermediate.dense"), { features: hidden }));
    return layerNorm(linear(inner, p.at("output.dense"), { features, residual: crossed }), p.at("output.LayerNorm"), { eps });
  });
}

function textAttention(x: Tensor, seen: Tensor, { width: features, heads, eps }: BlipTextConfig, p: Params, mask?: Tensor): Tensor {
  return p.scope(() => {
    const own = p.at("self");
    const q = linear(x, own.at("query"), { features });
    const [k, v] = ["key", "value"].map(name => linear(seen, own.at(name), { features }));
    const mixed = linear(attention(q, k!, v!, { heads }, mask), p.at("output.dense"), { features, residual: x });
    return layerNorm(mixed, p.at("output.LayerNorm"), { eps });
  });
}

/** The first token of states [B, N, C]: [B, C]. */
export function classToken(states: Tensor): Tensor {
  const [batch = 0, , width = 0] = states.shape;
  return reshape(slice(states, { axis: 1, start: 0, length: 1 }), [batch, width]);
}

/** Unit vectors [B, projection] in which BLIP compares; `p` is at the place of "vision_proj" and "text_proj". */
export function blipProjections(
  { projection: features }: BlipConfig,
  p: Params,
  { image, text }: { readonly image: Tensor; readonly text: Tensor },
): { readonly image: Tensor; readonly text: Tensor } {
  return {
    image: l2Normalize(linear(classToken(image), p.at("vision_proj"), { features })),
    text: l2Normalize(linear(classToken(text), p.at("text_proj"), { features })),
  };
}
