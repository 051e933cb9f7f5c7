/** Adapters on a model: several at once, folded in and taken out, DoRA, and files of every kind there and back. Truth is W' = W + sum of changes, formed here in float64. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { WeightsError } from "../../lib/errors.js";
import { readParameter, writeParameter } from "../../lib/models/load.js";
import { readLora } from "../../lib/models/lora-file.js";
import { type WrittenAdapter, writeLora } from "../../lib/models/lora-write.js";
import { UNet } from "../../lib/models/unet-model.js";
import { LoraAdapter } from "../../lib/nn/lora.js";
import { ParameterStore } from "../../lib/nn/params.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, expectSame, relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";
import { readAll } from "../support/single-file.js";
import { closedAfterTest, pseudoRandom, smallInputs } from "../support/unet.js";

const at = scratchFolder();
const keep = closedAfterTest();
const base = join(goldenSet("unet-sd-tiny"), "unet");
const run = join(goldenSet("train-run"), "dpo-lora");
const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;

let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});
const model = async (dtype: "f32" | "f64" = "f64"): Promise<UNet> => keep(await UNet.load(base, { device, dtype }));
const output = async (unet: UNet): Promise<Float64Array> => numbers(await unet.forward(smallInputs()));
/** Gradual rounding of a few hundred float64 sums. */
const rounding = 1e-12;

const query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const conv = "mid_block.resnets.0.conv1";
const pointwise = "down_blocks.1.attentions.0.proj_in";

interface Pair {
  readonly down: HostTensor;
  readonly up: HostTensor;
  /** alpha / rank, or what stands for it. */
  readonly scaling: number;
  readonly magnitude?: HostTensor;
}
const shapeOf = (unet: UNet, module: string): number[] => {
  const [outputs, ...rest] = unet.store.entries.get(`${module}.weight`)!.shape;
  return rest.length === 1 ? [outputs!, ...rest] : [outputs!, rest[2]!, rest[0]!, rest[1]!];
};
function pair(unet: UNet, module: string, rank: number, salt: number, scaling: number): Pair {
  const [outputs, ...rest] = shapeOf(unet, module);
  const conv = rest.length === 3;
  return { down: pseudoRandom([rank, ...rest], salt), up: pseudoRandom(conv ? [outputs!, rank, 1, 1] : [outputs!, rank], salt + 1), scaling };
}
const modules = [query, conv, pointwise];
/** Three modules, linear, 3 x 3 and 1 x 1, of ranks 2 and 3. */
const adapterOf = (unet: UNet, salt: number): Map<string, Pair> =>
  new Map(modules.map((m, i) => [m, pair(unet, m, i === 1 ? 3 : 2, salt + 10 * i, i === 1 ? 0.5 : 2)]));

/** The change of one module's weight, in checkpoint order: scaling * B A, or of DoRA m V / |V| - W with V = W + scaling * B A. */
function change(weight: Float64Array, { down, up, scaling, magnitude }: Pair, strength: number): Float64Array {
  const [rank, outputs] = [down.shape[0]!, up.shape[0]!];
  const [a, b] = [numbers(down), numbers(up)];
  const columns = a.length / rank;
  const moved = Float64Array.from({ length: outputs * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += b[row * rank + r]! * a[r * columns + column]!;
    return strength * scaling * sum;
  });
  if (!magnitude) return moved;
  const m = numbers(magnitude);
  const whole = moved.map((x, i) => weight[i]! + x);
  return whole.map((x, i) => {
    const row = Math.floor(i / columns);
    const norm = Math.hypot(...whole.subarray(row * columns, (row + 1) * columns));
    return (m[row]! / norm) * x - weight[i]!;
  });
}

/** A model whose weights have the adapters in them. */
async function merged(adapters: readonly (readonly [ReadonlyMap<string, Pair>, number])[]): Promise<UNet> {
  const unet = await model();
  for (const module of modules) {
    const entry = unet.store.entries.get(`${module}.weight`)!;
    const weight = await readParameter(unet.session, unet.store, entry);
    const total = numbers(weight).slice();
    for (const [adapter, strength] of adapters)
      if (adapter.has(module)) for (const [i, x] of change(numbers(weight), adapter.get(module)!, strength).entries()) total[i] = total[i]! + x;
    writeParameter(unet.session, unet.store, entry, hostTensor("f64", weight.shape, total));
  }
  return unet;
}

/** As diffusers would write it: alphas by pattern. */
async function written(path: string, adapter: ReadonlyMap<string, Pair>): Promise<string> {
  const tensors = new Map<string, HostTensor>();
  const alphas: Record<string, number> = {};
  for (const [module, { down, up, scaling, magnitude }] of adapter) {
    tensors.set(`unet.${module}.lora_A.weight`, down).set(`unet.${module}.lora_B.weight`, up);
    if (magnitude) tensors.set(`unet.${module}.lora_magnitude_vector`, magnitude);
    alphas[module] = scaling * down.shape[0]!;
  }
  await writeSafetensors(path, tensors, { lora_adapter_metadata: JSON.stringify({ "unet.alpha_pattern": alphas }) });
  return path;
}

describe("several adapters", () => {
  test("applied together are the sum of their changes, at the strengths that are set", async () => {
    const unet = await model();
    const plain = await output(unet);
    const [one, two] = [adapterOf(unet, 1), adapterOf(unet, 50)];
    await unet.loadLora(await written(at("one.safetensors"), one), { name: "one", strength: 0.5 });
    expectClose(await output(unet), await output(await merged([[one, 0.5]])), rounding, "one");
    await unet.loadLora(await written(at("two.safetensors"), two), { name: "two", strength: -1 });
    const both = await output(unet);
    await expect(unet.lossAndGrads({ ...smallInputs(), cotangent: pseudoRandom([2, 4, 8, 8]) })).rejects.toThrow(/at most one that is applied, received 2/);
    expectClose(
      both,
      await output(
        await merged([
          [one, 0.5],
          [two, -1],
        ]),
      ),
      rounding,
      "both",
    );
    expect(relL2(both, plain)).toBeGreaterThan(1e-3);
    unet.setAdapters({ two: 0.25 });
    expectClose(await output(unet), await output(await merged([[two, 0.25]])), rounding, "two");
    unet.setAdapters({ two: -1, one: 0.5 });
    expectClose(await output(unet), both, rounding, "in the other order");
    unet.setAdapters({});
    expectSame(await output(unet), plain, "none");
    expect(unet.adapter).toBeUndefined();
    expect([...unet.adapters.all.keys()]).toEqual(["one", "two"]);
    unet.adapters.remove("one");
    await unet.loadLora(at("one.safetensors"), { name: "one" });
    expectClose(await output(unet), await output(await merged([[one, 1]])), rounding, "one again");
  });

  test("names that are not there or there twice", async () => {
    const unet = await model("f32");
    await unet.addLora({ rank: 2 }, { seed: 1, name: "a" });
    expect(() => unet.setAdapters({ b: 1 })).toThrow(/expected the adapter to be one of a, received "b"/);
    expect(() => unet.setAdapters({ a: Number.NaN })).toThrow(/strength/);
    await expect(unet.addLora({ rank: 2 }, { seed: 1, name: "a" })).rejects.toThrow(/one without an adapter "a"/);
    await expect(unet.saveLora(at("x"), { name: "b" })).rejects.toThrow(/expected the model to be one with an adapter "b", received "a"/);
    await unet.addLora({ rank: 2 }, { seed: 1, name: "b" });
    await expect(unet.saveLora(at("x"))).rejects.toThrow(/one with one adapter, received "a, b"/);
  });
});

describe("fused", () => {
  test.each(["f64", "f32"] as const)("in %s a model predicts as before within rounding, and unfused has every bit of its weights back", async dtype => {
    const unet = await model(dtype);
    const weights = async (): Promise<string[]> => {
      const all = [...unet.store.entries.values()].map(async entry => {
        const { data } = await readParameter(unet.session, unet.store, entry);
        return `${entry.name} ${createHash("sha256").update(new Uint8Array(data.buffer)).digest("hex")}`;
      });
      return Promise.all(all);
    };
    const before = await weights();
    await unet.loadLora(await written(at("one.safetensors"), adapterOf(unet, 1)), { name: "one", strength: 0.5 });
    await unet.loadLora(await written(at("two.safetensors"), adapterOf(unet, 50)), { name: "two" });
    const unmerged = await output(unet);
    await unet.fuseLora();
    expectClose(await output(unet), unmerged, dtype === "f64" ? rounding : 5e-6, "fused");
    expect(unet.adapter).toBeUndefined();
    const fused = await weights();
    expect(
      fused
        .filter((line, i) => line !== before[i])
        .map(line => line.split(" ")[0])
        .sort(),
    ).toEqual(modules.map(m => `${m}.weight`).sort());
    await expect(unet.fuseLora()).rejects.toThrow(/not fused/);
    expect(() => unet.adapters.remove("one")).toThrow(/not fused/);
    expect(() => unet.setAdapters({ one: 1 })).toThrow(/not fused/);
    await unet.unfuseLora();
    expect(await weights()).toEqual(before);
    expectSame(await output(unet), unmerged, "unfused");
    await expect(unet.unfuseLora()).rejects.toThrow(/one with fused adapters/);
  });

  test("two modules of a trained adapter are what peft merges them to", async () => {
    const unet = await model();
    await unet.loadLora(join(run, "lora_final"));
    await unet.fuseLora();
    const truth = [...readAll(join(run, "forward.safetensors"))].filter(([name]) => name.startsWith("merged."));
    expect(truth.length).toBe(2);
    for (const [name, value] of truth) {
      const entry = unet.store.entries.get(name.slice("merged.".length))!;
      // The adapter's file is float32: its rounding is all that differs.
      expectClose(numbers(await readParameter(unet.session, unet.store, entry)), numbers(value), 1e-7, name);
    }
  });
});

describe("DoRA", () => {
  const decomposed = (unet: UNet, salt: number): Map<string, Pair> =>
    new Map(
      [...adapterOf(unet, salt)].map(([m, p]) => [
        m,
        { ...p, magnitude: hostTensor("f32", [p.up.shape[0]!], [...numbers(pseudoRandom([p.up.shape[0]!], salt)).map(x => 1 + x / 2)]) },
      ]),
    );

  test.each([1, 0.5])("rows have the magnitudes of the file, at strength %d, fused or not", async strength => {
    const unet = await model();
    const adapter = decomposed(unet, 7);
    await unet.loadLora(await written(at("d.safetensors"), adapter), { strength });
    const truth = await output(await merged([[adapter, strength]]));
    expectClose(await output(unet), truth, rounding, "unmerged");
    await unet.fuseLora();
    expectClose(await output(unet), truth, rounding, "fused");
  });

  test("the gradient of a magnitude is what central differences say", async () => {
    const unet = await model();
    await unet.loadLora(await written(at("d.safetensors"), decomposed(unet, 7)));
    const run = { ...smallInputs(), cotangent: pseudoRandom([2, 4, 8, 8], 9) };
    const { store } = unet.adapter!;
    const entry = store.entries.get(`${conv}.lora_magnitude_vector`)!;
    const { grads } = await unet.lossAndGrads(run);
    const start = await readParameter(unet.session, store, entry);
    const lossAt = async (step: number): Promise<number> => {
      const moved = numbers(start).slice();
      moved[5] = moved[5]! + step;
      writeParameter(unet.session, store, entry, hostTensor("f64", entry.shape, moved));
      return (await unet.lossAndGrads(run)).loss;
    };
    const h = 1e-5;
    expect(numbers(grads[entry.name]!)[5]).toBeCloseTo(((await lossAt(h)) - (await lossAt(-h))) / (2 * h), 6);
  });

  test("as peft and as kohya shape it, there and back; along the inputs it is refused", async () => {
    const unet = await model();
    await unet.loadLora(await written(at("d.safetensors"), decomposed(unet, 7)));
    const truth = await output(unet);
    for (const format of ["diffusers", "kohya"] as const) {
      await unet.saveLora(at(`${format}.safetensors`), { format });
      const other = await model();
      await other.loadLora(at(`${format}.safetensors`));
      expectSame(await output(other), truth, format);
    }
    const kohya = readAll(at("kohya.safetensors"));
    const name = `lora_unet_${conv.replaceAll(".", "_")}.dora_scale`;
    expect(kohya.get(name)!.shape).toEqual([32, 1, 1, 1]);
    expect(readAll(at("diffusers.safetensors")).get(`unet.${conv}.lora_magnitude_vector`)!.shape).toEqual([1, 32, 1, 1]);
    kohya.set(name, { ...kohya.get(name)!, shape: [1, 32, 1, 1] });
    await writeSafetensors(at("in.safetensors"), kohya);
    await expect((await model()).loadLora(at("in.safetensors"))).rejects.toThrow(/one magnitude for each of 32 outputs, received \[1,32,1,1\]/);
  });
});

describe("files", () => {
  test("a trained adapter written as kohya does has the names and numbers that diffusers' conversion gives it", async () => {
    const unet = await model("f32");
    await unet.loadLora(join(run, "lora_final"));
    await unet.saveLora(at("k.safetensors"), { format: "kohya", metadata: { ss_output_name: "prefers cats", "modelspec.title": "cats" } });
    const [own, theirs] = [readAll(at("k.safetensors")), readAll(join(run, "kohya.safetensors"))];
    expect([...own.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [name, value] of theirs) expectSame(numbers(own.get(name)!), numbers(value), name);
  });

  test("notes and hashes of a kohya file", async () => {
    const unet = await model("f32");
    await unet.addLora({ rank: 64, alpha: 32, targets: ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"] }, { seed: 1 }); // more than 1 MiB
    await unet.saveLora(at("k.safetensors"), { format: "kohya", metadata: { "modelspec.title": "cats", ss_output_name: "x" } });
    const file = readSafetensors(at("k.safetensors"));
    const notes = Object.fromEntries(file.metadata);
    file.close();
    expect(notes).toMatchObject({
      ss_network_module: "networks.lora",
      ss_network_dim: "64",
      ss_network_alpha: "32",
      ss_base_model_version: "sd_v1",
      ss_v2: "False",
    });
    const bytes = readFileSync(at("k.safetensors"));
    const sha = (part: Uint8Array): string => createHash("sha256").update(part).digest("hex");
    expect(notes.sshs_model_hash).toBe(sha(bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)))));
    await writeSafetensors(
      at("notes.safetensors"),
      readAll(at("k.safetensors")),
      Object.fromEntries(Object.entries(notes).filter(([name]) => name.startsWith("ss_"))),
    );
    const trained = readFileSync(at("notes.safetensors"));
    expect(trained.length).toBeGreaterThan(0x110000);
    expect(notes.sshs_legacy_hash).toBe(sha(trained.subarray(0x100000, 0x110000)).slice(0, 8));
  });

  test.each(["diffusers", "kohya"] as const)("ranks, alphas and rsLoRA survive %s", async format => {
    const unet = await model();
    await unet.loadLora(await written(at("mixed.safetensors"), adapterOf(unet, 3)));
    const truth = await output(unet);
    await unet.saveLora(at("again.safetensors"), { format });
    const other = await model();
    await other.loadLora(at("again.safetensors"));
    expectSame(await output(other), truth, "mixed");
    expect(other.adapter!.sizeOf(conv)).toEqual({ rank: 3, alpha: 1.5 });

    const stabilized = await model();
    await stabilized.addLora({ rank: 4, alpha: 6, rankStabilized: true }, { seed: 1 });
    for (const entry of stabilized.adapter!.store.entries.values())
      writeParameter(stabilized.session, stabilized.adapter!.store, entry, pseudoRandom(entry.shape, entry.start + 1));
    await stabilized.saveLora(at("rs.safetensors"), { format });
    const back = await model();
    await back.loadLora(at("rs.safetensors"));
    expectSame(await output(back), await output(stabilized), "rsLoRA"); // sqrt(4) is exact, as is kohya's alpha of 12
  });

  test("an adapter of zeros, and one that is not finite, warn", async () => {
    const unet = await model("f32");
    await unet.addLora({ rank: 2 }, { seed: 1 });
    expect(await unet.saveLora(at("zero"))).toEqual(["the adapter of unet is zero: it changes nothing"]);
    const entry = unet.adapter!.store.entries.get(`${query}.lora.up.weight`)!;
    writeParameter(unet.session, unet.adapter!.store, entry, hostTensor("f32", entry.shape, Array(entry.shape[0]! * 2).fill(Number.NaN)));
    expect(await unet.saveLora(at("nan"), { format: "kohya" })).toEqual([`1 tensors of the adapter hold NaN or infinity (unet.${query}.lora.up.weight)`]);
    writeParameter(unet.session, unet.adapter!.store, entry, pseudoRandom(entry.shape));
    expect(await unet.saveLora(at("fine"))).toEqual([]);
    await expect(unet.saveLora(at("x"), { format: "webui" as "kohya" })).rejects.toThrow(/"diffusers" or "kohya"/);
  });

  test("names that match nothing are all listed; what is for text encoders can be skipped", async () => {
    const unet = await model();
    const path = await written(at("u.safetensors"), adapterOf(unet, 1));
    const tensors = readAll(path);
    const foreign = Array.from({ length: 12 }, (_, i) => `lora_te_text_model_encoder_layers_${i}_mlp_fc1.lora_down.weight`);
    for (const name of foreign) tensors.set(name, hostTensor("f32", [2, 2]));
    await writeSafetensors(path, tensors);
    const error = (await unet.loadLora(path).catch((e: unknown) => e)) as WeightsError;
    expect(error).toBeInstanceOf(WeightsError);
    expect([...error.unexpected].sort()).toEqual([...foreign].sort());
    expect(unet.adapter).toBeUndefined();
    await unet.loadLora(path, { skip: ["text_encoder", "text_encoder_2"] });
    expect(unet.adapter!.targets.length).toBe(3);
    await expect((await model()).loadLora(path, { skip: ["unet"] })).rejects.toThrow(WeightsError);
    await expect((await model()).loadLora(path, { skip: ["unet", "text_encoder"] })).rejects.toThrow(
      /expected an adapter of unet, received a file without one/,
    );
    tensors.delete(`unet.${query}.lora_B.weight`);
    await writeSafetensors(path, new Map([...tensors].filter(([name]) => !name.startsWith("lora_te"))));
    await expect((await model()).loadLora(path)).rejects.toThrow(/1 missing \(down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight\)/);
  });

  test.each(["diffusers", "kohya"] as const)("adapters of a UNet and two text encoders in one file of %s", async format => {
    const q = "text_model.encoder.layers.0.self_attn.q_proj";
    const components = [
      {
        name: "unet",
        modules: [query],
        originalNames: new Map([[query, "input_blocks.1.1.transformer_blocks.0.attn1.to_q"]]),
        kohyaWritesThem: true,
        baseModel: "sdxl_base_v1-0",
      },
      { name: "text_encoder", modules: [q], kohyaPrefix: "lora_te1_" },
      { name: "text_encoder_2", modules: [q, "text_projection"] },
    ] as const;
    const adapters = components.map(({ name, modules }, i): WrittenAdapter => {
      const adapter = new LoraAdapter(new ParameterStore({ arena: name, dtype: "f32", trainable: true }), { rank: i + 1, alpha: 2 * i + 1, targets: modules });
      const tensors = modules.flatMap((module, j): [string, HostTensor][] => [
        [`${module}.lora.down.weight`, pseudoRandom([i + 1, 4], 10 * i + j)],
        [`${module}.lora.up.weight`, pseudoRandom([5, i + 1], 10 * i + j + 5)],
      ]);
      const deferred = tensors.map(([n, t]): [string, { dtype: "f32"; shape: readonly number[]; read(): Promise<HostTensor> }] => [
        n,
        { dtype: "f32", shape: t.shape, read: async () => t },
      ]);
      return { component: components[i]!, adapter, weights: new Map(deferred) };
    });
    expect(await writeLora(at("all.safetensors"), adapters, { format })).toEqual([]);
    const { file, options, parameterOf } = readLora(at("all.safetensors"), components);
    const names = [...file.tensors.keys()];
    for (const [i, { component, weights }] of adapters.entries()) {
      const found = new Map(
        names.flatMap(stored => (parameterOf(component.name)(stored) ? [[parameterOf(component.name)(stored)!, file.tensor(stored)]] : [])),
      );
      expect([...found.keys()].sort()).toEqual([...weights.keys()].sort());
      for (const [name, deferred] of weights) expectSame(numbers(found.get(name)!), numbers(await deferred.read()), name);
      expect(options.get(component.name)).toMatchObject({ rank: i + 1, alpha: 2 * i + 1 });
    }
    file.close();
    if (format === "kohya")
      expect(names.filter(name => name.endsWith(".alpha")).sort()).toEqual(
        [
          "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha",
          "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.alpha",
          "lora_te2_text_projection.alpha",
          "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.alpha",
        ].sort(),
      );
  });
});
