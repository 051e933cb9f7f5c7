/** The kernel API: the same numbers from typed arrays and from tensors on the device, gradients by central differences, and what it refuses. */

import { openDevice } from "../../lib/device.js";
import { noiseSchedule } from "../../lib/diffusion/noise-schedule.js";
import { ClosedError, ConfigError, ShapeError } from "../../lib/errors.js";
import {
  adamW,
  addNoise,
  attention,
  conv2d,
  groupNorm,
  Kernels,
  linear,
  normalNoise,
  preferenceLoss,
  schedulerStep,
  velocity,
} from "../../lib/kernels/index.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { dspo } from "../../lib/objectives/dspo.js";
import { kto } from "../../lib/objectives/kto.js";
import { rdpo } from "../../lib/objectives/rdpo.js";
import { tgdpo } from "../../lib/objectives/tgdpo.js";
import { type HostTensor, hostTensor } from "../../lib/util/host-tensor.js";
import { dot, expectClose, expectSame, type Values } from "../support/compare.js";
import { Rng } from "../support/rng.js";

let kernels: Kernels;
beforeAll(async () => {
  kernels = Kernels.open(await openDevice("cpu"));
});
afterAll(() => kernels.close());

const normals = (shape: readonly number[], stream: number, dtype: "f32" | "f64" = "f64"): HostTensor => {
  const random = new Rng(11, stream);
  const size = shape.reduce((n, d) => n * d, 1);
  return hostTensor(
    dtype,
    shape,
    Array.from({ length: size }, () => random.normal()),
  );
};
const values = (t: HostTensor): Values => t.data as unknown as Values;
const moved = (x: HostTensor, v: HostTensor, h: number): HostTensor =>
  hostTensor(
    "f64",
    x.shape,
    Array.from(values(x), (a, i) => a + h * values(v)[i]!),
  );

test("convolution in the field's layouts, by loops", async () => {
  const [x, weight, bias] = [normals([2, 3, 5, 4], 1), normals([2, 3, 3, 3], 2), normals([2], 3)];
  const { y } = await kernels.run(conv2d, { x, weight, bias }, { padding: 1, stride: 2 });
  expect(y.shape).toEqual([2, 2, 3, 2]);
  const expected: number[] = [];
  const at = (b: number, c: number, h: number, w: number): number => (h < 0 || w < 0 || h >= 5 || w >= 4 ? 0 : values(x)[((b * 3 + c) * 5 + h) * 4 + w]!);
  for (let b = 0; b < 2; b++)
    for (let o = 0; o < 2; o++)
      for (let h = 0; h < 3; h++)
        for (let w = 0; w < 2; w++) {
          let total = values(bias)[o]!;
          for (let c = 0; c < 3; c++)
            for (let r = 0; r < 3; r++)
              for (let s = 0; s < 3; s++) total += at(b, c, 2 * h + r - 1, 2 * w + s - 1) * values(weight)[((o * 3 + c) * 3 + r) * 3 + s]!;
          expected.push(total);
        }
  expectClose(values(y), expected, 1e-14, "conv2d");
});

test("tensors on the device give the same bits as typed arrays, and stay there", async () => {
  const [x, gamma, beta] = [normals([2, 8, 3, 5], 4, "f32"), normals([8], 5, "f32"), normals([8], 6, "f32")];
  const options = { groups: 2, silu: true };
  const { y: expected } = await kernels.run(groupNorm, { x, gamma, beta }, options);
  const onDevice = kernels.upload(x, "bchw");
  expectSame(values(await kernels.download(onDevice)), values(x), "there and back");
  const { y } = await kernels.runOnDevice(groupNorm, { x: onDevice, gamma: kernels.upload(gamma), beta }, options);
  expect(y.shape).toEqual([2, 8, 3, 5]);
  expectSame(values(await kernels.download(y)), values(expected), "group norm on the device");
  const again = await kernels.runOnDevice(groupNorm, { x: y, gamma, beta }, options);
  const chained = await kernels.run(groupNorm, { x: expected, gamma, beta }, options);
  expectSame(values(await kernels.download(again.y)), values(chained.y), "a chain that never left the device");
});

test("backward is the transpose of forward", async () => {
  const inputs = { q: normals([1, 5, 6], 7), k: normals([1, 4, 6], 8), v: normals([1, 4, 6], 9) };
  const options = { heads: 2 };
  const u = normals([1, 5, 6], 10);
  const gradients = await kernels.backward(attention, inputs, { y: u }, options);
  for (const name of ["q", "k", "v"] as const) {
    const direction = normals(inputs[name].shape, 12);
    const along = async (h: number): Promise<number> => {
      const { y } = await kernels.run(attention, { ...inputs, [name]: moved(inputs[name], direction, h) }, options);
      return dot(values(y), values(u));
    };
    const central = ((await along(1e-6)) - (await along(-1e-6))) / 2e-6;
    expect(dot(values(gradients[name]!), values(direction))).toBeCloseTo(central, 6);
  }
});

test("the preference loss with its gradient, for any objective", async () => {
  const [prediction, target] = [normals([4, 3, 4, 4], 13), normals([4, 3, 4, 4], 14)];
  const start = await kernels.run(preferenceLoss, { prediction, target, reference: prediction }, { objective: diffusionDpo({ beta: 2000 }) });
  expect(Number(start.loss.data[0])).toBe(Math.LN2);
  const reference = moved(prediction, normals([4, 3, 4, 4], 15), 0.01);
  for (const objective of [diffusionDpo({ beta: 500 }), dspo({ beta: 0.5 })]) {
    const { gradient } = await kernels.run(preferenceLoss, { prediction, target, reference }, { objective });
    const direction = normals([4, 3, 4, 4], 16);
    const loss = async (h: number): Promise<number> =>
      Number((await kernels.run(preferenceLoss, { prediction: moved(prediction, direction, h), target, reference }, { objective })).loss.data[0]);
    const central = ((await loss(1e-6)) - (await loss(-1e-6))) / 2e-6;
    expect(dot(values(gradient), values(direction)) / central).toBeCloseTo(1, 6);
  }
  for (const objective of [kto(), rdpo(), tgdpo()])
    await expect(kernels.run(preferenceLoss, { prediction, target, reference }, { objective })).rejects.toThrow(
      /one of the sums of pairs or single samples alone/,
    );
});

test("noise, the forward process and a scheduler's step", async () => {
  const schedule = noiseSchedule();
  const timestep = hostTensor("i32", [2], [10, 900]);
  const clean = normals([2, 4, 3, 3], 17, "f32");
  const { noise } = await kernels.run(normalNoise, {}, { shape: [2, 4, 3, 3], seed: 5, step: 2 });
  const { noise: other } = await kernels.run(normalNoise, {}, { shape: [2, 4, 3, 3], seed: 6, step: 2 });
  expect(Array.from(values(noise))).not.toEqual(Array.from(values(other)));
  const { noisy } = await kernels.run(addNoise, { clean, noise, timestep }, { schedule });
  const { v } = await kernels.run(velocity, { clean, noise, timestep }, { schedule });
  const [signal, spread] = [[10, 900].map(t => Math.sqrt(schedule.alphasCumprod[t]!)), [10, 900].map(t => Math.sqrt(1 - schedule.alphasCumprod[t]!))];
  const sample = (i: number): number => Math.floor(i / 36);
  const mix = (a: (i: number) => number): number[] => Array.from({ length: 72 }, (_, i) => a(i));
  expectClose(
    values(noisy),
    mix(i => signal[sample(i)]! * values(clean)[i]! + spread[sample(i)]! * values(noise)[i]!),
    1e-6,
    "noisy",
  );
  expectClose(
    values(v),
    mix(i => signal[sample(i)]! * values(noise)[i]! - spread[sample(i)]! * values(clean)[i]!),
    1e-6,
    "v",
  );
  const { next } = await kernels.run(schedulerStep, { sample: clean, output: v, noise }, { state: 0.5, output: -2, noise: 0.25 });
  expectClose(
    values(next),
    mix(i => 0.5 * values(clean)[i]! - 2 * values(v)[i]! + 0.25 * values(noise)[i]!),
    1e-6,
    "step",
  );
});

test("an update in place", async () => {
  const [param, m, v] = [
    [1, -2, 3],
    [0, 0, 0],
    [0, 0, 0],
  ].map(data => kernels.upload(hostTensor("f64", [3], data)));
  const grad = hostTensor("f64", [3], [0.1, -0.2, 0]);
  await kernels.run(adamW, { param: param!, grad, m: m!, v: v! }, { learningRate: 0.01, step: 1, weightDecay: 0 });
  expectClose(values(await kernels.download(param!)), [1 - 0.01, -2 + 0.01, 3], 1e-6, "the first update of Adam moves by the learning rate");
  await expect(kernels.run(adamW, { param: hostTensor("f64", [3]), grad, m: m!, v: v! }, { learningRate: 0.01, step: 1 })).rejects.toThrow(
    /adamW: expected param to be a tensor on the device/,
  );
});

test("what does not fit is refused with names", async () => {
  const x = normals([2, 3], 18);
  await expect(kernels.run(linear, { x } as never)).rejects.toThrow(new ConfigError("linear", 'input "weight"', "a tensor", undefined));
  await expect(kernels.run(linear, { x, weight: normals([4, 5], 19) })).rejects.toThrow(ShapeError);
  await expect(kernels.run(linear, { x, weight: normals([4, 3], 20), scale: x } as never)).rejects.toThrow(/expected inputs to be of x, weight, bias/);
  const plain = kernels.upload(normals([1, 4, 2, 2], 21));
  await expect(kernels.run(groupNorm, { x: plain, gamma: normals([4], 22), beta: normals([4], 23) }, { groups: 2 })).rejects.toThrow(
    /groupNorm: x: expected layout to be "bchw"/,
  );
  plain.dispose();
  await expect(kernels.download(plain)).rejects.toThrow(ClosedError);
  await expect(kernels.backward(linear, { x, weight: normals([4, 3], 24) }, { y: normals([2, 5], 25) })).rejects.toThrow(/the cotangent of y is \[2,4\]/);
});
