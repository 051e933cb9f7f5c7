/** The UNet of Stable Diffusion 1.x, 2.x, XL and their inpainting variants: diffusers' UNet2DConditionModel, read top to bottom.
 *  Parameter names are the checkpoint's. Maps are [B, H, W, C]; a map read as [B, H*W, C] is a token matrix, so attention needs no transpose. */

import { ShapeError } from "../errors.js";
import { attention as attend } from "../graph/ops/attention.js";
import { wide } from "../graph/ops/check.js";
import { add, affine, cast, silu } from "../graph/ops/elementwise.js";
import { timestepEmbedding } from "../graph/ops/embed.js";
import { geglu } from "../graph/ops/gate.js";
import { upsampleNearest } from "../graph/ops/resample.js";
import { concat, reshape } from "../graph/ops/shape.js";
import { recomputed, type Tensor } from "../graph/tensor.js";
import { conv2d, groupNorm, layerNorm, linear } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import type { AttentionConfig, BlockConfig, UNetConfig } from "./unet-config.js";

export interface UNetInputs {
  /** Noisy latents [B, H, W, inChannels]; inpainting models: latents, mask and masked latents joined along the channels. */
  readonly sample: Tensor;
  /** [B], i32 or float, in [0, 1000). */
  readonly timestep: Tensor;
  /** Text features [B, M, crossAttentionDim]. */
  readonly encoderHiddenStates: Tensor;
  /** SDXL: pooled text [B, E] and [B, 6] original height and width, crop top and left, target height and width. */
  readonly addedText?: { readonly textEmbeds: Tensor; readonly timeIds: Tensor } | undefined;
}

export interface UNetOptions {
  /** "blocks": every ResNet block, transformer and upsampler is built again in the backward pass, and only the maps between them are kept. */
  readonly recompute?: "none" | "blocks";
}

/** What every block needs besides its input. */
interface Context {
  readonly config: UNetConfig;
  /** Time embedding after SiLU, [B, timeDim]. */
  readonly time: Tensor;
  readonly text: Tensor;
  readonly region: <T>(body: () => T) => T;
}

/** The model's prediction (noise, v or flow, as it was trained) [B, H, W, outChannels]. Inputs are cast to what the parameters compute in; the prediction
 *  of bf16 is f32, because objectives multiply its differences from a reference by thousands. Throws ShapeError naming the input that does not fit. */
export function unet(config: UNetConfig, p: Params, inputs: UNetInputs, { recompute = "none" }: UNetOptions = {}): Tensor {
  checkInputs(config, inputs);
  const { sample, encoderHiddenStates } = inputs;
  const dtype = p.store.computes;
  const time = silu(embedTime(config, p, inputs)); // [B, timeDim]
  const context: Context = { config, time, text: cast(encoderHiddenStates, dtype), region: recompute === "blocks" ? recomputed : body => body() };

  const centered = config.centerInput ? affine(sample, { scale: 2, shift: -1 }) : sample;
  let x = conv2d(cast(centered, dtype), p.at("conv_in"), { channels: config.down[0]!.channels, kernel: config.convInKernel });
  const skips = [x];
  for (const [i, block] of config.down.entries()) {
    const maps = downBlock(x, block, p.at(`down_blocks.${i}`), context, i < config.down.length - 1);
    skips.push(...maps);
    x = maps.at(-1)!;
  }
  x = midBlock(x, config.mid, p.at("mid_block"), context);
  for (const [i, block] of config.up.entries()) {
    const taken = skips.splice(-block.layers).toReversed(); // deepest first
    x = upBlock(x, taken, block, p.at(`up_blocks.${i}`), context, skips.at(-1));
  }
  x = groupNorm(x, p.at("conv_norm_out"), { groups: config.groups, eps: config.eps, silu: true });
  return conv2d(x, p.at("conv_out"), { channels: config.outChannels, kernel: config.convOutKernel, dtype: wide(dtype) });
}

/** Sinusoids of the timestep (and for SDXL of the sizes, joined with the pooled text), formed in f32 or f64, each through two linear layers -> [B, timeDim]. */
function embedTime(config: UNetConfig, p: Params, { sample, timestep, addedText }: UNetInputs): Tensor {
  const { timeDim, flipSinToCos, frequencyShift: shift } = config;
  const dtype = sample.dtype === "f64" ? "f64" : "f32";
  const computed = p.store.computes;
  const waves = timestepEmbedding(timestep, { dim: config.down[0]!.channels, flipSinToCos, shift, dtype });
  const time = embed(cast(waves, computed), timeDim, p.at("time_embedding"));
  if (!config.addedText || !addedText) return time;
  const { textEmbeds, timeIds } = addedText;
  const batch = timeIds.shape[0]!;
  const sizes = timestepEmbedding(reshape(timeIds, [-1]), { dim: config.addedText.dim, flipSinToCos, shift, dtype });
  const joined = concat([cast(textEmbeds, computed), cast(reshape(sizes, [batch, -1]), computed)], 1); // [B, E + 6 * dim]
  return add(time, embed(joined, timeDim, p.at("add_embedding")));
}

/** [B, K] -> [B, width]. */
function embed(x: Tensor, width: number, p: Params): Tensor {
  return p.scope(() => linear(silu(linear(x, p.at("linear_1"), { features: width })), p.at("linear_2"), { features: width }));
}

/** Returns the map after every layer, and after the strided convolution: the skips of the way up, in order. */
function downBlock(x: Tensor, block: BlockConfig, p: Params, c: Context, halves: boolean): Tensor[] {
  return p.scope(() => {
    const maps: Tensor[] = [];
    for (let i = 0; i < block.layers; i++) maps.push(layer(maps.at(-1) ?? x, undefined, block, i, p, c));
    if (halves) {
      const place = p.at("downsamplers.0");
      maps.push(place.scope(() => conv2d(maps.at(-1)!, place.at("conv"), { channels: block.channels, stride: 2, padding: c.config.downsamplePadding })));
    }
    return maps;
  });
}

function midBlock(x: Tensor, block: UNetConfig["mid"], p: Params, c: Context): Tensor {
  return p.scope(() => {
    const first = layer(x, undefined, block, 0, p, c);
    return c.region(() => resnetBlock(first, block.channels, p.at("resnets.1"), c));
  });
}

/** `next`, the skip that the following block begins with, says to which size the map grows: sizes that are not a multiple of the strides
 *  come back to what they were, as with diffusers' forward_upsample_size. */
function upBlock(x: Tensor, skips: readonly Tensor[], block: BlockConfig, p: Params, c: Context, next: Tensor | undefined): Tensor {
  return p.scope(() => {
    let h = x;
    for (const [i, skip] of skips.entries()) h = layer(h, skip, block, i, p, c);
    if (!next) return h;
    const place = p.at("upsamplers.0");
    const [, height, width] = next.shape;
    return c.region(() => place.scope(() => conv2d(upsampleNearest(h, { height: height!, width: width! }), place.at("conv"), { channels: block.channels })));
  });
}

/** ResNet block number i on x, joined with the skip if there is one, then the attention of that number if the block has any. */
function layer(x: Tensor, skip: Tensor | undefined, block: BlockConfig, i: number, p: Params, c: Context): Tensor {
  const h = c.region(() => resnetBlock(skip ? concat([x, skip], 3) : x, block.channels, p.at(`resnets.${i}`), c));
  const { attention } = block;
  return attention ? transformer(h, attention, attention.depths[i]!, p.at(`attentions.${i}`), c) : h;
}

/** x [B, H, W, Cin] -> [B, H, W, channels]. */
function resnetBlock(x: Tensor, channels: number, p: Params, { config: { groups, eps }, time }: Context): Tensor {
  return p.scope(() => {
    let h = conv2d(groupNorm(x, p.at("norm1"), { groups, eps, silu: true }), p.at("conv1"), { channels });
    h = add(h, asMap(linear(time, p.at("time_emb_proj"), { features: channels }))); // [B, 1, 1, channels]
    h = conv2d(groupNorm(h, p.at("norm2"), { groups, eps, silu: true }), p.at("conv2"), { channels });
    return add(h, x.shape.at(-1) === channels ? x : conv2d(x, p.at("conv_shortcut"), { channels, kernel: 1 }));
  });
}

/** Spatial transformer: x [B, H, W, C] -> same, `depth` layers over its H * W tokens. A deep one is recomputed layer by layer: as one region its replay
 *  would hold the activations of all layers at once (SDXL has ten). */
function transformer(x: Tensor, attention: AttentionConfig, depth: number, p: Params, c: Context): Tensor {
  const direct: Context["region"] = body => body();
  const [whole, each] = depth === 1 ? [c.region, direct] : [direct, c.region];
  return p.scope(() =>
    whole(() => {
      let h = each(() => tokensOf(x, p, c.config));
      for (let i = 0; i < depth; i++) h = each(() => transformerLayer(h, attention, p.at(`transformer_blocks.${i}`), c.text));
      return backToMap(h, x, p, c.config);
    }),
  );
}

/** [B, H, W, C] -> [B, H * W, C], normalised and projected. The norm's eps is 1e-6 whatever the config says. */
function tokensOf(x: Tensor, p: Params, { groups, linearProjection }: UNetConfig): Tensor {
  const [batch, height, width, channels = 0] = x.shape;
  const tokens = [batch!, height! * width!, channels];
  const normed = groupNorm(x, p.at("norm"), { groups, eps: 1e-6 });
  return linearProjection
    ? linear(reshape(normed, tokens), p.at("proj_in"), { features: channels })
    : reshape(conv2d(normed, p.at("proj_in"), { channels, kernel: 1 }), tokens);
}

/** The way back: tokens [B, H * W, C] -> a map shaped like `x`, added to it. */
function backToMap(tokens: Tensor, x: Tensor, p: Params, { linearProjection }: UNetConfig): Tensor {
  const channels = x.shape.at(-1)!;
  return linearProjection
    ? reshape(add(linear(tokens, p.at("proj_out"), { features: channels }), reshape(x, tokens.shape)), x.shape)
    : add(conv2d(reshape(tokens, x.shape), p.at("proj_out"), { channels, kernel: 1 }), x);
}

/** Self-attention, attention to the text, gated feed-forward, each on a normalised copy and added: h [B, N, C] -> same. */
function transformerLayer(x: Tensor, { heads, crossOnly }: AttentionConfig, p: Params, text: Tensor): Tensor {
  return p.scope(() => {
    let h = layerNorm(x, p.at("norm1"));
    const afterSelf = attentionLayer(h, crossOnly ? text : h, x, heads, p.at("attn1"));
    h = layerNorm(afterSelf, p.at("norm2"));
    const afterText = attentionLayer(h, text, afterSelf, heads, p.at("attn2"));
    return add(feedForward(layerNorm(afterText, p.at("norm3")), p.at("ff")), afterText);
  });
}

/** Queries from x [B, N, C], keys and values from context [B, M, D] -> [B, N, C], added to `residual`. */
function attentionLayer(x: Tensor, context: Tensor, residual: Tensor, heads: number, p: Params): Tensor {
  return p.scope(() => {
    const features = x.shape.at(-1)!;
    const q = linear(x, p.at("to_q"), { features, bias: false });
    const k = linear(context, p.at("to_k"), { features, bias: false });
    const v = linear(context, p.at("to_v"), { features, bias: false });
    return linear(attend(q, k, v, { heads }), p.at("to_out.0"), { features, residual });
  });
}

/** x [B, N, C] -> same, through 4 C gated units. */
function feedForward(x: Tensor, p: Params): Tensor {
  return p.scope(() => {
    const features = x.shape.at(-1)!;
    return linear(geglu(linear(x, p.at("net.0.proj"), { features: 8 * features })), p.at("net.2"), { features });
  });
}

/** [B, C] -> [B, 1, 1, C]. */
function asMap(x: Tensor): Tensor {
  return reshape(x, [x.shape[0]!, 1, 1, x.shape[1]!]);
}

function checkInputs(config: UNetConfig, { sample, timestep, encoderHiddenStates, addedText }: UNetInputs): void {
  const batch = sample.shape[0]!;
  const expect = (name: string, tensor: Tensor, shape: readonly (number | string)[]): void => {
    if (tensor.shape.length !== shape.length || shape.some((d, i) => typeof d === "number" && d !== tensor.shape[i]))
      throw new ShapeError("unet", `expected ${name} [${shape.join(", ")}], received [${tensor.shape.join(", ")}]`);
  };
  expect("sample", sample, ["B", "H", "W", config.inChannels]);
  expect("timestep", timestep, [batch]);
  expect("encoderHiddenStates", encoderHiddenStates, [batch, "M", config.crossAttentionDim]);
  if (!config.addedText !== !addedText)
    throw new ShapeError(
      "unet",
      `expected ${config.addedText ? "addedText, which this model" : "no addedText, which only a model of addition_embed_type text_time"} takes`,
    );
  if (!config.addedText || !addedText) return;
  expect("addedText.timeIds", addedText.timeIds, [batch, "n"]);
  const { inputs, dim } = config.addedText;
  expect("addedText.textEmbeds", addedText.textEmbeds, [batch, inputs - dim * addedText.timeIds.shape[1]!]);
}
