/** What a caller of `attune/kernels` waits for: a call on tensors that stay on the device, and one on typed arrays, which are copied in and out. */

import { noiseSchedule } from "../lib/diffusion/noise-schedule.js";
import { addNoise, attention, conv2d, groupNorm, type KernelInput, Kernels, linear, preferenceLoss } from "../lib/kernels/index.js";
import type { Kernel } from "../lib/kernels/kernel.js";
import { diffusionDpo } from "../lib/objectives/diffusion-dpo.js";
import { convert, type HostTensor, hostTensor } from "../lib/util/host-tensor.js";
import type { Bed, Ceilings } from "./ops.js";

export interface Call {
  readonly name: string;
  /** Medians, from the call to its resolved promise. */
  readonly onDeviceMilliseconds: number;
  readonly fromArraysMilliseconds: number;
  /** Of the call on the device: its arithmetic or its memory traffic as a share of the ceiling. */
  readonly share: number;
}

interface Given {
  readonly kernel: Kernel<string, string, object>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly options?: object;
  readonly flops?: number;
  /** Inputs that are f32 whatever the run computes in. */
  readonly f32?: boolean;
}

const calls: Readonly<Record<string, Given>> = {
  "conv2d 2x320x64x64 to 320": call(
    conv2d,
    { x: [2, 320, 64, 64], weight: [320, 320, 3, 3] },
    { options: { padding: 1 }, flops: 2 * 2 * 64 * 64 * 320 * 9 * 320 },
  ),
  "linear 8192x320 to 1280": call(linear, { x: [8192, 320], weight: [1280, 320] }, { flops: 2 * 8192 * 320 * 1280 }),
  "attention 2x1024, 8 x 80": call(
    attention,
    { q: [2, 1024, 640], k: [2, 1024, 640], v: [2, 1024, 640] },
    { options: { heads: 8 }, flops: 4 * 2 * 1024 * 1024 * 640 },
  ),
  "groupNorm + SiLU 2x320x64x64": call(groupNorm, { x: [2, 320, 64, 64], gamma: [320], beta: [320] }, { options: { groups: 32, silu: true } }),
  "preferenceLoss 8 pairs 4x64x64": call(
    preferenceLoss,
    { prediction: [16, 4, 64, 64], target: [16, 4, 64, 64], reference: [16, 4, 64, 64] },
    { options: { objective: diffusionDpo({ beta: 2000 }) }, f32: true },
  ),
  "addNoise 16x4x64x64": call(addNoise, { clean: [16, 4, 64, 64], noise: [16, 4, 64, 64] }, { options: { schedule: noiseSchedule() }, f32: true }),
  "linear 1x8 to 8 (nothing but the call)": call(linear, { x: [1, 8], weight: [8, 8] }, { flops: 2 * 64 }),
};

function call<In extends string, Out extends string, O extends object>(
  kernel: Kernel<In, Out, O>,
  shapes: Given["shapes"],
  rest: Omit<Given, "kernel" | "shapes">,
): Given {
  return { kernel: kernel as unknown as Given["kernel"], shapes, ...rest };
}

export async function* benchCalls({ device, dtype }: Bed, ceiling: Ceilings, filter: string): AsyncGenerator<Call> {
  for (const [name, { kernel, shapes, options = {}, flops, f32 }] of Object.entries(calls)) {
    if (!name.includes(filter)) continue;
    await using kernels = Kernels.open(device);
    const used = f32 ? "f32" : dtype;
    const arrays: Record<string, HostTensor> = Object.fromEntries(Object.entries(shapes).map(([key, shape]) => [key, convert(wave(shape), used)]));
    if ("timestep" in kernel.inputs) arrays.timestep = hostTensor("i32", [shapes.clean![0]!], new Int32Array(shapes.clean![0]!).fill(500));
    const resident: Record<string, KernelInput> = {};
    for (const [key, x] of Object.entries(arrays)) resident[key] = kernels.upload(x, kernel.inputs[key]!.layout ?? "plain");
    const onDevice = await median(async () => {
      for (const result of Object.values(await kernels.runOnDevice(kernel, resident, options))) result.dispose();
    });
    const fromArrays = await median(async () => void (await kernels.run(kernel, arrays, options)));
    const outputs = Object.values(await kernels.run(kernel, arrays, options));
    const bytes = [...Object.values(arrays), ...outputs].reduce((sum, x) => sum + x.data.byteLength, 0); // each read or written once
    const most = 1e9 * (flops === undefined ? ceiling.gbytes : used === "bf16" ? (ceiling.tensorGflops ?? ceiling.gflops) : ceiling.gflops);
    yield { name, onDeviceMilliseconds: onDevice, fromArraysMilliseconds: fromArrays, share: (flops ?? bytes) / (onDevice / 1e3) / most };
  }
}

function wave(shape: readonly number[]): HostTensor {
  return hostTensor(
    "f32",
    shape,
    Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i)),
  );
}

async function median(work: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 3; i++) await work();
  for (const end = performance.now() + 400; times.length < 5 || (performance.now() < end && times.length < 500); ) {
    const began = performance.now();
    await work();
    times.push(performance.now() - began);
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

export function describeCall({ name, onDeviceMilliseconds, fromArraysMilliseconds, share }: Call): string {
  const ms = (x: number): string => `${x.toFixed(3).padStart(10)} ms`;
  return `${name.padEnd(44)} ${ms(onDeviceMilliseconds)} on the device ${(100 * share).toFixed(0).padStart(4)} % ${ms(fromArraysMilliseconds)} from arrays`;
}
