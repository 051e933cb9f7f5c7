/** config.json of diffusers' AutoencoderKL, brought into the shape that encoder and decoder read. Every field of diffusers 0.40 is used, without effect
 *  here, or refused by name. */

import { ConfigReader } from "./config-reader.js";

export interface VaeConfig {
  /** Channels of pictures. */
  readonly inChannels: number;
  readonly outChannels: number;
  readonly latentChannels: number;
  /** Width of every level, from pictures to latents. Each level but the last halves the size. */
  readonly channels: readonly number[];
  /** ResNet blocks of a level of the encoder; the decoder has one more. */
  readonly layers: number;
  readonly groups: number;
  /** Whether the middle blocks attend, with one head. */
  readonly midAttention: boolean;
  /** 1 x 1 convolutions between encoder and moments, and between latents and decoder. */
  readonly quantConv: boolean;
  readonly postQuantConv: boolean;
  /** latents = (sample - mean) * scale, per channel: scaling_factor and shift_factor, or latents_mean and latents_std. */
  readonly latentScale: readonly number[];
  readonly latentMean: readonly number[];
  /** Size of the pictures that the model was made for, and of tiles; any other size works. */
  readonly sampleSize: number;
  /** The fields as they were read, for saving. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Pixels per latent, along each axis. */
export function vaeFactor({ channels }: VaeConfig): number {
  return 2 ** (channels.length - 1);
}

/** Throws one ConfigError that lists every unsupported field with its value. `source` is the path that errors name. */
export function parseVaeConfig(json: unknown, source: string): VaeConfig {
  const r = new ConfigReader(json, source);
  r.only("_class_name", "AutoencoderKL");
  r.only("act_fn", "silu", "swish");
  r.ignore("force_upcast"); // it says not to compute in f16, which is never done here
  const channels = r.counts("block_out_channels", [64]);
  const groups = r.count("norm_num_groups", 32);
  for (const c of channels) if (c % groups !== 0) r.problem("norm_num_groups", `a divisor of every block_out_channels (${channels})`, groups);
  for (const [field, type] of [
    ["down_block_types", "DownEncoderBlock2D"],
    ["up_block_types", "UpDecoderBlock2D"],
  ] as const) {
    const types = r.strings(field, [type], [type]);
    if (types.length !== channels.length) r.problem(field, `as many as block_out_channels (${channels.length})`, types);
  }
  const latentChannels = r.count("latent_channels", 4);
  const config: VaeConfig = {
    inChannels: r.count("in_channels", 3),
    outChannels: r.count("out_channels", 3),
    latentChannels,
    channels,
    layers: r.layers("layers_per_block", 1),
    groups,
    midAttention: r.boolean("mid_block_add_attention", true),
    quantConv: r.boolean("use_quant_conv", true),
    postQuantConv: r.boolean("use_post_quant_conv", true),
    ...parseScaling(r, latentChannels),
    sampleSize: r.count("sample_size", 32),
    json: json as Record<string, unknown>,
  };
  r.finish();
  return config;
}

/** Pipelines compute (z - shift) * scale (SD, SD3, FLUX) or, of models with statistics, (z - mean) * scale / std. */
function parseScaling(r: ConfigReader, channels: number): Pick<VaeConfig, "latentScale" | "latentMean"> {
  const factor = r.number("scaling_factor", 0.18215);
  if (!(factor > 0)) r.problem("scaling_factor", "a number > 0", factor);
  const shift = r.number("shift_factor", 0);
  const mean = statistics(r, "latents_mean", channels, () => true);
  const std = statistics(r, "latents_std", channels, x => x > 0);
  if (!mean !== !std) r.problem(mean ? "latents_std" : "latents_mean", "given, because the other is", null);
  if (mean && shift !== 0) r.problem("shift_factor", "absent beside latents_mean", shift);
  const each = (f: (c: number) => number): number[] => Array.from({ length: channels }, (_, c) => f(c));
  return { latentScale: each(c => factor / (std?.[c] ?? 1)), latentMean: each(c => mean?.[c] ?? shift) };
}

function statistics(r: ConfigReader, field: string, channels: number, fits: (x: number) => boolean): readonly number[] | undefined {
  const value = r.raw(field);
  if (value === undefined) return undefined;
  const isOne = Array.isArray(value) && value.length === channels && value.every(x => typeof x === "number" && Number.isFinite(x) && fits(x));
  if (isOne) return value as readonly number[];
  r.problem(field, `${channels} numbers, standard deviations above 0`, value);
  return undefined;
}
