/** The image tower of CLIP: transformers' CLIPVisionTransformer, a ViT with a norm before its layers (Dosovitskiy et al. 2020, arXiv:2010.11929). */

import { ShapeError } from "../errors.js";
import { add, cast } from "../graph/ops/elementwise.js";
import { broadcast } from "../graph/ops/reduce.js";
import { concat, reshape, slice } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { conv2d, layerNorm } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import type { ClipVisionConfig } from "./clip-config.js";
import { clipEncoder } from "./clip-encoder.js";
import type { RecomputeOptions } from "./regions.js";

export interface ClipVisionOutputs {
  /** Normalised embeddings, then the states after every layer: layers + 1 tensors [B, 1 + patches, width], the class token first. */
  readonly hiddenStates: readonly Tensor[];
  /** The class token of the last, normalised [B, width]. */
  readonly pooled: Tensor;
}

/** pixels [B, imageSize, imageSize, channels], standardised as the model's preprocessing does. `p` is the root of the model: parameters are `vision_model.*`.
 *  Throws ShapeError. */
export function clipVision(config: ClipVisionConfig, p: Params, pixels: Tensor, options: RecomputeOptions = {}): ClipVisionOutputs {
  const { imageSize, channels, eps, width } = config;
  const [batch = 0, ...size] = pixels.shape;
  if (pixels.shape.length !== 4 || [imageSize, imageSize, channels].some((n, i) => n !== size[i]))
    throw new ShapeError(
      "clip vision",
      `expected pixels [B, ${imageSize}, ${imageSize}, ${channels}] (height, width, channels), received [${pixels.shape.join(", ")}]`,
    );
  const tower = p.at("vision_model");
  return tower.scope(() => {
    const tokens = layerNorm(embed(pixels, config, tower.at("embeddings")), tower.at("pre_layrnorm"), { eps }); // so it is spelt in every checkpoint
    const hiddenStates = clipEncoder(tokens, config, tower.at("encoder"), { ...options, causal: false });
    const classToken = reshape(slice(hiddenStates.at(-1)!, { axis: 1, start: 0, length: 1 }), [batch, width]);
    return { hiddenStates, pooled: layerNorm(classToken, tower.at("post_layernorm"), { eps }) };
  });
}

/** A learned token, then one of every patch, row by row, each at its learned place. */
function embed(pixels: Tensor, { width, patch, imageSize }: ClipVisionConfig, p: Params): Tensor {
  return p.scope(() => {
    const dtype = p.store.computes;
    const batch = pixels.shape[0]!;
    const init = { bound: 0.02 * Math.sqrt(3) };
    const classToken = reshape(cast(p.tensor("class_embedding", [width], { init }), dtype), [1, 1, width]);
    const map = conv2d(cast(pixels, dtype), p.at("patch_embedding"), { channels: width, kernel: patch, stride: patch, padding: 0, bias: false });
    const tokens = concat([broadcast(classToken, [batch, 1, width]), reshape(map, [batch, -1, width])], 1);
    return add(tokens, p.tensor("position_embedding.weight", [1 + (imageSize / patch) ** 2, width], { init }));
  });
}
