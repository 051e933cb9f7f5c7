/** What a user does with CLIP besides the passes that parity proves: files in every style, masks, causality, wrong inputs, saving, closing. */

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeSafetensors } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { ClosedError, ConfigError, DataError, ShapeError, WeightsError } from "../../lib/errors.js";
import { Clip } from "../../lib/models/clip-model.js";
import { ClipText, type ClipTextLoadOptions } from "../../lib/models/clip-text-model.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { dot, expectClose, expectSame, norm, relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";
import { alteredFolder, closedAfterTest, readAll } from "../support/models.js";
import { scratchFolder } from "../support/scratch.js";
import { pseudoRandom } from "../support/unet.js";

const at = scratchFolder();
const keep = closedAfterTest();
const textFolder = join(goldenSet("clip-text-tiny"), "text_encoder");
const projectedFolder = join(goldenSet("clip-text-proj-tiny"), "text_encoder_2");
const fullFolder = join(goldenSet("clip-full-tiny"), "clip");
const configOf = (folder: string): Record<string, unknown> => JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;

let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});
const loadText = async (folder = textFolder, options: Omit<ClipTextLoadOptions, "device"> = {}): Promise<ClipText> =>
  keep(await ClipText.load(folder, { device, ...options }));
const loadFull = async (folder = fullFolder): Promise<Clip> => keep(await Clip.load(folder, { device }));
const altered = (source: string, change: (weights: Map<string, HostTensor>) => void, as = "model"): Promise<string> =>
  alteredFolder(source, at("clip"), { baseName: "model", as, change });

const ids = (...texts: number[][]): HostTensor => hostTensor("i32", [texts.length, texts[0]!.length], texts.flat());
const prompt = ids([998, 5, 6, 7, 999, 999], [998, 15, 999, 999, 999, 999]);
const lastOf = async (model: ClipText, inputIds = prompt): Promise<Float64Array> => numbers((await model.forward({ inputIds })).lastHiddenState);

describe("files", () => {
  test("every missing, unexpected and mismatched tensor is named in one error, under the name of the file", async () => {
    const folder = await altered(textFolder, weights => {
      weights.delete("text_model.final_layer_norm.bias");
      weights.set("text_projection.weight", hostTensor("f32", [20, 32]));
      weights.set("text_model.embeddings.position_embedding.weight", hostTensor("f32", [64, 32]));
    });
    const error = await ClipText.load(folder, { device }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WeightsError);
    expect(error).toMatchObject({
      missing: ["text_model.final_layer_norm.bias"],
      unexpected: ["text_projection.weight"],
      mismatched: [{ name: "text_model.embeddings.position_embedding.weight", expected: "F64/F32/BF16/F16 [77,32]", received: "F32 [64,32]" }],
    });
  });

  test("one parameter under both styles of names is refused", async () => {
    const folder = await altered(textFolder, weights => void weights.set("final_layer_norm.bias", hostTensor("f32", [32])));
    await expect(ClipText.load(folder, { device })).rejects.toThrow(DataError);
    await expect(ClipText.load(folder, { device })).rejects.toThrow(/expected one tensor for text_model\.final_layer_norm\.bias/);
  });

  test("position ids of both towers are left out", async () => {
    const folder = await altered(fullFolder, weights => {
      weights.set("text_model.embeddings.position_ids", hostTensor("i64", [1, 77]));
      weights.set("vision_model.embeddings.position_ids", hostTensor("i64", [1, 17]));
    });
    await loadFull(folder);
  });

  test.each(["f16", "bf16"] as const)("%s: a variant, and shards, have the features of the rounded weights", async dtype => {
    const rounded = new Map(
      [...readAll(join(textFolder, "model.safetensors"))].map(([name, value]) => [name, value.dtype === "i64" ? value : convert(value, dtype)]),
    );
    const place = (folder: string): string => {
      mkdirSync(at(folder));
      copyFileSync(join(textFolder, "config.json"), at(folder, "config.json"));
      return at(folder);
    };
    await writeSafetensors(join(place("wide"), "model.safetensors"), new Map([...rounded].map(([n, v]) => [n, v.dtype === "i64" ? v : convert(v, "f32")])));
    await writeSafetensors(join(place("variant"), "model.fp16.safetensors"), rounded);
    const shards = place("shards");
    const map: Record<string, string> = {};
    for (const shard of [0, 1]) {
      const part = [...rounded].filter((_, i) => i % 2 === shard);
      for (const [name] of part) map[name] = `model-0000${shard + 1}-of-00002.safetensors`;
      await writeSafetensors(join(shards, `model-0000${shard + 1}-of-00002.safetensors`), new Map(part));
    }
    writeFileSync(join(shards, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: map }));
    const expected = await lastOf(await loadText(at("wide")));
    expectSame(await lastOf(await loadText(at("variant"), { variant: "fp16" })), expected, "variant");
    expectSame(await lastOf(await loadText(shards)), expected, "shards");
  });

  test("saved folders are the folders that were loaded", async () => {
    const [text, full] = [await loadText(projectedFolder), await loadFull()];
    await text.save(at("text"));
    await full.save(at("full"));
    expect(configOf(at("text"))).toEqual(configOf(projectedFolder));
    expect(configOf(at("full"))).toEqual(configOf(fullFolder));
    for (const [saved, folder] of [
      ["text", projectedFolder],
      ["full", fullFolder],
    ] as const) {
      const [a, b] = [readAll(at(saved, "model.safetensors")), readAll(join(folder, "model.safetensors"))];
      expect([...a.keys()].sort()).toEqual([...b.keys()].sort());
      for (const [name, value] of b) {
        expect(a.get(name)!.shape).toEqual(value.shape); // logit_scale is []
        expectSame(numbers(a.get(name)!), numbers(value), name);
      }
    }
  });

  test("a model without projection, by choice of the caller", async () => {
    const folder = await altered(projectedFolder, weights => void weights.delete("text_projection.weight"));
    const model = await loadText(folder, { projection: false });
    expect((await model.forward({ inputIds: prompt })).textEmbeds).toBeUndefined();
    await model.save(at("bare"));
    expect(configOf(at("bare")).architectures).toEqual(["CLIPTextModel"]);
    expectSame(await lastOf(await loadText(at("bare"))), await lastOf(model), "features");
  });

  test("random weights: the same for the same seed, and logitScale begins at exp of its init", async () => {
    const seeded = async (seed: number) => lastOf(keep(await ClipText.create(configOf(textFolder), { device, seed })));
    expectSame(await seeded(3), await seeded(3), "features");
    expect(relL2(await seeded(4), await seeded(3))).toBeGreaterThan(0.1);
    const clip = keep(await Clip.create(configOf(fullFolder), { device, dtype: "f64", seed: 3 }));
    expect(await clip.logitScale()).toBeCloseTo(Math.exp(2.6592), 12);
  });
});

describe("text", () => {
  const width = 32;
  const token = (states: Float64Array, i: number): Float64Array => states.subarray(i * width, (i + 1) * width);
  const tokens = [998, 5, 6, 7, 8, 999];
  const text = async (model: ClipText, list: number[], mask?: number[]): Promise<Float64Array> => {
    const attentionMask = mask && hostTensor("i64", [1, mask.length], mask);
    return numbers((await model.forward({ inputIds: ids(list), attentionMask })).lastHiddenState);
  };

  test("a token sees those before it and none after", async () => {
    const model = await loadText(textFolder, { dtype: "f64" });
    const [before, after] = [await text(model, tokens), await text(model, tokens.with(3, 70))];
    expectSame(after.subarray(0, 3 * width), before.subarray(0, 3 * width), "tokens before the change");
    for (const i of [3, 4, 5]) expect(relL2(token(after, i), token(before, i))).toBeGreaterThan(1e-4);
  });

  test("no token sees one that is masked, but for itself by way of the residual", async () => {
    const model = await loadText(textFolder, { dtype: "f64" });
    const mask = [1, 1, 1, 0, 1, 1];
    const [before, after] = [await text(model, tokens, mask), await text(model, tokens.with(3, 70), mask)];
    for (const i of [0, 1, 2, 4, 5]) expectSame(token(after, i), token(before, i), `token ${i}`);
    expect(relL2(token(after, 3), token(before, 3))).toBeGreaterThan(1e-4);
    expectClose(await text(model, tokens, [1, 1, 1, 1, 1, 1]), await text(model, tokens), 1e-15, "a mask of ones");
  });

  test("a text whose first tokens are masked stays finite", async () => {
    const states = await text(await loadText(), tokens, [0, 0, 1, 1, 1, 1]);
    expect(states.every(Number.isFinite)).toBe(true);
  });

  test("hidden states by index, from either end", async () => {
    const model = await loadText();
    const { hiddenStates } = await model.forward({ inputIds: prompt }, { hiddenStates: [0, -4, 3, -1, -2, 2] });
    const [first, alsoFirst, last, alsoLast, penultimate, alsoPenultimate] = hiddenStates.map(numbers);
    expectSame(first!, alsoFirst!, "0 and -4");
    expectSame(last!, alsoLast!, "3 and -1");
    expectSame(penultimate!, alsoPenultimate!, "2 and -2");
    await expect(model.forward({ inputIds: prompt }, { hiddenStates: [4] })).rejects.toThrow(
      /ClipText\.forward: expected hiddenStates to be whole numbers in \[-4, 3\], received 4/,
    );
    await expect(model.forward({ inputIds: prompt }, { clipSkip: 4 })).rejects.toThrow(/clipSkip to be a whole number in \[0, 3\]/);
    await expect(model.forward({ inputIds: prompt }, { clipSkip: 0.5 })).rejects.toThrow(ConfigError);
  });

  test("inputs that do not fit are named", async () => {
    const model = await loadText();
    const run = (inputIds: HostTensor, attentionMask?: HostTensor) => model.forward({ inputIds, attentionMask });
    await expect(run(hostTensor("i32", [77]))).rejects.toThrow(/ClipText\.forward: expected inputIds \[B, N\] with N <= 77, received \[77\]/);
    await expect(run(hostTensor("i32", [1, 78]))).rejects.toThrow(ShapeError);
    await expect(run(prompt, hostTensor("i32", [2, 5]))).rejects.toThrow(/expected attentionMask \[2, 6\], received \[2, 5\]/);
    await expect(run(ids([998, 1000, 999]))).rejects.toThrow(/ids in \[0, 1000\), received 1000/);
    await expect(model.lossAndGrads({ inputIds: prompt, cotangents: {} })).rejects.toThrow(
      /cotangents to be given for at least one of lastHiddenState, pooled, received \[\]/,
    );
    await expect(model.lossAndGrads({ inputIds: prompt, cotangents: { textEmbeds: hostTensor("f32", [2, 20]) } })).rejects.toThrow(ConfigError);
  });
});

describe("texts and pictures", () => {
  test("embeddings are unit vectors, and a pair's logit does not depend on its company", async () => {
    const model = await loadFull();
    const pixels = pseudoRandom([3, 3, 56, 56]);
    const all = await model.forward({ inputIds: prompt, pixels });
    const embeds = numbers(all.imageEmbeds);
    for (let i = 0; i < 3; i++) expect(norm(embeds.subarray(28 * i, 28 * (i + 1)))).toBeCloseTo(1, 6);
    const text = numbers(await model.encodeText({ inputIds: ids([998, 15, 999, 999, 999, 999]) }));
    const second = hostTensor("f32", [1, 3, 56, 56], pixels.data.slice(3 * 56 * 56, 2 * 3 * 56 * 56) as Float32Array);
    const image = numbers((await model.encodeImage(second)).imageEmbeds);
    const logit = numbers(all.logitsPerImage)[1 * 2 + 1]!;
    expect(Math.abs(dot(text, image) * (await model.logitScale()) - logit)).toBeLessThan(1e-5 * (await model.logitScale()));
  });

  test("inputs that do not fit are named", async () => {
    const model = await loadFull();
    await expect(model.encodeImage(pseudoRandom([1, 56, 56, 3]))).rejects.toThrow(
      /Clip\.encodeImage: expected pixels \[I, 3, 56, 56\], received \[1, 56, 56, 3\]/,
    );
    await expect(model.forward({ inputIds: prompt, pixels: pseudoRandom([1, 3, 28, 28]) })).rejects.toThrow(ShapeError);
    await expect(model.lossAndGrads({ inputIds: prompt, pixels: pseudoRandom([1, 3, 56, 56]), cotangents: {} })).rejects.toThrow(
      /at least one of logitsPerImage/,
    );
    await expect(model.encodeImage(pseudoRandom([1, 3, 56, 56]), { hiddenStates: [9] })).rejects.toThrow(/hiddenStates/);
  });

  test("config and dtype are checked before weights; a closed model says so; a signal stops it", async () => {
    await expect(Clip.load(at("absent"), { device, dtype: "bf16" })).rejects.toThrow(/Clip\.load: expected dtype/);
    await expect(ClipText.load(at("absent"), { device, dtype: "bf16" })).rejects.toThrow(/ClipText\.load: expected dtype/);
    await expect(ClipText.load(fullFolder, { device })).rejects.toThrow(/model_type/);
    await expect(Clip.load(textFolder, { device })).rejects.toThrow(/model_type/);
    const [text, full] = [await loadText(), await loadFull()];
    expect([text.store.trainable, full.store.trainable]).toEqual([false, false]);
    await expect(text.forward({ inputIds: prompt }, { signal: AbortSignal.abort("no") })).rejects.toBe("no");
    for (const model of [text, full]) await model.close();
    await expect(text.forward({ inputIds: prompt })).rejects.toThrow("ClipText was closed");
    await expect(full.encodeText({ inputIds: prompt })).rejects.toThrow(ClosedError);
    await expect(full.logitScale()).rejects.toThrow("Clip was closed");
  });
});
