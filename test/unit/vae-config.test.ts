/** config.json of autoencoders: what is read, what is refused, and that released models have the parameters that they have. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { compileWithPlan } from "../../lib/graph/compile.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { vaeDecode, vaeEncode } from "../../lib/models/vae.js";
import { parseVaeConfig, vaeFactor } from "../../lib/models/vae-config.js";
import { decodeGraph } from "../../lib/models/vae-graphs.js";
import { declareVae, vaeParameterOf } from "../../lib/models/vae-parameters.js";
import { Params } from "../../lib/nn/params.js";
import { goldenSet } from "../support/goldens.js";

type Fields = Record<string, unknown>;
const tiny = (): Fields => JSON.parse(readFileSync(join(goldenSet("vae-tiny"), "vae/config.json"), "utf8")) as Fields;

const levels = { block_out_channels: [128, 256, 512, 512], layers_per_block: 2 };
const blocks = {
  down_block_types: Array(4).fill("DownEncoderBlock2D"),
  up_block_types: Array(4).fill("UpDecoderBlock2D"),
};
const sd15 = { ...levels, ...blocks, sample_size: 512 };
const sd3 = { ...sd15, latent_channels: 16, use_quant_conv: false, use_post_quant_conv: false, scaling_factor: 1.5305, shift_factor: 0.0609 };

test("absent fields and null take the defaults of diffusers", () => {
  const { json: _, ...config } = parseVaeConfig({ norm_num_groups: null }, "bare");
  expect(config).toEqual({
    inChannels: 3,
    outChannels: 3,
    latentChannels: 4,
    channels: [64],
    layers: 1,
    groups: 32,
    midAttention: true,
    quantConv: true,
    postQuantConv: true,
    latentScale: Array(4).fill(0.18215),
    latentMean: Array(4).fill(0),
    sampleSize: 32,
  });
});

test("latents are scaled by one factor and shift, or by statistics of each channel", () => {
  const { latentScale, latentMean } = parseVaeConfig(sd3, "sd3");
  expect([latentScale, latentMean]).toEqual([Array(16).fill(1.5305), Array(16).fill(0.0609)]);
  const statistics = { ...sd15, scaling_factor: 0.5, latents_mean: [1, 2, 3, 4], latents_std: [1, 2, 4, 8] };
  const each = parseVaeConfig(statistics, "playground");
  expect([each.latentScale, each.latentMean]).toEqual([
    [0.5, 0.25, 0.125, 0.0625],
    [1, 2, 3, 4],
  ]);
});

describe("released models", () => {
  test.each([
    ["Stable Diffusion and SDXL", sd15, 83_653_863],
    ["SD3 and FLUX", sd3, 83_819_683],
  ])("%s: the number of parameters, and a plan", (_, json, parameters) => {
    const config = parseVaeConfig(json, "released");
    const store = declareVae(config, "f32");
    expect(store.count).toBe(parameters);
    expect(store.trainable).toBe(false);
    expect(vaeFactor(config)).toBe(8);
    const graph = decodeGraph({ config, params: new Params(store) }, [1, config.latentChannels, 64, 64]);
    const { program } = compileWithPlan(graph, { name: "decode", arenas: store.arenas });
    const map = 512 * 512 * 128 * 4; // the widest maps are 512 x 512 x 256, read beside a result of 128 channels
    expect(program.arenas[0]!.bytes).toBeLessThan(6 * map);
    expect(program.arenas[0]!.bytes).toBeGreaterThanOrEqual(3 * map);
  });

  test("frozen in bf16, a weight takes 2 bytes", () => {
    const store = declareVae(parseVaeConfig(sd15, "sd"), "bf16");
    expect(store.bytes / store.count).toBeCloseTo(2, 2);
    expect(Object.keys(store.arenas)).toEqual(["vae"]);
  });
});

describe("refused", () => {
  const variants: readonly [field: string, value: unknown, named?: string][] = [
    ["_class_name", "AutoencoderTiny"],
    ["act_fn", "gelu"],
    ["down_block_types", ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"]],
    ["up_block_types", ["UpDecoderBlock2D"]],
    ["block_out_channels", [8, 16, 16, 18], "norm_num_groups"],
    ["block_out_channels", []],
    ["layers_per_block", 0],
    ["layers_per_block", 1e9],
    ["latent_channels", 1.5],
    ["norm_num_groups", "4"],
    ["scaling_factor", 0],
    ["shift_factor", "none"],
    ["latents_mean", [0, 0, 0, 0], "latents_std"],
    ["latents_std", [1, 1, 1, 0]],
    ["use_quant_conv", 1],
    ["mid_block_add_attention", "yes"],
    ["sample_size", -1],
    ["a_field_of_tomorrow", 1],
  ];
  test.each(variants)("%s = %j", (field, value, named = field) => {
    const parse = () => parseVaeConfig({ ...tiny(), [field]: value }, "folder/config.json");
    expect(parse).toThrow(ConfigError);
    expect(parse).toThrow(/^folder\/config\.json: expected /);
    expect(parse).toThrow(named);
  });

  test("a shift beside statistics: which of the two comes first, nobody says", () => {
    const both = { ...tiny(), shift_factor: 0.1, latents_mean: [0, 0, 0, 0], latents_std: [1, 1, 1, 1] };
    expect(() => parseVaeConfig(both, "c")).toThrow(/shift_factor/);
  });

  test("all of them in one error, with their values", () => {
    expect(() => parseVaeConfig({ ...tiny(), act_fn: "relu", a_field_of_tomorrow: 1 }, "c")).toThrow(/act_fn.*a_field_of_tomorrow.*"relu".*1/);
  });
});

test("inputs that do not fit are refused while the graph is built", () => {
  const config = parseVaeConfig(tiny(), "tiny");
  const params = new Params(declareVae(config, "f32"));
  const encode =
    (...shape: number[]) =>
    () =>
      buildGraph(() => void vaeEncode(config, params, input("x", typed("f32", ...shape))));
  const decode =
    (...shape: number[]) =>
    () =>
      buildGraph(() => void vaeDecode(config, params, input("x", typed("f32", ...shape))));
  expect(encode(1, 8, 8, 4)).toThrow(/vae: expected pixels \[B, H, W, 3\], received \[1, 8, 8, 4\]/);
  expect(encode(1, 7, 8, 3)).toThrow(/vae: expected pixels of at least 8 x 8/);
  expect(decode(1, 8, 8)).toThrow(/vae: expected latents \[B, H, W, 4\]/);
  expect(decode(1, 8, 8)).toThrow(ShapeError);
});

test("names of the attention before diffusers 0.18, and no others, are brought up to date", () => {
  const at = "encoder.mid_block.attentions.0.";
  expect(["query.weight", "key.bias", "value.weight", "proj_attn.bias"].map(old => vaeParameterOf(at + old))).toEqual(
    ["to_q.weight", "to_k.bias", "to_v.weight", "to_out.0.bias"].map(name => at + name),
  );
  for (const name of [`${at}to_q.weight`, `${at}group_norm.weight`, "encoder.conv_in.weight", "decoder.mid_block.resnets.0.key.weight"])
    expect(vaeParameterOf(name)).toBe(name);
});
