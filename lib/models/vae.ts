/** The autoencoder of Stable Diffusion, SDXL, SD3 and FLUX: diffusers' AutoencoderKL, read top to bottom. Parameter names are the checkpoint's.
 *  Rombach et al. 2022, arXiv:2112.10752, section 3.1. Maps are [B, H, W, C]. */

import { ShapeError } from "../errors.js";
import { attention as attend } from "../graph/ops/attention.js";
import { wide } from "../graph/ops/check.js";
import { add, cast, clamp, div, exp, mul, scale, sub } from "../graph/ops/elementwise.js";
import { constant } from "../graph/ops/leaf.js";
import { upsampleNearest } from "../graph/ops/resample.js";
import { reshape, split } from "../graph/ops/shape.js";
import type { DType, Tensor } from "../graph/tensor.js";
import { conv2d, groupNorm, linear } from "../nn/layers.js";
import type { Params } from "../nn/params.js";
import { type RecomputeOptions, type Region, regionOf } from "./regions.js";
import { type VaeConfig, vaeFactor } from "./vae-config.js";

/** Of every norm, whatever the config says elsewhere. */
const eps = 1e-6;
/** Where diffusers cuts the logarithm of the variance. */
export const logvarRange = { min: -30, max: 20 } as const;

/** A diagonal normal distribution of latents, each [B, h, w, latentChannels]. */
export interface Posterior {
  readonly mean: Tensor;
  /** Logarithm of the variance, in [-30, 20]; no gradient flows where it was cut. */
  readonly logvar: Tensor;
}

/** What every block needs besides its input. */
interface Context {
  readonly config: VaeConfig;
  readonly region: Region;
}

/** Pictures [B, H, W, inChannels] in [-1, 1] -> the posterior of their latents, h = floor(H / 8) of a model of four levels; before toLatents. */
export function vaeEncode(config: VaeConfig, p: Params, pixels: Tensor, options: RecomputeOptions = {}): Posterior {
  return posterior(vaeMoments(config, p, pixels, options));
}

/** What the encoder says [B, h, w, 2 latentChannels]: means, then logarithms of variances, uncut. In f32 from a model of bf16. */
export function vaeMoments(config: VaeConfig, p: Params, pixels: Tensor, options: RecomputeOptions = {}): Tensor {
  expectMap("pixels", pixels, config.inChannels, vaeFactor(config));
  const channels = 2 * config.latentChannels;
  const last = wide(p.store.computes);
  const h = encoder(cast(pixels, p.store.computes), { config, region: regionOf(options) }, p.at("encoder"), config.quantConv ? p.store.computes : last);
  return config.quantConv ? conv2d(h, p.at("quant_conv"), { channels, kernel: 1, dtype: last }) : h;
}

function posterior(moments: Tensor): Posterior {
  const [mean, logvar] = split(moments, 2, 3);
  return { mean: mean!, logvar: clamp(logvar!, logvarRange) };
}

/** mean + std * noise. */
export function vaeSample({ mean, logvar }: Posterior, noise: Tensor): Tensor {
  return add(mean, mul(exp(scale(logvar, 0.5)), noise));
}

/** What the encoder gives -> what denoisers are trained on: (z - mean) * scale. */
export function toLatents({ latentScale, latentMean }: VaeConfig, z: Tensor): Tensor {
  return mul(sub(z, perChannel(latentMean, z.dtype)), perChannel(latentScale, z.dtype));
}

/** The way back: z / scale + mean. */
export function fromLatents({ latentScale, latentMean }: VaeConfig, latents: Tensor): Tensor {
  return add(div(latents, perChannel(latentScale, latents.dtype)), perChannel(latentMean, latents.dtype));
}

function perChannel(values: readonly number[], dtype: DType): Tensor {
  return constant(values, [values.length], dtype);
}

/** z [B, h, w, latentChannels], after fromLatents -> pictures [B, 8 h, 8 w, outChannels] of a model of four levels, about [-1, 1] and not cut. In f32 from a
 *  model of bf16. */
export function vaeDecode(config: VaeConfig, p: Params, z: Tensor, options: RecomputeOptions = {}): Tensor {
  expectMap("latents", z, config.latentChannels, 1);
  const x = cast(z, p.store.computes);
  const h = config.postQuantConv ? conv2d(x, p.at("post_quant_conv"), { channels: config.latentChannels, kernel: 1 }) : x;
  return decoder(h, { config, region: regionOf(options) }, p.at("decoder"));
}

function encoder(x: Tensor, c: Context, p: Params, dtype: DType): Tensor {
  const { channels, layers, groups, latentChannels } = c.config;
  return p.scope(() => {
    let h = conv2d(x, p.at("conv_in"), { channels: channels[0]! });
    for (const [i, width] of channels.entries()) {
      const block = p.at(`down_blocks.${i}`);
      h = block.scope(() => resnetBlocks(h, width, layers, block, c));
      // one row of zeros below and one column at the right, as the models were trained: sizes are halved and rounded down
      if (i < channels.length - 1) h = block.scope(() => conv2d(h, block.at("downsamplers.0.conv"), { channels: width, stride: 2, padding: [0, 1, 0, 1] }));
    }
    h = groupNorm(midBlock(h, p.at("mid_block"), c), p.at("conv_norm_out"), { groups, eps, silu: true });
    return conv2d(h, p.at("conv_out"), { channels: 2 * latentChannels, dtype });
  });
}

function decoder(z: Tensor, c: Context, p: Params): Tensor {
  const { layers, groups, outChannels } = c.config;
  const channels = c.config.channels.toReversed();
  return p.scope(() => {
    let h = midBlock(conv2d(z, p.at("conv_in"), { channels: channels[0]! }), p.at("mid_block"), c);
    for (const [i, width] of channels.entries()) {
      const block = p.at(`up_blocks.${i}`);
      h = block.scope(() => resnetBlocks(h, width, layers + 1, block, c));
      if (i < channels.length - 1) h = block.scope(() => c.region(() => conv2d(doubled(h), block.at("upsamplers.0.conv"), { channels: width })));
    }
    h = groupNorm(h, p.at("conv_norm_out"), { groups, eps, silu: true });
    return conv2d(h, p.at("conv_out"), { channels: outChannels, dtype: wide(h.dtype) });
  });
}

function doubled(x: Tensor): Tensor {
  const [, height = 0, width = 0] = x.shape;
  return upsampleNearest(x, { height: 2 * height, width: 2 * width });
}

function midBlock(x: Tensor, p: Params, c: Context): Tensor {
  const channels = x.shape.at(-1)!;
  return p.scope(() => {
    let h = resnetBlock(x, channels, p.at("resnets.0"), c);
    if (c.config.midAttention) h = attentionBlock(h, p.at("attentions.0"), c);
    return resnetBlock(h, channels, p.at("resnets.1"), c);
  });
}

/** x [B, H, W, Cin] -> [B, H, W, channels]. */
function resnetBlocks(x: Tensor, channels: number, count: number, p: Params, c: Context): Tensor {
  let h = x;
  for (let i = 0; i < count; i++) h = resnetBlock(h, channels, p.at(`resnets.${i}`), c);
  return h;
}

function resnetBlock(x: Tensor, channels: number, p: Params, { config: { groups }, region }: Context): Tensor {
  const norm = { groups, eps, silu: true };
  return p.scope(() =>
    region(() => {
      let h = conv2d(groupNorm(x, p.at("norm1"), norm), p.at("conv1"), { channels });
      h = conv2d(groupNorm(h, p.at("norm2"), norm), p.at("conv2"), { channels });
      return add(h, x.shape.at(-1) === channels ? x : conv2d(x, p.at("conv_shortcut"), { channels, kernel: 1 }));
    }),
  );
}

/** Self-attention of a map with one head as wide as the map, added to it. */
function attentionBlock(x: Tensor, p: Params, { config: { groups }, region }: Context): Tensor {
  const [batch = 0, height = 0, width = 0, features = 0] = x.shape;
  return p.scope(() =>
    region(() => {
      const residual = reshape(x, [batch, height * width, features]);
      const h = groupNorm(residual, p.at("group_norm"), { groups, eps });
      const [q, k, v] = ["to_q", "to_k", "to_v"].map(name => linear(h, p.at(name), { features }));
      return reshape(linear(attend(q!, k!, v!, { heads: 1 }), p.at("to_out.0"), { features, residual }), x.shape);
    }),
  );
}

function expectMap(name: string, { shape }: Tensor, channels: number, least: number): void {
  if (shape.length !== 4 || shape[3] !== channels) throw new ShapeError("vae", `expected ${name} [B, H, W, ${channels}], received [${shape.join(", ")}]`);
  if (shape[1]! < least || shape[2]! < least) throw new ShapeError("vae", `expected ${name} of at least ${least} x ${least}, received [${shape.join(", ")}]`);
}
