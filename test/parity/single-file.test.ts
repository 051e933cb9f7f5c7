/** Single-file checkpoints: names as diffusers' own conversion scripts have them, configs told from shapes alone, and tiny models there and back bit for bit. */

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TensorFile } from "../../lib/data/safetensors.js";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { ConfigError, DataError, WeightsError } from "../../lib/errors.js";
import { clipRules } from "../../lib/models/single-file/clip.js";
import { detectOpenClipConfig, openClipRules } from "../../lib/models/single-file/open-clip.js";
import type { Family, PartName } from "../../lib/models/single-file/parts.js";
import { moduleRules, type TensorRule } from "../../lib/models/single-file/rules.js";
import { detectUNetConfig, unetRules } from "../../lib/models/single-file/unet.js";
import { detectVaeConfig, vaeRules } from "../../lib/models/single-file/vae.js";
import { toDiffusers, toSingleFile } from "../../lib/models/single-file.js";
import { parseUNetConfig } from "../../lib/models/unet-config.js";
import { declareUNet } from "../../lib/models/unet-parameters.js";
import { type HostTensor, hostTensor, outsideShape } from "../../lib/util/host-tensor.js";
import { goldenSet } from "../support/goldens.js";
import { torchArchive } from "../support/pickle.js";
import { scratchFolder } from "../support/scratch.js";
import { type Json, type Parts, publishedUNets, readAll, readJson, tinyFolder as tinyFolderOf } from "../support/single-file.js";

const at = scratchFolder();
const models = {
  vae: join(goldenSet("vae-tiny"), "vae"),
  text_encoder: join(goldenSet("clip-text-tiny"), "text_encoder"),
  text_encoder_2: join(goldenSet("clip-text-proj-tiny"), "text_encoder_2"),
};
const tinyFolder = (folder: string, unet: string, parts: Parts): Promise<void> => tinyFolderOf(folder, unet, parts, models);
type Published = keyof typeof publishedUNets;
const published = (name: Published) => parseUNetConfig(publishedUNets[name], name);

/** Rules for tensors that a model has: those that are optional only if it has them. */
const present = (rules: readonly TensorRule[], has: (name: string) => boolean): TensorRule[] => rules.filter(rule => !rule.optional || has(rule.folder[0]!));
const unetPairs = (name: Published): TensorRule[] => {
  const { entries } = declareUNet(published(name), "f32");
  const rules = present(unetRules(published(name)), folder => entries.has(folder));
  expect(new Set(rules.map(rule => rule.folder[0]))).toEqual(new Set(entries.keys()));
  return rules;
};
const digest = (rules: readonly TensorRule[]): string =>
  createHash("sha256")
    .update(
      rules
        .map(({ folder, file }) => `${folder[0]} ${file}`)
        .sort()
        .join("\n"),
    )
    .digest("hex");

describe("names", () => {
  // Counts are those of the published files. Digests are of "<folder's name> <file's name>" lines as diffusers' convert_diffusers_to_original_stable_diffusion.py and
  // ..._sdxl.py rename them.
  test.each<[Published, number, string]>([
    ["sd1", 686, "21c10c171ca3141695e08ea82871176830a4468dec9ac9a7440994076e8dbe32"],
    ["inpaint", 686, "21c10c171ca3141695e08ea82871176830a4468dec9ac9a7440994076e8dbe32"],
    ["sd2", 686, "21c10c171ca3141695e08ea82871176830a4468dec9ac9a7440994076e8dbe32"],
    ["sdxl", 1680, "e590641044d01d4d03ff85cb1fa86d6d1e0afb2e8106f2f694e66f33cf230834"],
    ["refiner", 1220, ""],
  ])("the UNet of %s", (name, count, sha256) => {
    const rules = unetPairs(name);
    expect(rules.length).toBe(count);
    expect(new Set(rules.map(rule => rule.file)).size).toBe(count);
    if (sha256) expect(digest(rules)).toBe(sha256);
  });

  test("the autoencoder", () => {
    const rules = present(
      vaeRules({ levels: 4, layers: 2 }),
      name => !/conv_shortcut/.test(name) || /(encoder.down_blocks.[12]|decoder.up_blocks.[23]).resnets.0/.test(name),
    );
    expect(rules.length).toBe(248);
    expect(digest(rules)).toBe("53e32bb24c5f7e600c0a6075d0d94da45b3ec2073cac7cb65dc79c35e87bd1f7");
  });

  test("the text encoders", () => {
    expect(clipRules(12).length).toBe(197); // with position_ids
    const bigG = openClipRules(32, { projection: true }).filter(rule => !rule.optional);
    expect([bigG.length, bigG.flatMap(rule => rule.folder).length]).toEqual([389, 517]);
    const layer = bigG.filter(rule => rule.file.startsWith("transformer.resblocks.31.attn.in_proj_weight"));
    expect(layer).toEqual([
      {
        folder: ["q", "k", "v"].map(p => `text_model.encoder.layers.31.self_attn.${p}_proj.weight`),
        file: "transformer.resblocks.31.attn.in_proj_weight",
        how: "stacked",
        optional: false,
      },
    ]);
  });
});

/** A file of which only names and shapes exist. */
function shapesOnly(tensors: Iterable<[string, readonly number[]]>): TensorFile {
  const unread = (): never => {
    throw new Error("only shapes are to be read");
  };
  const entries = [...tensors].map(([name, shape]) => [name, { dtype: "F16" as const, shape, begin: 0, end: 0 }] as const);
  return { source: "shapes", metadata: new Map(), tensors: new Map(entries), tensor: unread, place: unread, close: () => undefined };
}

describe("configs told from shapes", () => {
  test.each(Object.keys(publishedUNets) as Published[])("the UNet of %s", name => {
    const { entries } = declareUNet(published(name), "f32");
    const shapeOf = (folder: string): readonly number[] => outsideShape(entries.get(folder)!.shape, entries.get(folder)!.layout);
    const file = shapesOnly(unetPairs(name).map(rule => [`model.diffusion_model.${rule.file}`, shapeOf(rule.folder[0]!)]));
    const detected = detectUNetConfig(file);
    expect(detected).toMatchObject({ ...publishedUNets[name], layers_per_block: 2, norm_num_groups: 32, out_channels: 4 });
    expect({ ...parseUNetConfig(detected, name), json: undefined }).toEqual({ ...published(name), json: undefined });
  });

  test("widths that are not published ones have to be given", () => {
    const rules = unetPairs("sd1").map((rule): [string, number[]] => [`model.diffusion_model.${rule.file}`, [24, 24, 3, 3]]);
    expect(() => detectUNetConfig(shapesOnly(rules))).toThrow(ConfigError);
  });

  test("an autoencoder", () => {
    const side = (name: string): [string, number[]][] => [64, 128].map((c, i) => [`first_stage_model.${name}.${i}.block.0.conv1.weight`, [c, c, 3, 3]]);
    const more: [string, number[]][] = [
      ["encoder.conv_in.weight", [64, 3, 3, 3]],
      ["decoder.conv_in.weight", [128, 16, 3, 3]],
      ["decoder.conv_out.weight", [3, 64, 3, 3]],
      ["encoder.down.0.block.1.conv1.weight", [64, 64, 3, 3]],
    ];
    const file = shapesOnly([...side("encoder.down"), ...more.map(([name, shape]): [string, number[]] => [`first_stage_model.${name}`, shape])]);
    expect(detectVaeConfig(file, { scalingFactor: 0.5, sampleSize: 8 })).toMatchObject({
      block_out_channels: [64, 128],
      layers_per_block: 2,
      latent_channels: 16,
      in_channels: 3,
      out_channels: 3,
      scaling_factor: 0.5,
      use_quant_conv: false,
    });
  });

  test("SD 2's text encoder leaves its last layer out", () => {
    const names = ["token_embedding.weight", "positional_embedding", ...Array.from({ length: 24 }, (_, i) => `transformer.resblocks.${i}.mlp.c_fc.weight`)];
    const file = shapesOnly(
      names.map((name): [string, number[]] => [`cond_stage_model.model.${name}`, name === "positional_embedding" ? [77, 1024] : [4096, 1024]]),
    );
    const config = detectOpenClipConfig(file, "cond_stage_model.model.", { projection: false });
    expect(config).toMatchObject({ num_hidden_layers: 23, hidden_size: 1024, num_attention_heads: 16, intermediate_size: 4096, hidden_act: "gelu" });
  });
});

const tiny: readonly [string, Family, string, Parts][] = [
  ["sd 1", "sd1", "unet-sd-tiny", ["vae", "text_encoder"]],
  ["sd 1 for inpainting", "sd1", "unet-inpaint-tiny", ["vae", "text_encoder"]],
  ["sd 2", "sd2", "unet-sd2-tiny", ["vae", "sd2 text_encoder"]],
  ["sdxl", "sdxl", "unet-sdxl-tiny", ["vae", "text_encoder", "text_encoder_2"]],
  ["sdxl refiner", "sdxl-refiner", "unet-sdxl-tiny", ["vae", "text_encoder_2"]],
  ["a UNet alone", "sd1", "unet-sd-tiny", []],
];

const configsOf = (folder: string): Partial<Record<PartName, Json>> =>
  Object.fromEntries(
    ["unet", "vae", "text_encoder", "text_encoder_2"].flatMap(name =>
      existsSync(join(folder, name)) ? [[name, readJson(join(folder, name, "config.json"))]] : [],
    ),
  );
const weightsIn = (folder: string, part: string): Map<string, HostTensor> =>
  readAll(join(folder, part, part.startsWith("text") ? "model.safetensors" : "diffusion_pytorch_model.safetensors"));
const bytes = (t: HostTensor): string =>
  `${t.dtype} [${t.shape}] ${createHash("sha256")
    .update(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength))
    .digest("hex")}`;

function expectSameFolders(actual: string, expected: string, parts: readonly string[]): void {
  for (const part of parts) {
    const [a, b] = [weightsIn(actual, part), weightsIn(expected, part)];
    expect([...a].map(([name, t]) => `${name} ${bytes(t)}`).sort()).toEqual([...b].map(([name, t]) => `${name} ${bytes(t)}`).sort());
    expect(readJson(join(actual, part, "config.json"))).toEqual(readJson(join(expected, part, "config.json")));
  }
}

describe.each(tiny)("%s", (_, family, unet, parts) => {
  const given = { predictionType: "epsilon" } as const;
  const names = ["unet", ...parts.map(part => part.replace("sd2 ", ""))];

  test("folder -> file -> folder is the same, bit for bit; so is the file from it", async () => {
    await tinyFolder(at("in"), unet, parts);
    expect(await toSingleFile(at("in"), at("one.safetensors"))).toEqual({ family, parts: names });
    const conversion = await toDiffusers(at("one.safetensors"), at("out"), { ...given, configs: configsOf(at("in")) });
    expect(conversion).toEqual({ family, parts: names, ignored: [] });
    expectSameFolders(at("out"), at("in"), names);
    await toSingleFile(at("out"), at("two.safetensors"));
    expect(readFileSync(at("two.safetensors")).equals(readFileSync(at("one.safetensors")))).toBe(true);
    expect(readdirSync(at())).toEqual(["in", "one.safetensors", "out", "two.safetensors"]);
    expect(readJson(at("out", "scheduler", "scheduler_config.json"))).toMatchObject({ beta_schedule: "scaled_linear", prediction_type: "epsilon" });
  });
});

describe("layouts that differ", () => {
  test("fused projections, transposed projection, 1 x 1 convolutions", async () => {
    await tinyFolder(at("in"), "unet-sdxl-tiny", ["vae", "text_encoder", "text_encoder_2"]);
    await toSingleFile(at("in"), at("f.safetensors"));
    const file = readAll(at("f.safetensors"));
    const folder = weightsIn(at("in"), "text_encoder_2");
    const fused = file.get("conditioner.embedders.1.model.transformer.resblocks.2.attn.in_proj_weight")!;
    const parts = ["q", "k", "v"].map(p => folder.get(`text_model.encoder.layers.2.self_attn.${p}_proj.weight`)!);
    expect(fused.shape).toEqual([72, 24]);
    expect([...(fused.data as Float32Array)]).toEqual(parts.flatMap(part => [...(part.data as Float32Array)]));
    const [own, stored] = [folder.get("text_projection.weight")!, file.get("conditioner.embedders.1.model.text_projection")!];
    expect([own.shape, stored.shape]).toEqual([
      [20, 24],
      [24, 20],
    ]);
    expect(stored.data[3 * 20 + 7]).toBe(own.data[7 * 24 + 3]);
    expect(file.get("first_stage_model.decoder.mid.attn_1.q.weight")!.shape).toEqual([16, 16, 1, 1]);
    expect(file.get("first_stage_model.decoder.mid.attn_1.q.bias")!.shape).toEqual([16]);
    expect(file.has("first_stage_model.decoder.up.3.block.0.conv1.weight")).toBe(true);
    expect(file.has("conditioner.embedders.0.transformer.text_model.final_layer_norm.weight")).toBe(true);
  });

  test("a .ckpt of torch.save with averages, an optimizer's leavings, and text encoder names without text_model", async () => {
    await tinyFolder(at("in"), "unet-sd-tiny", ["text_encoder"]);
    await toSingleFile(at("in"), at("f.safetensors"));
    const tensors = new Map([...readAll(at("f.safetensors"))].map(([name, t]) => [name.replace("transformer.text_model.", "transformer."), t]));
    for (const [name, t] of [...tensors])
      if (name.startsWith("model.diffusion_model."))
        tensors.set(`model_ema.${name.slice("model.".length).replaceAll(".", "")}`, { ...t, data: (t.data as Float32Array).map(x => x + 1) });
    tensors.set("alphas_cumprod", hostTensor("f32", [2], [1, 2]));
    writeFileSync(at("f.ckpt"), torchArchive(tensors));
    const configs = configsOf(at("in"));
    const last = await toDiffusers(at("f.ckpt"), at("last"), { configs });
    expectSameFolders(at("last"), at("in"), ["unet", "text_encoder"]);
    expect(last.ignored).toContain("alphas_cumprod");
    expect(last.ignored.filter(name => !name.startsWith("model_ema."))).toEqual(["alphas_cumprod"]);
    await toDiffusers(at("f.ckpt"), at("ema"), { configs, ema: true });
    const [a, b] = [weightsIn(at("ema"), "unet"), weightsIn(at("in"), "unet")];
    for (const [name, { data }] of a) expect((data as Float32Array)[0]).toBe(Math.fround((b.get(name)!.data as Float32Array)[0]! + 1));
  });

  test("names of older libraries", async () => {
    await tinyFolder(at("in"), "unet-sd-tiny", ["vae", "text_encoder"]);
    await toSingleFile(at("in"), at("now.safetensors"));
    const vae = weightsIn(at("in"), "vae");
    const old = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
    const renamed = [...vae].map(([name, t]): [string, HostTensor] => [
      Object.entries(old).reduce((n, [a, b]) => n.replace(`attentions.0.${a}.`, `attentions.0.${b}.`), name),
      t,
    ]);
    expect(renamed.some(([name]) => name.includes("proj_attn"))).toBe(true);
    await writeSafetensors(at("in", "vae", "diffusion_pytorch_model.safetensors"), new Map(renamed));
    const text = [...weightsIn(at("in"), "text_encoder")].map(([name, t]): [string, HostTensor] => [name.replace("text_model.", ""), t]);
    await writeSafetensors(at("in", "text_encoder", "model.safetensors"), new Map(text));
    await toSingleFile(at("in"), at("then.safetensors"));
    expect(readFileSync(at("then.safetensors")).equals(readFileSync(at("now.safetensors")))).toBe(true);
  });
});

describe("refused, with nothing left behind", () => {
  const checkpoint = async (change: (tensors: Map<string, HostTensor>) => void): Promise<string> => {
    await tinyFolder(at("in"), "unet-sd-tiny", ["vae"]);
    await toSingleFile(at("in"), at("f.safetensors"));
    const tensors = readAll(at("f.safetensors"));
    change(tensors);
    await writeSafetensors(at("f.safetensors"), tensors);
    return at("f.safetensors");
  };
  const convert = (file: string, more = {}) => toDiffusers(file, at("out"), { configs: configsOf(at("in")), ...more });
  const nothing = (): void => expect(readdirSync(at()).sort()).toEqual(["f.safetensors", "in"]);

  test("missing and mismatched tensors, all of them by name", async () => {
    const lost = ["out.2.bias", "input_blocks.1.0.in_layers.0.weight"].map(name => `model.diffusion_model.${name}`);
    const file = await checkpoint(tensors => lost.map(name => tensors.delete(name)));
    const error = (await convert(file).catch((e: unknown) => e)) as WeightsError;
    expect(error).toBeInstanceOf(WeightsError);
    expect([...error.missing].sort()).toEqual([...lost].sort());
    nothing();
  });

  test("a shape that is not the model's", async () => {
    const file = await checkpoint(tensors => tensors.set("model.diffusion_model.out.2.bias", hostTensor("f32", [5])));
    await expect(convert(file)).rejects.toThrow(/conv_out\.bias: expected \[4\], received \[5\]/);
    nothing();
  });

  test("a file of another layout, an averaged model that is not there, a prediction that nobody knows", async () => {
    const file = await checkpoint(() => undefined);
    await expect(convert(file, { ema: true })).rejects.toThrow(WeightsError);
    nothing();
    await writeSafetensors(at("f.safetensors"), { "transformer.x": hostTensor("f32", [1]) });
    await expect(convert(file)).rejects.toThrow(DataError);
    nothing();
    await tinyFolder(at("in2"), "unet-sd2-tiny", []);
    await toSingleFile(at("in2"), at("f.safetensors"));
    await expect(toDiffusers(file, at("out"), { configs: configsOf(at("in2")) })).rejects.toThrow(/predictionType/);
    expect(existsSync(at("out"))).toBe(false);
  });

  test("an abort on the way, and a folder that exists", async () => {
    const file = await checkpoint(() => undefined);
    const controller = new AbortController();
    const onProgress = (done: number, total: number): void => {
      expect(total).toBe(readSafetensorsCount(file));
      if (done === 5) controller.abort("enough");
    };
    await expect(convert(file, { signal: controller.signal, onProgress })).rejects.toBe("enough");
    nothing();
    await expect(toDiffusers(file, at("in"), {})).rejects.toThrow(/a path where nothing is yet/);
  });

  test("a config that speaks of layers without end", async () => {
    await tinyFolder(at("in"), "unet-sd-tiny", ["vae", "text_encoder"]);
    for (const [part, field] of [
      ["text_encoder", "num_hidden_layers"],
      ["vae", "layers_per_block"],
    ] as const) {
      const path = join(at("in"), part, "config.json");
      const config = readJson(path);
      writeFileSync(path, JSON.stringify({ ...config, [field]: 1e9 }));
      await expect(toSingleFile(at("in"), at("f.safetensors"))).rejects.toThrow(new RegExp(`${field} to be a whole number in`));
      writeFileSync(path, JSON.stringify(config));
    }
  });

  test("a folder with tensors that its config does not know, or without a unet", async () => {
    await tinyFolder(at("in"), "unet-sd-tiny", []);
    const weights = weightsIn(at("in"), "unet");
    weights.set("controlnet.x", hostTensor("f32", [1]));
    await writeSafetensors(at("in", "unet", "diffusion_pytorch_model.safetensors"), weights);
    await expect(toSingleFile(at("in"), at("f.safetensors"))).rejects.toThrow(/1 unexpected \(controlnet\.x\)/);
    await expect(toSingleFile(at(), at("f.safetensors"))).rejects.toThrow(/expected unet\/config\.json/);
    expect(existsSync(at("f.safetensors"))).toBe(false);
  });
});

function readSafetensorsCount(path: string): number {
  const file = readSafetensors(path);
  file.close();
  return file.tensors.size;
}

test("rules of a module are of its weight and bias", () => {
  expect(moduleRules("a", "b", { bias: false })).toEqual([{ folder: ["a.weight"], file: "b.weight", how: "same", optional: false }]);
});
