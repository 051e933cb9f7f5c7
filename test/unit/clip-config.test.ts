/** config.json of CLIP models: what is read, what is refused, that released models have the parameters that they have, and where a text is pooled. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, ShapeError } from "../../lib/errors.js";
import { compileWithPlan } from "../../lib/graph/compile.js";
import { input } from "../../lib/graph/ops/leaf.js";
import { buildGraph, typed } from "../../lib/graph/tensor.js";
import { parseClipConfig, parseClipTextConfig } from "../../lib/models/clip-config.js";
import { clipGraph, textGraph } from "../../lib/models/clip-graphs.js";
import { clipParameterOf, declareClip, declareClipText } from "../../lib/models/clip-parameters.js";
import { clipText, pooledRows } from "../../lib/models/clip-text.js";
import { clipVision } from "../../lib/models/clip-vision.js";
import { Params } from "../../lib/nn/params.js";
import { hostTensor } from "../../lib/util/host-tensor.js";
import { goldenSet } from "../support/goldens.js";

type Fields = Record<string, unknown>;
const goldenConfig = (set: string, folder: string): Fields => JSON.parse(readFileSync(join(goldenSet(set), folder, "config.json"), "utf8")) as Fields;
const text = (): Fields => goldenConfig("clip-text-tiny", "text_encoder");
const full = (): Fields => goldenConfig("clip-full-tiny", "clip");

const sizes = (hidden: number, layers: number, heads: number, mlp: number): Fields => ({
  hidden_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  intermediate_size: mlp,
});
const projected = { architectures: ["CLIPTextModelWithProjection"] };
const bigG = { ...sizes(1280, 32, 20, 5120), hidden_act: "gelu", projection_dim: 1280, ...projected };
const large = {
  text_config: sizes(768, 12, 12, 3072),
  vision_config: { ...sizes(1024, 24, 16, 4096), patch_size: 14 },
  projection_dim: 768,
};
const huge = {
  text_config: { ...sizes(1024, 24, 16, 4096), hidden_act: "gelu" },
  vision_config: { ...sizes(1280, 32, 16, 5120), patch_size: 14, hidden_act: "gelu" },
  projection_dim: 1024,
};

/** What transformers 4 wrote into every config, and into those within. */
const notes = {
  _name_or_path: "",
  add_cross_attention: false,
  bad_words_ids: null,
  bos_token_id: 0,
  chunk_size_feed_forward: 0,
  do_sample: false,
  dropout: 0.0,
  id2label: { 0: "LABEL_0" },
  is_decoder: false,
  max_length: 20,
  num_beams: 1,
  pruned_heads: {},
  return_dict: true,
  temperature: 1.0,
  tie_word_embeddings: true,
  top_k: 50,
  torch_dtype: "float32",
  typical_p: 1.0,
  use_bfloat16: false,
};

test("absent fields and null take the defaults of transformers", () => {
  const { json: _, ...config } = parseClipTextConfig({ hidden_size: null }, "bare");
  const tower = { width: 512, layers: 12, heads: 8, hidden: 2048, activation: "quick_gelu", eps: 1e-5 };
  expect(config).toEqual({ ...tower, vocabulary: 49408, positions: 77, eosTokenId: 49407, usesAttentionMask: false, projection: undefined });
  const { vision, text, projection, logitScale } = parseClipConfig({}, "bare");
  expect(vision).toEqual({ ...tower, width: 768, heads: 12, hidden: 3072, channels: 3, imageSize: 224, patch: 32 });
  expect([text.projection, projection, logitScale]).toEqual([512, 512, 2.6592]);
});

test("a projection is what architectures say, or the caller", () => {
  expect(parseClipTextConfig({ ...projected, projection_dim: 20 }, "c").projection).toBe(20);
  expect(parseClipTextConfig({ projection_dim: 20 }, "c", { projection: true }).projection).toBe(20);
  expect(parseClipTextConfig({ ...projected, projection_dim: 20 }, "c", { projection: false }).projection).toBeUndefined();
});

test("notes of the saver are without effect, in towers too", () => {
  const { json: _, ...plain } = parseClipTextConfig(text(), "c");
  const { json: __, ...noted } = parseClipTextConfig({ ...notes, ...text() }, "c");
  expect(noted).toEqual(plain);
  const { text_config, vision_config, ...rest } = full();
  const within = { ...rest, ...notes, text_config: { ...notes, ...(text_config as Fields) }, vision_config: { ...notes, ...(vision_config as Fields) } };
  expect({ ...parseClipConfig(within, "c"), json: 0 }).toEqual({ ...parseClipConfig(full(), "c"), json: 0 });
});

test("where text_config_dict is given, it counts, and what it lacks takes its default", () => {
  const { text: tower, vision } = parseClipConfig({ ...huge, text_config_dict: sizes(64, 2, 4, 128), vision_config_dict: null }, "c");
  expect([tower.width, tower.layers, tower.activation]).toEqual([64, 2, "quick_gelu"]);
  expect([vision.width, vision.activation]).toEqual([1280, "gelu"]);
});

describe("released models", () => {
  const ids = hostTensor("i32", [2, 77]);
  test.each([
    ["the text encoder of Stable Diffusion 1 (ViT-L/14)", { ...sizes(768, 12, 12, 3072), eos_token_id: 2 }, 123_060_480],
    ["that of Stable Diffusion 2 (OpenCLIP ViT-H/14, 23 layers)", { ...sizes(1024, 23, 16, 4096), hidden_act: "gelu", projection_dim: 512 }, 340_387_840],
    ["the second of SDXL (OpenCLIP ViT-bigG/14)", bigG, 694_659_840],
  ])("%s", (_, json, parameters) => {
    const config = parseClipTextConfig(json, "released");
    const store = declareClipText(config, "bf16");
    expect([store.count, store.trainable]).toEqual([parameters, false]);
    expect(store.bytes / store.count).toBeCloseTo(2, 1);
    const f32 = declareClipText(config, "f32");
    const graph = textGraph(config, new Params(f32), { inputIds: ids }, { hiddenStates: [-2] });
    const { program } = compileWithPlan(graph, { name: "text", arenas: f32.arenas });
    expect(program.arenas[0]!.bytes).toBeLessThan(2 * 77 * 4 * (6 * config.width + 2 * config.hidden)); // a layer's tensors, not 32 layers'
  });

  test.each([
    ["ViT-L/14", large, 427_616_513],
    ["ViT-H/14", huge, 986_109_441],
  ])("both towers of %s", (_, json, parameters) => {
    const config = parseClipConfig(json, "released");
    const store = declareClip(config, "f32");
    expect(store.count).toBe(parameters);
    const { width, hidden } = config.vision;
    const graph = clipGraph(config, new Params(store), { inputIds: ids, pixels: hostTensor("u8", [1, 3, 224, 224]) });
    const { program } = compileWithPlan(graph, { name: "clip", arenas: store.arenas });
    expect(program.arenas[0]!.bytes).toBeLessThan(257 * 4 * (6 * width + 2 * hidden));
  });

  test("a single number stays f32 beside weights of bf16", () => {
    const store = declareClip(parseClipConfig(full(), "c"), "bf16");
    expect(store.entries.get("logit_scale")!.dtype).toBe("f32");
    expect(store.entries.get("visual_projection.weight")!.dtype).toBe("bf16");
  });
});

describe("refused", () => {
  const variants: readonly [field: string, value: unknown, named?: string][] = [
    ["model_type", "bert"],
    ["architectures", ["CLIPVisionModel"]],
    ["hidden_act", "relu"],
    ["hidden_act", 3],
    ["attention_dropout", 0.1],
    ["dropout", 0.1],
    ["is_decoder", true],
    ["pruned_heads", { 0: [1] }],
    ["num_attention_heads", 5],
    ["num_hidden_layers", 0],
    ["layer_norm_eps", 0],
    ["vocab_size", "1000"],
    ["a_field_of_tomorrow", 1],
  ];
  test.each(variants)("%s = %j", (field, value, named = field) => {
    const parse = () => parseClipTextConfig({ ...text(), [field]: value }, "folder/config.json");
    expect(parse).toThrow(ConfigError);
    expect(parse).toThrow(/^folder\/config\.json: expected /);
    expect(parse).toThrow(named);
  });

  test("fields of the towers are named with the tower", () => {
    const within = (tower: string, field: Fields) => () => parseClipConfig({ ...full(), [tower]: { ...(full()[tower] as Fields), ...field } }, "c");
    expect(within("vision_config", { patch_size: 15 })).toThrow(/^c \(vision_config\): expected patch_size to be a divisor of image_size \(56\)/);
    expect(within("text_config", { hidden_act: "relu" })).toThrow(/^c \(text_config\): expected hidden_act/);
    expect(within("text_config", { rope_theta: 1 })).toThrow(/^c \(text_config\): expected rope_theta to be a field of this model/);
    expect(() => parseClipConfig({ ...full(), vision_config: [] }, "c")).toThrow(ConfigError);
  });

  test("all of them in one error, with their values", () => {
    expect(() => parseClipTextConfig({ ...text(), hidden_act: "relu", a_field_of_tomorrow: 1 }, "c")).toThrow(/hidden_act.*a_field_of_tomorrow.*"relu".*1/);
  });
});

describe("a text is pooled", () => {
  const rows = (eos: number, ...texts: number[][]): number[] => {
    const config = parseClipTextConfig({ eos_token_id: eos }, "c");
    return [...(pooledRows(config, hostTensor("i64", [texts.length, texts[0]!.length], texts.flat())).data as Int32Array)];
  };
  test("at its first end-of-text token", () => {
    expect(rows(9, [5, 9, 9, 9], [5, 6, 7, 9], [9, 6, 7, 8])).toEqual([1, 7, 8]);
  });
  test("at its first token if it has none", () => expect(rows(9, [5, 6, 7, 8])).toEqual([0]));
  test("at its first largest id if the end of text is called 2", () => {
    expect(rows(2, [5, 12, 2, 12], [5, 6, 7, 8])).toEqual([1, 7]);
  });
  test("a token that was added after the end of text does not move the end", () => expect(rows(9, [5, 11, 9, 9])).toEqual([2]));
});

test("stored names: both styles of transformers, buffers left out", () => {
  const name = "text_model.encoder.layers.0.mlp.fc1.weight";
  expect([name, "encoder.layers.0.mlp.fc1.weight"].map(clipParameterOf)).toEqual([name, name]);
  expect(["embeddings.token_embedding.weight", "final_layer_norm.bias"].map(clipParameterOf)).toEqual([
    "text_model.embeddings.token_embedding.weight",
    "text_model.final_layer_norm.bias",
  ]);
  for (const buffer of ["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids", "embeddings.position_ids"])
    expect(clipParameterOf(buffer)).toBeUndefined();
  for (const kept of ["logit_scale", "text_projection.weight", "vision_model.pre_layrnorm.weight"]) expect(clipParameterOf(kept)).toBe(kept);
});

test("inputs that do not fit are refused while the graph is built", () => {
  const config = parseClipConfig(full(), "c");
  const params = new Params(declareClip(config, "f32"));
  const build = (ids: number[], rows: number[], mask?: number[]) => () =>
    buildGraph(() => {
      const inputs = { inputIds: input("ids", typed("i32", ...ids)), pooledRows: input("rows", typed("i32", ...rows)) };
      clipText(config.text, params, { ...inputs, ...(mask && { attentionMask: input("mask", typed("f32", ...mask)) }) });
    });
  build([2, 77], [2], [2, 77])();
  expect(build([2, 78], [2])).toThrow(/clip text: expected inputIds \[B, N\] with N <= 77, received \[2, 78\]/);
  expect(build([2, 7], [1])).toThrow(/pooledRows \[2\], received \[1\]/);
  expect(build([2, 7], [2], [2, 8])).toThrow(/attentionMask \[2, 7\], received \[2, 8\]/);
  const look =
    (...shape: number[]) =>
    () =>
      buildGraph(() => void clipVision(config.vision, params, input("x", typed("f32", ...shape))));
  look(1, 56, 56, 3)();
  expect(look(1, 56, 42, 3)).toThrow(/clip vision: expected pixels \[B, 56, 56, 3\]/);
  expect(look(1, 56, 42, 3)).toThrow(ShapeError);
});
