/** Rewards as graph functions, from standardised pixels to scores, for whatever learns through them: ReFL, DRaFT, AlignProp, guidance. Gradients reach the pixels;
 *  the model's weights are leaves of whatever store `p` reads. ImageReward's is `imageRewardScore`. */

import { ShapeError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { cast, exp, mul, relu, scale as scaled, shift } from "../graph/ops/elementwise.js";
import { constant } from "../graph/ops/leaf.js";
import { linear } from "../graph/ops/matmul.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape } from "../graph/ops/shape.js";
import type { Tensor } from "../graph/tensor.js";
import { clipImageFeatures } from "../models/clip.js";
import type { ClipConfig } from "../models/clip-config.js";
import type { RecomputeOptions } from "../models/regions.js";
import type { Params } from "../nn/params.js";
import type { AffineHead } from "./head.js";

/** Which number of the cosine. */
export type CosineForm = "cosine" | "hessel" | "logits";

/** CLIP-like rewards: pixels [B, S, S, 3] and unit text vectors [B, P] (of Clip.encodeText; they need no gradient) -> scores [B]. "logits" multiplies by
 *  exp(logit_scale): PickScore. Throws ShapeError. */
export function clipRewardScore(
  config: ClipConfig,
  p: Params,
  { pixels, textEmbeds }: { readonly pixels: Tensor; readonly textEmbeds: Tensor },
  { form = "cosine", ...options }: RecomputeOptions & { readonly form?: CosineForm } = {},
): Tensor {
  const batch = pixels.shape[0]!;
  if (textEmbeds.shape.length !== 2 || textEmbeds.shape[0] !== batch || textEmbeds.shape[1] !== config.projection)
    throw new ShapeError("clipRewardScore", `expected textEmbeds [${batch}, ${config.projection}], received [${textEmbeds.shape}]`);
  const { imageEmbeds } = clipImageFeatures(config, p, pixels, options);
  const cosine = reshape(sum(mul(imageEmbeds, cast(textEmbeds, imageEmbeds.dtype)), [1]), [batch]);
  if (form === "hessel") return scaled(relu(cosine), 2.5);
  if (form === "cosine") return cosine;
  const logScale = p.tensor("logit_scale", [], { init: { value: config.logitScale } });
  return mul(cosine, cast(reshape(exp(logScale), [1]), cosine.dtype));
}

/** The aesthetic predictor: pixels [B, S, S, 3] -> ratings [B]. Throws ShapeError for a head of another width. */
export function aestheticScore(config: ClipConfig, p: Params, head: AffineHead, pixels: Tensor, options: RecomputeOptions = {}): Tensor {
  if (head.weight.length !== config.projection)
    throw new ShapeError("aestheticScore", `expected a head of ${config.projection} weights, received ${head.weight.length}`);
  const { imageEmbeds } = clipImageFeatures(config, p, pixels, options);
  const x = cast(imageEmbeds, wide(imageEmbeds.dtype));
  const weight = constant([...head.weight], [1, config.projection], x.dtype);
  return shift(reshape(linear(x, weight), [pixels.shape[0]!]), head.bias);
}
