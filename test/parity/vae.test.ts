/** The autoencoder against diffusers in float64: posteriors, samples, pictures, gradients of inputs and of every parameter. Sets: vae-*. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { openDevice } from "../../lib/device.js";
import { AutoencoderKL, type VaeGradients } from "../../lib/models/vae-model.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { expectClose, norm } from "../support/compare.js";
import { describeSets } from "../support/goldens.js";
import { compareGradient, numbers, storedUnder, tolerance } from "../support/gradients.js";

interface CaseMeta {
  readonly file: string;
  readonly torch_fp32: {
    readonly mean: { readonly rel_l2: number };
    readonly logvar: { readonly rel_l2: number };
    readonly dec: { readonly rel_l2: number };
    readonly gx: number;
    readonly gz: number;
    readonly param_worst: number;
  };
}

describeSets("vae-", folder => {
  const { cases } = JSON.parse(readFileSync(join(folder, "meta.json"), "utf8")) as { cases: CaseMeta[] };
  describe.each(["f64", "f32"] as const)("%s", dtype => {
    let model: AutoencoderKL;
    beforeAll(async () => {
      model = await AutoencoderKL.load(join(folder, "vae"), { device: await openDevice("cpu"), dtype });
    });
    afterAll(() => model?.close());

    describe.each(cases)("$file", ({ file: name, torch_fp32: torch }) => {
      let file: SafetensorsFile, result: VaeGradients;
      const truth = (tensor: string): HostTensor => file.tensor(tensor);
      const expectTruth = (actual: HostTensor, tensor: string, reached: number): void => {
        expect(actual.shape).toEqual(truth(tensor).shape);
        expectClose(numbers(actual), numbers(truth(tensor)), tolerance(dtype, truth(tensor), reached), tensor);
      };
      beforeAll(async () => {
        file = readSafetensors(join(folder, name));
        const cotangents = { mean: truth("cot.mean"), logvar: truth("cot.logvar"), decoded: truth("cot.pixels") };
        result = await model.lossAndGrads({ pixels: truth("in.pixels"), latents: truth("in.latents"), cotangents });
      });
      afterAll(() => file?.close());

      test("posterior", async () => {
        for (const { mean, logvar } of [await model.encode(truth("in.pixels")), result.outputs]) {
          expectTruth(mean!, "enc.mean", torch.mean.rel_l2);
          expectTruth(logvar!, "enc.logvar", torch.logvar.rel_l2);
        }
        const moments = numbers(truth("enc.moments"));
        const batch = truth("in.pixels").shape[0]!;
        const half = moments.length / batch / 2;
        const means = Float64Array.from({ length: batch * half }, (_, i) => moments[Math.floor(i / half) * 2 * half + (i % half)]!);
        expectClose(numbers(result.outputs.mean!), means, tolerance(dtype, truth("enc.moments"), torch.mean.rel_l2), "first half of the moments");
      });

      test("a sample by given noise", async () => {
        const posterior = await model.encode(truth("in.pixels"));
        expectTruth(await model.sample(posterior, { noise: truth("enc.noise") }), "enc.sample", Math.max(torch.mean.rel_l2, torch.logvar.rel_l2));
      });

      test("pictures, and their bytes", async () => {
        expectTruth(result.outputs.decoded!, "dec.pixels", torch.dec.rel_l2);
        const decoded = await model.decode(truth("in.latents"));
        expectTruth(decoded, "dec.pixels", torch.dec.rel_l2);
        const bytes = truth("dec.uint8"); // [B, H, W, C]
        const off = bytesOf(decoded).map((byte, i) => Math.abs(byte - Number(bytes.data[i])));
        expect(off).toHaveLength(bytes.data.length);
        expect(Math.max(...off)).toBeLessThanOrEqual(1);
        expect(off.filter(Boolean).length).toBeLessThan(off.length / 1000);
      });

      test("gradients of pixels and latents", () => {
        expectTruth(result.inputGrads.pixels!, "grad_in.pixels", torch.gx);
        expectTruth(result.inputGrads.latents!, "grad_in.latents", torch.gz);
      });

      test("the loss is the sum of outputs times cotangents", () => {
        const pairs = [
          ["mean", "enc.mean", "cot.mean"],
          ["logvar", "enc.logvar", "cot.logvar"],
          ["decoded", "dec.pixels", "cot.pixels"],
        ] as const;
        const [total, scale] = pairs.reduce(
          ([sum, size], [, output, cotangent]) => {
            const [y, c] = [numbers(truth(output)), numbers(truth(cotangent))];
            return [sum + y.reduce((s, v, i) => s + v * c[i]!, 0), size + norm(y) * norm(c)];
          },
          [0, 0],
        );
        expect(Math.abs(result.loss - total)).toBeLessThanOrEqual(tolerance(dtype, truth("enc.mean"), torch.dec.rel_l2) * scale);
      });

      const stored = storedUnder(join(folder, name), "grad."); // a set may hold a part of them, or none beside its later cases
      if (stored.length > 0)
        test("gradients of every parameter", () => {
          expect(Object.keys(result.grads)).toEqual(expect.arrayContaining(stored));
          const largest = Math.max(...stored.map(key => norm(numbers(truth(`grad.${key}`)))));
          const floor = (dtype === "f32" ? 1e-5 : 1e-12) * largest; // of attention, d key bias is 0 in theory
          for (const key of stored) {
            const expected = truth(`grad.${key}`);
            compareGradient(numbers(result.grads[key]!), numbers(expected), tolerance(dtype, expected, torch.param_worst, 2e-5), floor, key);
          }
        });
    });
  });
});

/** (x / 2 + 0.5) in [0, 1], times 255, rounded half to even: [B, C, H, W] -> [B, H, W, C]. */
function bytesOf({ shape, data }: HostTensor): number[] {
  const [, channels = 0, height = 0, width = 0] = shape;
  const at = (i: number): number => {
    const [pixel, c] = [Math.floor(i / channels), i % channels];
    const [b, yx] = [Math.floor(pixel / (height * width)), pixel % (height * width)];
    return Number(data[(b * channels + c) * height * width + yx]);
  };
  const rounded = (v: number): number => (v % 1 === 0.5 ? 2 * Math.round(v / 2) : Math.round(v));
  return Array.from({ length: data.length }, (_, i) => rounded(Math.min(Math.max(at(i) / 2 + 0.5, 0), 1) * 255));
}

test("bytes of pixels are rounded to even and stand channels last", () => {
  const value = (byte: number): number => (byte / 255) * 2 - 1;
  expect(bytesOf(hostTensor("f64", [1, 2, 1, 2], [value(3), -5, 5, value(7)]))).toEqual([3, 255, 0, 7]);
  expect(bytesOf(hostTensor("f64", [1, 1, 1, 1], [0]))).toEqual([128]); // 127.5
});
