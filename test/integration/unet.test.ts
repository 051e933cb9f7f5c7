/** What a user does with a UNet besides the forward pass: wrong files, saving, recomputation, adapters, closing. */

import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, writeSafetensors } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { ClosedError, ConfigError, DataError, WeightsError } from "../../lib/errors.js";
import { UNet, type UNetGradients } from "../../lib/models/unet-model.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, expectSame, norm } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { scratchFolder } from "../support/scratch.js";
import { closedAfterTest, goldenConfig, pseudoRandom, smallInputs } from "../support/unet.js";

const at = scratchFolder();
const numbers = (t: HostTensor): Float64Array => convert(t, "f64").data as Float64Array;
const weightsName = "diffusion_pytorch_model.safetensors";
const source = join(goldenSet("unet-sd-tiny"), "unet");

let device: Device;
const keep = closedAfterTest();
beforeAll(async () => {
  device = await openDevice("cpu");
});
const load = async (folder = source, dtype: "f32" | "f64" = "f32"): Promise<UNet> => keep(await UNet.load(folder, { device, dtype }));

/** A copy of the model's folder whose weights went through `change`. */
async function altered(change: (weights: Map<string, HostTensor>) => void): Promise<string> {
  const folder = at("unet");
  mkdirSync(folder);
  cpSync(join(source, "config.json"), join(folder, "config.json"));
  const file = readSafetensors(join(source, weightsName));
  const weights = new Map([...file.tensors.keys()].map(name => [name, file.tensor(name)]));
  file.close();
  change(weights);
  await writeSafetensors(join(folder, weightsName), weights);
  return folder;
}

describe("files that do not fit", () => {
  test("every missing, unexpected and mismatched tensor is named in one error", async () => {
    const folder = await altered(weights => {
      weights.delete("conv_in.bias");
      weights.set("conv_in.gamma", hostTensor("f32", [1]));
      weights.set("conv_out.weight", hostTensor("f32", [4, 3, 3, 16]));
      weights.set("conv_out.bias", hostTensor("i64", [4]));
    });
    const error = await UNet.load(folder, { device }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WeightsError);
    const { missing, unexpected, mismatched, message } = error as WeightsError;
    expect([missing, unexpected]).toEqual([["conv_in.bias"], ["conv_in.gamma"]]);
    expect(mismatched).toEqual([
      { name: "conv_out.bias", expected: "F64/F32/BF16/F16 [4]", received: "I64 [4]" },
      { name: "conv_out.weight", expected: "F64/F32/BF16/F16 [4,16,3,3]", received: "F32 [4,3,3,16]" },
    ]);
    expect(message).toContain(join(folder, weightsName));
  });

  test("an unsupported config, a broken config and a missing folder are told apart", async () => {
    mkdirSync(at("unet"));
    const config = at("unet", "config.json");
    writeFileSync(config, JSON.stringify({ ...goldenConfig("unet-sd-tiny"), class_embed_type: "timestep", dropout: 0.5 }));
    await expect(UNet.load(at("unet"), { device })).rejects.toThrow(ConfigError);
    await expect(UNet.load(at("unet"), { device })).rejects.toThrow(/dropout, class_embed_type/);
    writeFileSync(config, "{");
    await expect(UNet.load(at("unet"), { device })).rejects.toThrow(DataError);
    await expect(UNet.load(at("absent"), { device })).rejects.toThrow(/absent.*config\.json.*ENOENT/);
    writeFileSync(config, JSON.stringify(goldenConfig("unet-sd-tiny")));
    await expect(UNet.load(at("unet"), { device })).rejects.toThrow(/expected diffusion_pytorch_model\.safetensors/);
  });

  test("a dtype in which the device does not compute is refused before anything is read", async () => {
    const loading = UNet.load(at("absent"), { device, dtype: "bf16" });
    await expect(loading).rejects.toThrow(/UNet\.load: expected dtype to be "f32" or "f64" on a cpu device, received "bf16"/);
  });

  test("inputs that do not fit are named", async () => {
    const model = await load();
    await expect(model.forward({ ...smallInputs(), sample: pseudoRandom([2, 8, 8, 4]) })).rejects.toThrow(
      /sample to be \[B, 4, H, W\], received \[2, 8, 8, 4\]/,
    );
    await expect(model.forward({ ...smallInputs(), timestep: hostTensor("f32", [3]) })).rejects.toThrow(/timestep.*\[2\], received \[3\]/);
    await expect(model.forward({ ...smallInputs(), encoderHiddenStates: pseudoRandom([2, 5, 25]) })).rejects.toThrow(/encoderHiddenStates \[2, M, 24\]/);
  });
});

describe("save and load", () => {
  test("a saved folder is the folder that was loaded: the same bytes of weights, the same config, the same output", async () => {
    const model = await load();
    await model.save(at("saved"));
    const [a, b] = [readSafetensors(join(source, weightsName)), readSafetensors(at("saved", weightsName))];
    expect([...b.tensors.keys()].sort()).toEqual([...a.tensors.keys()].sort());
    for (const name of a.tensors.keys()) {
      expect(b.tensors.get(name)!.shape).toEqual(a.tensors.get(name)!.shape);
      expectSame(numbers(b.tensor(name)), numbers(a.tensor(name)), name);
    }
    for (const file of [a, b]) file.close();
    expect(JSON.parse(readFileSync(at("saved", "config.json"), "utf8"))).toEqual(goldenConfig("unet-sd-tiny"));
    const again = await load(at("saved"));
    expectSame(numbers(await again.forward(smallInputs())), numbers(await model.forward(smallInputs())), "output");
  });

  test("a model saved in bf16 has the output of its rounded weights", async () => {
    const model = await load();
    await model.save(at("half"), { dtype: "bf16" });
    const rounded = await altered(weights => {
      for (const [name, value] of weights) weights.set(name, convert(convert(value, "bf16"), "f32"));
    });
    const [a, b] = [await load(at("half")), await load(rounded)];
    expectSame(numbers(await a.forward(smallInputs())), numbers(await b.forward(smallInputs())), "output");
  });
});

describe("random weights", () => {
  const create = async (seed: number, dtype: "f32" | "f64" = "f32"): Promise<UNet> =>
    keep(await UNet.create(goldenConfig("unet-sd-tiny"), { device, dtype, seed }));
  const read = async (model: UNet): Promise<Map<string, HostTensor>> => {
    await model.save(at("random"));
    const file = readSafetensors(at("random", weightsName));
    const weights = new Map([...file.tensors.keys()].map(name => [name, file.tensor(name)]));
    file.close();
    return weights;
  };

  test("norms begin at 1 and 0, matrices uniform within 1 / sqrt(fan in), no two alike", async () => {
    const weights = await read(await create(7));
    const values = (name: string): Float64Array => numbers(weights.get(name)!);
    expect([...new Set([...values("conv_norm_out.weight"), ...values("conv_norm_out.bias")])]).toEqual([1, 0]);
    const kernel = values("mid_block.resnets.0.conv1.weight"); // 32 x 32 x 3 x 3
    const limit = 1 / Math.sqrt(32 * 9);
    expect(Math.max(...kernel.map(Math.abs))).toBeLessThanOrEqual(limit);
    const deviation = norm(kernel) / Math.sqrt(kernel.length); // uniform: limit / sqrt 3; of 9216 draws the root mean square strays by 0.5 %
    expect(Math.abs(deviation / (limit / Math.sqrt(3)) - 1)).toBeLessThan(0.02);
    const mean = kernel.reduce((a, b) => a + b, 0) / kernel.length; // strays by limit / sqrt 3 / 96: five of these
    expect(Math.abs(mean)).toBeLessThan((5 * limit) / Math.sqrt(3) / 96);
    expect(values("mid_block.resnets.1.conv1.weight")[0]).not.toBe(kernel[0]);
  });

  test("a seed gives the same weights every time, another seed others, f64 the same before rounding", async () => {
    const [a, b, c, d] = [await read(await create(7)), await read(await create(7)), await read(await create(8)), await read(await create(7, "f64"))];
    const name = "conv_in.weight";
    expectSame(numbers(a.get(name)!), numbers(b.get(name)!), name);
    expect(numbers(a.get(name)!)[0]).not.toBe(numbers(c.get(name)!)[0]);
    expectClose(numbers(d.get(name)!), numbers(a.get(name)!), 1e-6, name);
  });
});

describe("config fields without a golden set", () => {
  const withField = async (folder: string, field: Record<string, unknown>): Promise<UNet> => {
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...goldenConfig("unet-sd-tiny"), ...field }));
    return load(folder, "f64");
  };

  test("center_input_sample: the model of x is the plain model of 2 x - 1", async () => {
    const folder = await altered(() => undefined);
    const inputs = smallInputs();
    const moved = {
      ...inputs,
      sample: hostTensor(
        "f64",
        inputs.sample.shape,
        numbers(inputs.sample).map(x => 2 * x - 1),
      ),
    };
    const [centered, plain] = [await withField(folder, { center_input_sample: true }), await load(source, "f64")];
    expectClose(numbers(await centered.forward(inputs)), numbers(await plain.forward(moved)), 1e-12, "output");
  });

  test("downsample_padding 0: kernels of 2 x 2 look one pixel further right and down than with padding 1", async () => {
    const corner = (from: number) => (weights: Map<string, HostTensor>) => {
      for (const [name, { dtype, shape, data }] of weights) {
        if (!name.includes("downsamplers") || shape.length !== 4) continue;
        const kept = numbers({ dtype, shape, data }).map((x, i) => (i % 3 < 2 && Math.floor(i / 3) % 3 < 2 ? x : 0)); // rows and columns 0, 1
        const shifted = kept.map((_, i) => (i % 3 >= from && Math.floor(i / 3) % 3 >= from ? kept[i - 4 * from]! : 0));
        weights.set(name, hostTensor("f64", shape, shifted));
      }
    };
    const shiftedBy = async (from: number, padding: number): Promise<Float64Array> => {
      const folder = await altered(corner(from));
      const output = numbers(await (await withField(folder, { downsample_padding: padding })).forward(smallInputs({ height: 16, width: 8 })));
      rmSync(folder, { recursive: true });
      return output;
    };
    expectClose(await shiftedBy(0, 0), await shiftedBy(1, 1), 1e-12, "output");
  });

  test("only_cross_attention: both attentions of a layer read the text, but for the mid block's", async () => {
    const model = keep(await UNet.create({ ...goldenConfig("unet-sd-tiny"), only_cross_attention: true }, { device, dtype: "f32", seed: 1 }));
    const width = (block: string, attention: string): number | undefined =>
      model.store.entries.get(`${block}.attentions.0.transformer_blocks.0.${attention}.to_k.weight`)?.shape[1];
    expect([width("down_blocks.2", "attn1"), width("up_blocks.1", "attn1"), width("mid_block", "attn1")]).toEqual([24, 24, 32]);
    expect((await model.forward(smallInputs())).shape).toEqual([2, 4, 8, 8]);
  });
});

test("the order of the batch does not matter, and samples do not see each other", async () => {
  const model = await load();
  const both = smallInputs();
  const one = (i: number) => {
    const part = (t: HostTensor): HostTensor => {
      const size = t.data.length / 2;
      return { ...t, shape: [1, ...t.shape.slice(1)], data: t.data.slice(i * size, (i + 1) * size) };
    };
    return { sample: part(both.sample), timestep: part(both.timestep as HostTensor), encoderHiddenStates: part(both.encoderHiddenStates) };
  };
  const together = numbers(await model.forward(both));
  const apart = [numbers(await model.forward(one(0))), numbers(await model.forward(one(1)))];
  expectClose(together, [...apart[0]!, ...apart[1]!], 5e-6, "batch"); // blocking may differ with the batch: f32 rounding, as in the parity test
});

test.each([
  ["unet-sd-tiny", 8, 8],
  ["unet-sd-tiny", 7, 9],
  ["unet-sdxl-tiny", 8, 8], // transformers of more than one layer
])("%s at %i x %i: recomputation changes no bit of output or gradient", async (set, height, width) => {
  const model = await load(join(goldenSet(set), "unet"));
  const pooled = { textEmbeds: pseudoRandom([2, 20], 4), timeIds: pseudoRandom([2, 6], 5) };
  const inputs = { ...smallInputs({ height, width }), cotangent: pseudoRandom([2, 4, height, width], 9), ...(model.config.addedText && { addedText: pooled }) };
  const [kept, again] = [await model.lossAndGrads(inputs), await model.lossAndGrads(inputs, { recompute: "blocks" })];
  expectSameGradients(again, kept);
});

function expectSameGradients(actual: UNetGradients, expected: UNetGradients): void {
  expect(actual.loss).toBe(expected.loss);
  expectSame(numbers(actual.output), numbers(expected.output), "output");
  expectSame(numbers(actual.inputGrads.sample), numbers(expected.inputGrads.sample), "sample");
  expect(Object.keys(actual.grads)).toEqual(Object.keys(expected.grads));
  for (const [name, grad] of Object.entries(expected.grads)) expectSame(numbers(actual.grads[name]!), numbers(grad), name);
}

describe("adapters", () => {
  test("a fresh one leaves the output exactly as it was, has no gradient at A, and one at B", async () => {
    const model = await load();
    const inputs = smallInputs({ height: 16, width: 16 }); // the mid block then has 4 tokens: with one, attention to itself would not depend on q and k
    const before = numbers(await model.forward(inputs));
    await model.addLora({ rank: 4, targets: ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in", "ff.net.2"] }, { seed: 3 });
    expectSame(numbers(await model.forward(inputs)), before, "output");
    const { grads } = await model.lossAndGrads({ ...inputs, cotangent: pseudoRandom([2, 4, 16, 16], 9) });
    for (const [name, grad] of Object.entries(grads)) {
      if (name.endsWith(".lora.down.weight")) expect([name, norm(numbers(grad))]).toEqual([name, 0]);
      if (name.endsWith(".lora.up.weight")) expect([name, norm(numbers(grad)) > 0]).toEqual([name, true]);
    }
    expect(Object.keys(grads).filter(name => name.startsWith("mid_block.resnets.0.conv1.lora."))).toHaveLength(2);
  });

  test("saved and loaded it is the same adapter: alpha, strength, every number", async () => {
    const model = await load();
    await model.addLora({ rank: 3, alpha: 6, rankStabilized: true }, { seed: 3 });
    for (const entry of model.adapter!.store.entries.values()) model.session.write("lora", entry.offset, pseudoRandom(entry.shape, entry.start + 1).data); // B is zero in a fresh one
    await model.saveLora(at("adapter"));
    const output = numbers(await model.forward(smallInputs()));
    const other = await load();
    await other.loadLora(at("adapter"));
    expect(other.adapter).toMatchObject({ rank: 3, alpha: 6, rankStabilized: true });
    expectSame(numbers(await other.forward(smallInputs())), output, "output");
    const off = await load();
    const plain = numbers(await off.forward(smallInputs()));
    await off.loadLora(at("adapter"), { strength: 0 });
    expectSame(numbers(await off.forward(smallInputs())), plain, "strength 0");
    await expect(other.loadLora(at("adapter"))).rejects.toThrow(/without an adapter/);
  });
});

test("a closed model says so, and closing twice is closing once", async () => {
  const model = await load();
  await model.close();
  await model.close();
  await expect(model.forward(smallInputs())).rejects.toThrow(ClosedError);
  await expect(model.save(at("saved"))).rejects.toThrow(ClosedError);
});
