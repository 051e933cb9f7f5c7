/** Which configs are read, how, and that nothing in a config is overlooked. No addon is needed: parameters are declared by building a graph. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { unet } from "../../lib/models/unet.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { adaptUNet, declareUNet } from "../../lib/models/unet-parameters.js";
import { Params } from "../../lib/nn/params.js";
import { goldenSet, projectRoot } from "../support/goldens.js";

type Fields = Record<string, unknown>;
const full = (name: string): Fields => JSON.parse(readFileSync(join(projectRoot, "bench/configs", `${name}-unet.json`), "utf8")) as Fields;
const tiny = (set: string): Fields => JSON.parse(readFileSync(join(goldenSet(set), "unet/config.json"), "utf8")) as Fields;

test.each([
  ["sd15", 686, 859_520_964],
  ["sdxl-base", 1680, 2_567_463_684],
])("%s has the %i tensors and %i parameters that the field counts", (name, tensors, parameters) => {
  const store = declareUNet(parseUNetConfig(full(name), name), "f32");
  expect([store.entries.size, store.count]).toEqual([tensors, parameters]);
});

test("LoRA of rank 16 on the attention projections of SD 1.5 trains 3,188,736 numbers in 256 tensors", () => {
  const config = parseUNetConfig(full("sd15"), "sd15");
  const adapter = adaptUNet(config, declareUNet(config, "f32"), { rank: 16 });
  expect([adapter.store.entries.size, adapter.store.count]).toEqual([256, 3_188_736]);
});

test("fields that are absent or null take diffusers' defaults", () => {
  const { json: _, ...bare } = parseUNetConfig({ cross_attention_dim: 768 }, "bare");
  const { json: __, ...sd15 } = parseUNetConfig({ ...full("sd15"), norm_eps: null }, "sd15");
  expect({ ...bare, sampleSize: 64 }).toEqual(sd15);
});

test("attention_head_dim is the number of heads", () => {
  const config = parseUNetConfig(tiny("unet-sd2-tiny"), "sd2");
  expect(config.down.map(b => b.attention?.heads)).toEqual([2, 4, 4, undefined]);
  expect(config.mid.attention.heads).toBe(8);
  expect(config.up.map(b => b.attention?.heads)).toEqual([undefined, 4, 4, 2]);
});

test("transformer layers: one number, one per block, or one per attention with its reverse", () => {
  const depths = (extra: Fields): unknown => {
    const { down, mid, up } = parseUNetConfig({ ...tiny("unet-sdxl-tiny"), ...extra }, "depths");
    return [down.map(b => b.attention?.depths), mid.attention.depths, up.map(b => b.attention?.depths)];
  };
  expect(depths({ transformer_layers_per_block: 3 })).toEqual([[undefined, [3, 3], [3, 3]], [3], [[3, 3, 3], [3, 3, 3], undefined]]);
  expect(depths({})).toEqual([[undefined, [1, 1], [2, 2]], [2], [[2, 2, 2], [1, 1, 1], undefined]]);
  const nested = { transformer_layers_per_block: [1, [1, 2], 4], reverse_transformer_layers_per_block: [[4, 4, 10], [2, 1, 1], 1] };
  expect(depths(nested)).toEqual([[undefined, [1, 2], [4, 4]], [4], [[4, 4, 10], [2, 1, 1], undefined]]);
  expect(() => depths({ transformer_layers_per_block: [1, [1, 2], 4] })).toThrow(/reverse_transformer_layers_per_block to be given/);
});

describe("refused", () => {
  const variants: readonly [field: string, value: unknown][] = [
    ["act_fn", "gelu"],
    ["attention_type", "gated"],
    ["class_embed_type", "timestep"],
    ["num_class_embeds", 10],
    ["addition_embed_type", "text"],
    ["encoder_hid_dim", 32],
    ["encoder_hid_dim_type", "text_proj"],
    ["cross_attention_norm", "layer_norm"],
    ["dropout", 0.1],
    ["dual_cross_attention", true],
    ["mid_block_scale_factor", 2],
    ["mid_block_type", "UNetMidBlock2DSimpleCrossAttn"],
    ["num_attention_heads", 4],
    ["resnet_out_scale_factor", 0.5],
    ["resnet_skip_time_act", true],
    ["resnet_time_scale_shift", "scale_shift"],
    ["class_embeddings_concat", true],
    ["time_cond_proj_dim", 256],
    ["time_embedding_type", "fourier"],
    ["time_embedding_act_fn", "silu"],
    ["timestep_post_act", "silu"],
    ["_class_name", "UNet2DModel"],
    ["a_field_of_tomorrow", 1],
    ["down_block_types", ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]],
    ["up_block_types", ["UpBlock2D"]],
    ["block_out_channels", []],
    ["block_out_channels", [16, 16, 32, 30]],
    ["layers_per_block", [1, 1]],
    ["layers_per_block", 0],
    ["layers_per_block", 1e9],
    ["transformer_layers_per_block", 1e9],
    ["attention_head_dim", 5],
    ["cross_attention_dim", [24, 24, 24, 32]],
    ["conv_in_kernel", 4],
    ["downsample_padding", 2],
    ["in_channels", "4"],
    ["flip_sin_to_cos", 1],
    ["norm_eps", "small"],
  ];
  test.each(variants)("%s = %j", (field, value) => {
    const parse = () => parseUNetConfig({ ...tiny("unet-sd-tiny"), [field]: value }, "folder/config.json");
    expect(parse).toThrow(ConfigError);
    expect(parse).toThrow(/^folder\/config\.json: expected /);
    const named = field === "block_out_channels" && Array.isArray(value) && value.length > 0 ? "norm_num_groups" : field;
    expect(parse).toThrow(named);
  });

  test("all of them in one error, with their values", () => {
    const parse = () => parseUNetConfig({ ...tiny("unet-sd-tiny"), dropout: 0.1, class_embed_type: "timestep", a_field_of_tomorrow: 1 }, "c");
    expect(parse).toThrow(/dropout.*class_embed_type.*a_field_of_tomorrow.*0\.1.*"timestep".*1/);
  });

  test.each([[null], [[]], ["{}"]])("%j is no config", json => {
    expect(() => parseUNetConfig(json, "c")).toThrow(ConfigError);
  });

  test("targets that name no module", () => {
    const config = parseUNetConfig(tiny("unet-sd-tiny"), "c");
    expect(() => adaptUNet(config, declareUNet(config, "f32"), { rank: 4, targets: ["to_qq"] })).toThrow(/targets.*modules of this model/);
  });
});

test("inputs that do not fit are refused while the graph is built, by name", () => {
  const config = parseUNetConfig(tiny("unet-sdxl-tiny"), "xl");
  const store = declareUNet(config, "f32");
  const build = (change: Record<string, readonly number[] | null>): void => {
    const shapes: Record<string, readonly number[] | null> = {
      sample: [2, 8, 8, 4],
      timestep: [2],
      text: [2, 5, 24],
      pooled: [2, 20],
      sizes: [2, 6],
      ...change,
    };
    buildGraph(() => {
      const tensor = (name: string) => input(name, typed("f32", ...shapes[name]!));
      const addedText = shapes.pooled ? { textEmbeds: tensor("pooled"), timeIds: tensor("sizes") } : undefined;
      unet(config, new Params(store), { sample: tensor("sample"), timestep: tensor("timestep"), encoderHiddenStates: tensor("text"), addedText });
    });
  };
  build({});
  for (const [change, message] of [
    [{ sample: [2, 8, 8, 9] }, /sample \[B, H, W, 4\], received \[2, 8, 8, 9\]/],
    [{ timestep: [1] }, /timestep \[2\]/],
    [{ text: [2, 5, 32] }, /encoderHiddenStates \[2, M, 24\]/],
    [{ pooled: null }, /addedText, which this model/],
    [{ pooled: [2, 21] }, /textEmbeds \[2, 20\]/],
    [{ sizes: [1, 6] }, /timeIds \[2, n\]/],
  ] as const) {
    expect(() => build(change)).toThrow(ShapeError);
    expect(() => build(change)).toThrow(message);
  }
});
