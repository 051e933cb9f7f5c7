/** What a user does with an autoencoder besides the passes that parity proves: files, posteriors, scaling, tiles, NaN, closing. */

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeSafetensors } from "../../lib/data/safetensors.js";
import { type Device, openDevice } from "../../lib/device.js";
import { ClosedError, ConfigError, NonFiniteError, ShapeError, WeightsError } from "../../lib/errors.js";
import { AutoencoderKL, type VaeLoadOptions } from "../../lib/models/vae-model.js";
import { convert, type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, expectSame, relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { numbers } from "../support/gradients.js";
import { alteredFolder, closedAfterTest, readAll } from "../support/models.js";
import { scratchFolder } from "../support/scratch.js";
import { pseudoRandom } from "../support/unet.js";

const at = scratchFolder();
const keep = closedAfterTest();
const source = join(goldenSet("vae-tiny"), "vae");
const baseName = "diffusion_pytorch_model";
const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8")) as Record<string, unknown>;

let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});
const load = async (folder = source, options: Omit<VaeLoadOptions, "device"> = {}): Promise<AutoencoderKL> =>
  keep(await AutoencoderKL.load(folder, { device, ...options }));
const altered = (change: (weights: Map<string, HostTensor>) => void, as = baseName): Promise<string> =>
  alteredFolder(source, at("vae"), { baseName, as, change });
const decoded = async (model: AutoencoderKL): Promise<Float64Array> => numbers(await model.decode(pseudoRandom([1, 4, 3, 2])));

describe("files", () => {
  test("attention projections under their old names are the same model", async () => {
    const old: Record<string, string> = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
    let renamed = 0;
    const folder = await altered(weights => {
      for (const [name, value] of [...weights]) {
        const before = name.replace(/(attentions\.0\.)(to_q|to_k|to_v|to_out\.0)\./, (_, place: string, now: string) => `${place}${old[now]}.`);
        if (before === name) continue;
        weights.delete(name);
        weights.set(before, value);
        renamed++;
      }
    });
    expect(renamed).toBe(16); // weight and bias of four, in encoder and decoder
    expectSame(await decoded(await load(folder)), await decoded(await load()), "pictures");
  });

  test("every missing, unexpected and mismatched tensor is named in one error", async () => {
    const folder = await altered(weights => {
      weights.delete("quant_conv.bias");
      weights.set("loss.logvar", hostTensor("f32", [1]));
      weights.set("decoder.conv_in.weight", hostTensor("f32", [16, 4, 1, 1]));
    });
    const error = await AutoencoderKL.load(folder, { device }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(WeightsError);
    expect(error).toMatchObject({ missing: ["quant_conv.bias"], unexpected: ["loss.logvar"], mismatched: [{ name: "decoder.conv_in.weight" }] });
  });

  test.each(["f16", "bf16"] as const)("a variant in %s has the pictures of its rounded weights", async dtype => {
    const rounded = new Map([...readAll(join(source, `${baseName}.safetensors`))].map(([name, value]) => [name, convert(value, dtype)]));
    const folder = await altered(weights => rounded.forEach((value, name) => void weights.set(name, value)), `${baseName}.small`);
    mkdirSync(at("wide"));
    copyFileSync(join(source, "config.json"), at("wide", "config.json"));
    await writeSafetensors(at("wide", `${baseName}.safetensors`), new Map([...rounded].map(([name, value]) => [name, convert(value, "f32")])));
    expectSame(await decoded(await load(folder, { variant: "small" })), await decoded(await load(at("wide"))), "pictures");
    await expect(AutoencoderKL.load(folder, { device })).rejects.toThrow(/expected diffusion_pytorch_model\.safetensors/);
  });

  test("a saved folder is the folder that was loaded", async () => {
    const model = await load();
    await model.save(at("saved"));
    expect(JSON.parse(readFileSync(at("saved", "config.json"), "utf8"))).toEqual(config);
    expectSame(await decoded(await load(at("saved"))), await decoded(model), "pictures");
  });

  test("frozen unless asked otherwise; random weights are the same for the same seed", async () => {
    expect((await load()).store.trainable).toBe(false);
    expect((await load(source, { trainable: true })).store.trainable).toBe(true);
    const [a, b, c] = await Promise.all([7, 7, 8].map(async seed => decoded(keep(await AutoencoderKL.create(config, { device, seed })))));
    expectSame(a!, b!, "pictures");
    expect(relL2(c!, a!)).toBeGreaterThan(0.1);
  });
});

describe("posterior", () => {
  test("seeded noise: the same every time, standard normal, and sample i + offset of a set is sample i of its part", async () => {
    const model = await load();
    const mean = hostTensor("f32", [4, 4, 16, 16]);
    const posterior = { mean, logvar: hostTensor("f32", mean.shape, new Float32Array(4096).fill(Math.log(9))) };
    const whole = numbers(await model.sample(posterior, { seed: 3 }));
    expectSame(numbers(await model.sample(posterior, { seed: 3 })), whole, "again");
    const variance = whole.reduce((sum, x) => sum + x * x, 0) / whole.length; // of 4096 draws of variance 9: strays by 9 sqrt(2 / 4096)
    expect(Math.abs(variance - 9)).toBeLessThan(5 * 9 * Math.sqrt(2 / 4096));
    expect(relL2(numbers(await model.sample(posterior, { seed: 4 })), whole)).toBeGreaterThan(1);
    const half = {
      mean: hostTensor("f32", [2, 4, 16, 16]),
      logvar: hostTensor("f32", [2, 4, 16, 16], posterior.logvar.data.subarray(0, 2048) as Float32Array),
    };
    expectSame(numbers(await model.sample(half, { seed: 3, sampleOffset: 2 })), whole.subarray(2048), "second half");
  });

  test("logvar is cut to [-30, 20], of tiles too, and no gradient flows where it was", async () => {
    const folder = await altered(weights => {
      const bias = weights.get("quant_conv.bias")!.data; // channels of logvar: 4 to 7
      for (const [channel, value] of [
        [4, 1e3],
        [5, -1e3],
      ] as const)
        bias[channel] = value;
    });
    const model = await load(folder);
    const pixels = pseudoRandom([2, 3, 40, 16]);
    for (const tiling of [false, { size: 16 }]) {
      const { logvar } = await model.encode(pixels, { tiling });
      const values = (b: number, channel: number): number[] => [...numbers(logvar).subarray((b * 4 + channel) * 10, (b * 4 + channel + 1) * 10)];
      for (const b of [0, 1]) {
        expect([values(b, 0), values(b, 1)]).toEqual([Array(10).fill(20), Array(10).fill(-30)]);
        expect(values(b, 2).every(x => Math.abs(x) < 15)).toBe(true);
      }
    }
    const [mean, logvar] = [hostTensor("f32", [2, 4, 5, 2]), hostTensor("f32", [2, 4, 5, 2], new Float32Array(80).fill(1))];
    const { grads } = await model.lossAndGrads({ pixels, cotangents: { mean, logvar } });
    expect([...numbers(grads["quant_conv.bias"]!)]).toEqual([0, 0, 0, 0, 0, 0, 20, 20]); // 2 x 5 x 2 latents
  });

  test("toLatents is (z - shift) * scale, and fromLatents undoes it, each channel by its own numbers", async () => {
    const fields = { scaling_factor: 0.5, latents_mean: [1, 2, 3, 4], latents_std: [1, 2, 4, 8] };
    const model = keep(await AutoencoderKL.create({ ...config, ...fields }, { device, dtype: "f64", seed: 1 }));
    const z = pseudoRandom([2, 4, 3, 5]);
    const channel = (i: number): number => Math.floor(i / 15) % 4;
    const expected = numbers(z).map((x, i) => ((x - fields.latents_mean[channel(i)]!) * 0.5) / fields.latents_std[channel(i)]!);
    const latents = await model.toLatents(z);
    expectClose(numbers(latents), expected, 1e-15, "latents");
    expectClose(numbers(await model.fromLatents(latents)), numbers(z), 1e-15, "z");
  });

  test("one factor and shift for all channels, as SD3 has them", async () => {
    const model = await load(join(goldenSet("vae-sd3-tiny"), "vae"), { dtype: "f64" });
    const z = pseudoRandom([1, 16, 2, 2]);
    const latents = await model.toLatents(z);
    expectClose(
      numbers(latents),
      numbers(z).map(x => (x - 0.0609) * 1.5305),
      1e-15,
      "latents",
    );
    expectClose(numbers(await model.fromLatents(latents)), numbers(z), 1e-15, "z");
  });
});

describe("tiles", () => {
  test("a picture that one tile holds is the whole, bit for bit", async () => {
    const model = await load();
    const [latents, pixels] = [pseudoRandom([1, 4, 4, 4]), pseudoRandom([1, 3, 32, 32])];
    expectSame(numbers(await model.decode(latents, { tiling: true })), numbers(await model.decode(latents)), "pictures");
    expectSame(numbers((await model.encode(pixels, { tiling: true })).mean), numbers((await model.encode(pixels)).mean), "mean");
  });

  test("decoding: overlapping rows fade linearly from the upper tile to the lower", async () => {
    const model = await load(source, { dtype: "f64" });
    const latents = pseudoRandom([2, 4, 7, 3]); // tiles of 4 latents that start at 0, 3 and 6
    const rows = (first: number, last: number): HostTensor => {
      const data = numbers(latents);
      const part = hostTensor("f64", [2, 4, last - first, 3]);
      for (let p = 0; p < 8; p++) (part.data as Float64Array).set(data.subarray((p * 7 + first) * 3, (p * 7 + last) * 3), p * (last - first) * 3);
      return part;
    };
    const parts = await Promise.all(
      [rows(0, 4), rows(3, 7), rows(6, 7)].map(async part => ({ height: part.shape[2]! * 8, data: numbers(await model.decode(part)) })),
    );
    const value = (tile: number, plane: number, y: number, x: number): number => parts[tile]!.data[(plane * parts[tile]!.height + y) * 24 + x]!;
    const expected = new Float64Array(6 * 56 * 24);
    for (let p = 0; p < 6; p++)
      for (let y = 0; y < 56; y++)
        for (let x = 0; x < 24; x++) {
          const tile = Math.min(Math.floor(y / 24), 2);
          const own = value(tile, p, y - 24 * tile, x);
          const share = tile > 0 && y - 24 * tile < 8 ? (y - 24 * tile) / 8 : 1;
          expected[(p * 56 + y) * 24 + x] = share < 1 ? (1 - share) * value(tile - 1, p, y - 24 * (tile - 1), x) + share * own : own;
        }
    const actual = await model.decode(latents, { tiling: true });
    expect(actual.shape).toEqual([2, 3, 56, 24]);
    expectClose(numbers(actual), expected, 1e-14, "pictures");
  });

  test("encoding: tiles of any size cover a picture of any size, and moments are joined before logvar is cut", async () => {
    const model = await load();
    const pixels = pseudoRandom([1, 3, 70, 45]);
    for (const tiling of [true, { size: 40 }, { size: 16, overlap: 0 }, { size: 24, overlap: 0.6 }]) {
      const { mean, logvar } = await model.encode(pixels, { tiling });
      expect([mean.shape, logvar.shape]).toEqual([
        [1, 4, 8, 5],
        [1, 4, 8, 5],
      ]);
    }
  });

  test("options that leave no tile are refused by name", async () => {
    const model = await load();
    const decode = (tiling: { size?: number; overlap?: number }) => model.decode(pseudoRandom([1, 4, 9, 9]), { tiling });
    await expect(decode({ size: 7 })).rejects.toThrow(/tiling: expected size to be a whole number of pixels >= 8, received 7/);
    await expect(decode({ overlap: 1 })).rejects.toThrow(/tiling: expected overlap to be a number in \[0, 1\), received 1/);
    await expect(decode({ size: 16, overlap: 0.6 })).rejects.toThrow(ConfigError);
  });
});

describe("errors", () => {
  test("pictures that would hold NaN are refused with what to do", async () => {
    const model = await load();
    const latents = pseudoRandom([1, 4, 2, 2]);
    latents.data[3] = Number.NaN;
    await expect(model.decode(latents)).rejects.toThrow(NonFiniteError);
    await expect(model.decode(latents)).rejects.toThrow(/the latents already do/);
    const damaged = await altered(weights => {
      weights.get("decoder.conv_out.bias")!.data[0] = Infinity;
    });
    const broken = await load(damaged);
    await expect(broken.decode(pseudoRandom([1, 4, 2, 2]))).rejects.toThrow(/AutoencoderKL\.decode: expected finite pixels.*its weights are damaged/);
  });

  test("inputs that do not fit are named", async () => {
    const model = await load();
    await expect(model.encode(pseudoRandom([1, 8, 8, 3]))).rejects.toThrow(/AutoencoderKL\.encode: expected pixels \[B, 3, H, W\], received \[1, 8, 8, 3\]/);
    await expect(model.encode(pseudoRandom([1, 3, 7, 8]))).rejects.toThrow(ShapeError);
    await expect(model.decode(pseudoRandom([4, 2, 2]))).rejects.toThrow(/expected latents \[B, 4, H, W\]/);
    const [mean, logvar] = [pseudoRandom([1, 4, 2, 2]), pseudoRandom([1, 4, 2, 3])];
    await expect(model.sample({ mean, logvar }, { seed: 1 })).rejects.toThrow(/"logvar" is \[1,4,2,2\], received \[1,4,2,3\]/);
    await expect(model.lossAndGrads({ cotangents: {} })).rejects.toThrow(/expected inputs to be pixels, latents or both/);
    await expect(model.lossAndGrads({ latents: mean, cotangents: {} })).rejects.toThrow(/d decoded/);
  });

  test("config and dtype are checked before weights; a closed model says so; a signal stops it", async () => {
    await expect(AutoencoderKL.load(at("absent"), { device, dtype: "bf16" })).rejects.toThrow(
      /AutoencoderKL\.load: expected dtype to be "f32" or "f64" on a cpu/,
    );
    mkdirSync(at("vae"));
    writeFileSync(at("vae", "config.json"), JSON.stringify({ ...config, act_fn: "relu" }));
    await expect(AutoencoderKL.load(at("vae"), { device })).rejects.toThrow(/act_fn/);
    const model = await load();
    await expect(model.decode(pseudoRandom([1, 4, 9, 9]), { tiling: true, signal: AbortSignal.abort("no") })).rejects.toBe("no");
    await model.close();
    await model.close();
    await expect(model.decode(pseudoRandom([1, 4, 2, 2]))).rejects.toThrow(ClosedError);
    await expect(model.toLatents(pseudoRandom([1, 4, 2, 2]))).rejects.toThrow("AutoencoderKL was closed");
  });
});
