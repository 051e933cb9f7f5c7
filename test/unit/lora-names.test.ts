/** Names of adapters of the published models: which modules there are, what every tool calls them, and that each name finds its module again. */

import { diffusersName, kohyaName, type LoraComponent, LoraNames, type LoraPart } from "../../lib/models/lora-names.js";
import { clipRules } from "../../lib/models/single-file/clip.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { unetComponent } from "../../lib/models/unet-lora.js";
import { adaptUNet, declareUNet } from "../../lib/models/unet-parameters.js";
import { publishedUNets } from "../support/single-file.js";

const up = (n: number): number[] => [...Array(n).keys()];

function unetOf(name: keyof typeof publishedUNets, targets?: readonly string[]): { component: LoraComponent; modules: string[]; tensors: number } {
  const config = parseUNetConfig(publishedUNets[name], name);
  const store = declareUNet(config, "f32");
  const { entries } = adaptUNet(config, store, { rank: 4, ...(targets && { targets }) }).store;
  const modules = [...entries.keys()].filter(n => n.endsWith(".lora.down.weight")).map(n => n.replace(".lora.down.weight", ""));
  return { component: unetComponent(config, store.entries.keys()), modules, tensors: entries.size };
}

/** What sd-scripts adapts in a UNet: all that is linear or 1 x 1 in its transformers. */
const kohyaTargets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"];

const projections = (place: string, depth: number): string[] =>
  up(depth).flatMap(i => ["attn1", "attn2"].flatMap(a => ["to_q", "to_k", "to_v", "to_out.0"].map(p => `${place}.transformer_blocks.${i}.${a}.${p}`)));

describe("attention projections, as diffusers and peft name them", () => {
  test("Stable Diffusion 1.5: 128 modules, 256 tensors", () => {
    const { modules, tensors } = unetOf("sd1");
    const down = [0, 1, 2].flatMap(i => [0, 1].flatMap(j => projections(`down_blocks.${i}.attentions.${j}`, 1)));
    const rise = [1, 2, 3].flatMap(i => [0, 1, 2].flatMap(j => projections(`up_blocks.${i}.attentions.${j}`, 1)));
    const expected = [...down, ...projections("mid_block.attentions.0", 1), ...rise];
    expect([expected.length, tensors]).toEqual([128, 256]);
    expect([...modules].sort()).toEqual([...expected].sort());
  });

  test("SDXL: 560 modules, 1120 tensors", () => {
    const { modules, tensors } = unetOf("sdxl");
    const two = (place: string, n: number, depth: number) => up(n).flatMap(j => projections(`${place}.attentions.${j}`, depth));
    const expected = [
      ...two("down_blocks.1", 2, 2),
      ...two("down_blocks.2", 2, 10),
      ...two("mid_block", 1, 10),
      ...two("up_blocks.0", 3, 10),
      ...two("up_blocks.1", 3, 2),
    ];
    expect([expected.length, tensors]).toEqual([560, 1120]);
    expect([...modules].sort()).toEqual([...expected].sort());
  });
});

describe("what sd-scripts adapts", () => {
  // As its logs count: "create LoRA for U-Net: 192 modules", 722 of SDXL, 72 and 192 of the text encoders.
  test.each([
    ["sd1", 192],
    ["sd2", 192],
    ["sdxl", 722],
  ] as const)("%s: %d modules", (name, count) => {
    expect(unetOf(name, kohyaTargets).modules.length).toBe(count);
  });

  test.each([
    [12, 72],
    [32, 192],
  ])("a text encoder of %d layers: %d modules", (layers, count) => {
    const modules = clipRules(layers).flatMap(({ folder: [name] }) => (/\.layers\..*(proj|fc\d)\.weight$/.test(name!) ? [name!] : []));
    expect(modules.length).toBe(count);
  });

  test("SDXL's modules go by CompVis' names", () => {
    const { component, modules } = unetOf("sdxl");
    const names = modules.map(module => kohyaName(component, module));
    const flat = (place: string, depth: number): string[] => projections(place, depth).map(name => `lora_unet_${name.replaceAll(".", "_")}`);
    const expected = [
      ...[4, 5].flatMap(i => flat(`input_blocks.${i}.1`, 2)),
      ...[7, 8].flatMap(i => flat(`input_blocks.${i}.1`, 10)),
      ...flat("middle_block.1", 10),
      ...[0, 1, 2].flatMap(i => flat(`output_blocks.${i}.1`, 10)),
      ...[3, 4, 5].flatMap(i => flat(`output_blocks.${i}.1`, 2)),
    ];
    expect([...names].sort()).toEqual([...expected].sort());
  });
});

const text: LoraComponent = {
  name: "text_encoder",
  modules: clipRules(2).flatMap(({ folder: [name] }) => (name!.endsWith(".weight") ? [name!.replace(".weight", "")] : [])),
};
const text2: LoraComponent = { ...text, name: "text_encoder_2", modules: [...text.modules, "text_projection"] };
const q = "text_model.encoder.layers.1.self_attn.q_proj";

describe("every name finds its module again", () => {
  test.each(["sd1", "sd2", "sdxl", "refiner"] as const)("the UNet of %s", name => {
    const { component, modules } = unetOf(name, [...kohyaTargets, "conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv"]);
    const names = new LoraNames([component, text]);
    const written = modules.map(module => kohyaName(component, module));
    expect(new Set(written).size).toBe(modules.length);
    const leaves = [
      ["lora_down.weight", "down"],
      ["lora_up.weight", "up"],
      ["alpha", "alpha"],
      ["dora_scale", "magnitude"],
    ] as const;
    for (const module of modules) {
      for (const part of ["down", "up", "magnitude"] as const)
        expect(names.place(diffusersName("unet", module, part))).toEqual({ component: "unet", module, part });
      for (const style of [
        { ...component, kohyaWritesThem: true },
        { ...component, kohyaWritesThem: false },
      ])
        for (const [leaf, part] of leaves) expect(names.place(`${kohyaName(style, module)}.${leaf}`)).toEqual({ component: "unet", module, part });
    }
  });

  test.each<[string, string, LoraPart]>([
    [`text_encoder.${q}.lora_linear_layer.down.weight`, q, "down"],
    [`text_encoder.${q}.lora_B.weight`, q, "up"],
    [`text_encoder.${q}.lora_A.default.weight`, q, "down"],
    ["text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.up.weight", q, "up"],
    ["text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.down.weight", q.replace("q_proj", "out_proj"), "down"],
    [`lora_te_${q.replaceAll(".", "_")}.lora_down.weight`, q, "down"],
    [`lora_te1_${q.replaceAll(".", "_")}.alpha`, q, "alpha"],
    ["lora_te_text_model_encoder_layers_0_mlp_fc1.dora_scale", "text_model.encoder.layers.0.mlp.fc1", "magnitude"],
    [`text_encoder.${q}.lora_magnitude_vector`, q, "magnitude"],
    [`text_encoder.${q}.alpha`, q, "alpha"],
  ])("%s", (stored, module, part) => {
    expect(new LoraNames([text, text2]).place(stored)).toEqual({ component: "text_encoder", module, part });
  });

  test("the second text encoder has names of its own", () => {
    const names = new LoraNames([text, text2]);
    for (const stored of [`text_encoder_2.${q}.lora_A.weight`, `lora_te2_${q.replaceAll(".", "_")}.lora_down.weight`])
      expect(names.place(stored)).toEqual({ component: "text_encoder_2", module: q, part: "down" });
    expect(names.place("text_encoder_2.text_projection.lora.down.weight")?.module).toBe("text_projection");
    expect(diffusersName("text_encoder_2", "text_projection", "up")).toBe("text_encoder_2.text_projection.lora.up.weight");
    expect(diffusersName("text_encoder", q, "up")).toBe(`text_encoder.${q}.lora_linear_layer.up.weight`);
    expect(kohyaName({ ...text, kohyaPrefix: "lora_te1_" }, q)).toBe(`lora_te1_${q.replaceAll(".", "_")}`);
    expect(kohyaName(text, q)).toBe(`lora_te_${q.replaceAll(".", "_")}`);
  });
});

test.each([
  "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
  `text_encoder.${q}.lora_C.weight`,
  "text_encoder.no.such.module.lora_A.weight",
  "lora_te_text_model_encoder_layers_9_mlp_fc1.lora_down.weight",
  `lora_te_${q.replaceAll(".", "_")}.lora_mid.weight`,
  `lora_te_${q.replaceAll(".", "_")}.hada_w1_a`,
  "lora_te__.alpha",
  `${q}.lora_A.weight`, // whose, with two components?
])("%s is no name of these", stored => {
  expect(new LoraNames([text, text2]).place(stored)).toBeUndefined();
});
