/** Both towers of CLIP in one space: transformers' CLIPModel. Texts and pictures become unit vectors, whose cosines times a learned factor are logits.
 *  Radford et al. 2021, arXiv:2103.00020, figure 3. */

import { exp, mul } from "../graph/ops/elementwise.js";
import { matmul } from "../graph/ops/matmul.js";
import { l2Normalize } from "../graph/ops/norm.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import type { Params } from "../nn/params.js";
import type { ClipConfig } from "./clip-config.js";
import { type ClipTextInputs, type ClipTextOutputs, clipProjection, clipText } from "./clip-text.js";
import { type ClipVisionOutputs, clipVision } from "./clip-vision.js";
import type { RecomputeOptions } from "./regions.js";

/** Texts [T, N] -> unit vectors [T, projection], f32 from a model of bf16. */
export function clipTextFeatures(
  config: ClipConfig,
  p: Params,
  inputs: ClipTextInputs,
  options: RecomputeOptions = {},
): ClipTextOutputs & { readonly textEmbeds: Tensor } {
  const outputs = clipText(config.text, p, inputs, options);
  return { ...outputs, textEmbeds: l2Normalize(outputs.textEmbeds!) }; // the text config of a whole model has a projection
}

/** Pictures [I, imageSize, imageSize, channels] -> unit vectors [I, projection], f32 from a model of bf16. */
export function clipImageFeatures(
  config: ClipConfig,
  p: Params,
  pixels: Tensor,
  options: RecomputeOptions = {},
): ClipVisionOutputs & { readonly imageEmbeds: Tensor } {
  const outputs = clipVision(config.vision, p, pixels, options);
  return { ...outputs, imageEmbeds: l2Normalize(clipProjection(outputs.pooled, config.projection, p.at("visual_projection"))) };
}

/** exp(logit_scale) * cosine of every picture with every text: [I, T] from unit vectors [T, P] and [I, P]. */
export function clipLogits(config: ClipConfig, p: Params, textEmbeds: Tensor, imageEmbeds: Tensor): Tensor {
  const factor = exp(p.tensor("logit_scale", [], { init: { value: config.logitScale } }));
  return mul(matmul(imageEmbeds, textEmbeds, { transposeB: true }), reshape(factor, [1]));
}
