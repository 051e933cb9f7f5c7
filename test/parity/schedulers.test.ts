/** Tables, timesteps, noising and whole trajectories of diffusers' schedulers, from numbers alone: no addon is needed. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { type NoiseSchedule, noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { targetForm } from "../../lib/diffusion/prediction.js";
import { ddimFromConfig } from "../../lib/schedulers/ddim.js";
import { ddpmFromConfig } from "../../lib/schedulers/ddpm.js";
import type { Scheduler } from "../../lib/schedulers/scheduler.js";
import { goldenSet } from "../support/goldens.js";

interface Meta {
  configs: Record<string, { cls: string; step: { eta?: number }; N: Record<string, { rel_l2_f64: number }> }>;
}

const folder = goldenSet("schedulers");
const meta = JSON.parse(fs.readFileSync(path.join(folder, "meta.json"), "utf8")) as Meta;
const names = fs.readdirSync(folder).filter(name => /^dd(im|pm)-/.test(name));

function values(file: SafetensorsFile, name: string): number[] {
  return Array.from(file.tensor(name).data as Float32Array | BigInt64Array, Number);
}

function relativeL2(actual: readonly number[], expected: readonly number[]): number {
  const norm = (xs: readonly number[]): number => Math.sqrt(xs.reduce((sum, x) => sum + x * x, 0));
  return norm(actual.map((x, i) => x - expected[i]!)) / norm(expected);
}

describe.each(names)("%s", name => {
  const config = JSON.parse(fs.readFileSync(path.join(folder, name, "scheduler_config.json"), "utf8")) as Record<string, unknown>;
  const info = meta.configs[name]!;
  const schedule = noiseScheduleFromConfig(config, name);
  const golden = readSafetensors(path.join(folder, name, "golden.safetensors"));
  const common = readSafetensors(path.join(folder, "common.safetensors"));
  const scheduler: Scheduler = info.cls === "DDIMScheduler" ? ddimFromConfig(config, name, info.step) : ddpmFromConfig(config, name);
  afterAll(() => {
    golden.close();
    common.close();
  });

  test("tables equal diffusers' to 1e-6", () => {
    // Rescaled betas are 1 - a quotient of squares of roots: one float32 rounding of a root (2^-24) comes back fourfold.
    const rounding = config.rescale_betas_zero_snr === true ? 4 * 2 ** -24 : 0;
    for (const [i, expected] of values(golden, "betas").entries())
      expect(Math.abs(schedule.betas[i]! - expected)).toBeLessThanOrEqual(Math.max(1e-6 * expected, rounding));
    for (const [i, expected] of values(golden, "alphas_cumprod").entries())
      expect(Math.abs(schedule.alphasCumprod[i]! - expected)).toBeLessThanOrEqual(Math.max(1e-6 * expected, 1e-9));
  });

  test("add_noise and velocity", () => {
    const timesteps = values(golden, "an.timesteps"),
      clean = values(golden, "an.x0"),
      noise = values(golden, "an.noise");
    const size = clean.length / timesteps.length;
    const mix = (coefficient: (a: number) => { clean: number; noise: number }): number[] =>
      clean.map((x, i) => {
        const c = coefficient(schedule.alphasCumprod[timesteps[Math.floor(i / size)]!]!);
        return c.clean * x + c.noise * noise[i]!;
      });
    expect(
      relativeL2(
        mix(a => ({ clean: Math.sqrt(a), noise: Math.sqrt(1 - a) })),
        values(golden, "an.noisy"),
      ),
    ).toBeLessThan(1e-6);
    expect(
      relativeL2(
        mix(a => targetForm("v_prediction", a)),
        values(golden, "an.velocity"),
      ),
    ).toBeLessThan(1e-6);
  });

  test.each(Object.keys(info.N))("a trajectory of %s steps", n => {
    const steps = scheduler(schedule, Number(n));
    expect(steps.map(s => s.timestep)).toEqual(values(golden, `N${n}.timesteps`));
    const { trajectory, clean } = run(steps, common);
    const bound = Math.max(20 * info.N[n]!.rel_l2_f64, 1e-5);
    expect(relativeL2(trajectory, values(golden, `N${n}.traj`))).toBeLessThanOrEqual(bound);
    expect(relativeL2(clean, values(golden, `N${n}.x0`))).toBeLessThanOrEqual(bound);
  });
});

/** The toy model of the goldens: out = 0.1 x + 0.05 c + 0.01 sin(0.01 t). */
function run(steps: ReturnType<Scheduler>, common: SafetensorsFile): { trajectory: number[]; clean: number[] } {
  const c = values(common, "c"),
    noise = values(common, "noise");
  let x = values(common, "x_init");
  const trajectory = [...x],
    clean: number[] = [];
  for (const [i, { timestep, denoised, clip = Infinity, update }] of steps.entries()) {
    x = x.map((v, j) => {
      const out = 0.1 * v + 0.05 * c[j]! + 0.01 * Math.sin(0.01 * timestep);
      const d = Math.max(-clip, Math.min(clip, denoised.sample * v + denoised.output * out));
      clean.push(d);
      return update.state * v + update.denoised * d + update.output * out + update.noise * noise[i * x.length + j]!;
    });
    trajectory.push(...x);
  }
  return { trajectory, clean };
}

test("a broken coefficient is seen", () => {
  const schedule: NoiseSchedule = noiseScheduleFromConfig({ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 }, "test");
  const common = readSafetensors(path.join(folder, "common.safetensors"));
  const steps = ddimFromConfig({ clip_sample: false, set_alpha_to_one: false, steps_offset: 1 }, "test")(schedule, 20);
  const golden = readSafetensors(path.join(folder, "ddim-sd15", "golden.safetensors"));
  const flipped = steps.map((s, i) => (i === 10 ? { ...s, update: { ...s.update, output: -s.update.output } } : s));
  expect(relativeL2(run(flipped, common).trajectory, values(golden, "N20.traj"))).toBeGreaterThan(1e-3);
  common.close();
  golden.close();
});
