/** Noise as kernels: Philox draws, the forward process, the v target, and a scheduler's step. */

import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { addNoise as addNoiseOp, noiseTarget } from "../diffusion/noising.js";
import { add, mul } from "../graph/ops/elementwise.js";
import { randomNormal } from "../graph/ops/random.js";
import { scalar } from "../graph/scalars.js";
import type { Tensor } from "../graph/tensor.js";
import type { Kernel } from "./kernel.js";

/** Standard normal numbers [B, C, H, W]: a function of (seed, step, stream, element), the same bits on every backend (Philox4x32-10 and Box-Muller). */
export const normalNoise: Kernel<
  never,
  "noise",
  { readonly shape: readonly [number, number, number, number]; readonly seed: number; readonly step?: number; readonly stream?: number }
> = {
  name: "normalNoise",
  inputs: {},
  outputs: { noise: "bchw" },
  scalars: ({ seed, step = 0 }) => ({ seed, step, sampleOffset: 0 }),
  shapeOf: ({ shape, stream }) => [shape, stream],
  build: (_, { shape: [batch, channels, height, width], stream = 1 }) => ({ noise: randomNormal([batch, height, width, channels], { stream }) }),
};

const maps = { layout: "bchw" } as const;

/** clean [B, C, H, W], noise (the same), timestep i32 [B] -> noisy = sqrt(a_t) clean + sqrt(1 - a_t) noise, a_t from the schedule's table. */
export const addNoise: Kernel<"clean" | "noise" | "timestep", "noisy", { readonly schedule: NoiseSchedule }> = {
  name: "addNoise",
  inputs: { clean: maps, noise: maps, timestep: { frozen: true } },
  outputs: { noisy: "bchw" },
  shapeOf: ({ schedule }) => Array.from(schedule.alphasCumprod),
  build: ({ clean, noise, timestep }, { schedule }) => ({ noisy: addNoiseOp(schedule, clean, { noise, timestep }).noisy }),
};

/** What a v-predicting model learns: sqrt(a_t) noise - sqrt(1 - a_t) clean. Salimans & Ho 2022, arXiv:2202.00512. */
export const velocity: Kernel<"clean" | "noise" | "timestep", "v", { readonly schedule: NoiseSchedule }> = {
  name: "velocity",
  inputs: { clean: maps, noise: maps, timestep: { frozen: true } },
  outputs: { v: "bchw" },
  shapeOf: ({ schedule }) => Array.from(schedule.alphasCumprod),
  build: ({ clean, noise, timestep }, { schedule }) => ({ v: noiseTarget({ ...schedule, predictionType: "v_prediction" }, clean, { noise, timestep }) }),
};

/** Coefficients of one step of any sampler (schedulers/*.ts): x <- state x + output model + noise z. */
export interface StepCoefficients {
  readonly state: number;
  readonly output: number;
  readonly noise?: number;
}

/** sample, model output and noise? [B, C, H, W] -> the next sample. The coefficients are per-call numbers: one program serves a whole trajectory. */
export const schedulerStep: Kernel<"sample" | "output" | "noise", "next", StepCoefficients> = {
  name: "schedulerStep",
  inputs: { sample: maps, output: maps, noise: { ...maps, optional: true } },
  outputs: { next: "bchw" },
  scalars: ({ state, output, noise = 0 }) => ({ state, output, noise }),
  shapeOf: () => null,
  build({ sample, output, noise }) {
    const times = (x: Tensor, slot: string): Tensor => mul(x, scalar(slot, x.dtype === "f64" ? "f64" : "f32"));
    const moved = add(times(sample, "state"), times(output, "output"));
    return { next: (noise as Tensor | undefined) ? add(moved, times(noise, "noise")) : moved };
  },
};
