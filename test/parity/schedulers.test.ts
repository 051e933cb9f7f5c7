/** Tables, timesteps, noising and whole trajectories of diffusers' schedulers, from numbers alone: no addon is needed. */

import fs from "node:fs";
import path from "node:path";
import { readSafetensors, type SafetensorsFile } from "../../lib/data/safetensors.js";
import { noiseScheduleFromConfig } from "../../lib/diffusion/noise-schedule.js";
import { targetForm } from "../../lib/diffusion/prediction.js";
import { schedulerFromConfig } from "../../lib/diffusion/scheduler-config.js";
import { type ForwardProcess, levelOfAlpha, type SchedulerStep } from "../../lib/schedulers/scheduler.js";
import { trainSigmas } from "../../lib/schedulers/sigmas.js";
import { linspace } from "../../lib/schedulers/timesteps.js";
import { parsePythonJson } from "../../lib/util/python-json.js";
import { expectClose, relL2 } from "../support/compare.js";
import { goldenSet } from "../support/goldens.js";
import { runPlan } from "../support/plan.js";

interface Info {
  readonly cls: string;
  readonly step: { readonly eta?: number };
  readonly set_timesteps: { readonly mu?: number; readonly sigmas?: "linspace" };
  readonly N: Readonly<Record<string, { readonly rel_l2_f64: number; readonly final_rel_l2_f64: number }>>;
  /** The run whose timesteps the noising of a class without a timestep table takes. */
  readonly an_after_set_timesteps?: number;
}

const folder = goldenSet("schedulers");
const { configs } = JSON.parse(fs.readFileSync(path.join(folder, "meta.json"), "utf8")) as { configs: Record<string, Info> };
const names = fs.readdirSync(folder).filter(name => fs.existsSync(path.join(folder, name, "scheduler_config.json")));

function values(file: SafetensorsFile, name: string): number[] {
  return Array.from(file.tensor(name).data as Float32Array | BigInt64Array, Number);
}

function readConfig(name: string): Record<string, unknown> {
  return parsePythonJson(fs.readFileSync(path.join(folder, name, "scheduler_config.json")), name) as Record<string, unknown>;
}

test("every configuration of the set is read", () => expect(names.sort()).toEqual(Object.keys(configs).sort()));

describe.each(names)("%s", name => {
  const config = readConfig(name),
    info = configs[name]!;
  const { eta } = info.step,
    { mu, sigmas } = info.set_timesteps;
  const process = noiseScheduleFromConfig(config, name);
  const golden = readSafetensors(path.join(folder, name, "golden.safetensors"));
  const common = readSafetensors(path.join(folder, "common.safetensors"));
  const has = (tensor: string): boolean => golden.tensors.has(tensor);
  const scheduler = schedulerFromConfig(config, name, {
    ...(eta !== undefined && { eta }),
    ...(mu !== undefined && { mu }),
    ...(sigmas && { sigmas: (n: number) => linspace(1, 1 / n, n) }),
  });
  afterAll(() => {
    golden.close();
    common.close();
  });

  // Timesteps are exact. Those between two of training come from a table of logarithms in float32, whose last bit depends on the machine that made it:
  // 2^-22 where the logarithm is at least 2, on both sides of a gap of the table, and one rounding of the result.
  const slack = (t: number): number => (Number.isInteger(t) || info.cls.startsWith("Flow") ? 0 : (2 * 2 ** -22) / logGap(process, t) + 2 ** -24 * t);

  test("tables equal diffusers' to 1e-6", () => {
    if (!has("betas")) return expect(info.cls).toBe("FlowMatchEulerDiscreteScheduler");
    // Rescaled betas are 1 - a quotient of squares of roots: one float32 rounding of a root (2^-24) comes back fourfold.
    const rounding = config.rescale_betas_zero_snr === true ? 4 * 2 ** -24 : 0;
    const expectNear = (actual: ArrayLike<number>, expected: readonly number[], absolute: number): void => {
      const worst = expected.findIndex((e, i) => !(Math.abs(actual[i]! - e) <= Math.max(1e-6 * e, absolute)));
      expect([actual.length, worst]).toEqual([expected.length, -1]);
    };
    expectNear(process.betas, values(golden, "betas"), rounding);
    // classes that count in sigma keep the last alphasCumprod of a zero-SNR schedule at 2^-24: here, trainSigmas does
    const alphas = values(golden, "alphas_cumprod").map((a, t) => (t === process.steps - 1 && a === 2 ** -24 ? 0 : a));
    expectNear(process.alphasCumprod, alphas, 1e-9);
    if (!has("train_sigmas") || config.use_flow_sigmas === true) return;
    const sigmas = values(golden, "train_sigmas")
      .filter(s => s > 0)
      .sort((x, y) => x - y); // some classes descend to 0
    expectNear(trainSigmas(process), sigmas, 0);
  });

  test("add_noise and velocity", () => {
    const timesteps = values(golden, "an.timesteps"),
      clean = values(golden, "an.x0"),
      noise = values(golden, "an.noise"),
      size = clean.length / timesteps.length;
    // classes that count in sigma find the level by the place of the timestep in a run
    const n = info.an_after_set_timesteps;
    const plan = n ? scheduler(process, n) : [],
      places = n ? values(golden, `N${n}.timesteps`) : [];
    const levelAt = (t: number) => plan[places.indexOf(t)]?.level ?? levelOfAlpha(process.alphasCumprod[t]!);
    const mix = (of: (t: number) => { clean: number; noise: number }): number[] =>
      clean.map((x, i) => {
        const c = of(timesteps[Math.floor(i / size)]!);
        return c.clean * x + c.noise * noise[i]!;
      });
    const noisy = mix(t => ({ clean: levelAt(t).signal, noise: levelAt(t).noise }));
    expectClose(noisy, values(golden, "an.noisy"), 1e-6, "noisy");
    if (!has("an.velocity")) return;
    // EulerDiscreteScheduler.get_velocity reads its table at the place of the timestep in the run, not at the timestep
    const entry = (t: number): number => (n ? places.indexOf(t) : t);
    const velocity = mix(t => targetForm("v_prediction", process.alphasCumprod[entry(t)]!));
    expectClose(velocity, values(golden, "an.velocity"), 1e-6, "velocity");
  });

  test.each(Object.keys(info.N))("a trajectory of %s steps", n => {
    const steps = scheduler(process, Number(n));
    const timesteps = values(golden, `N${n}.timesteps`);
    expect(steps.length).toBe(timesteps.length);
    for (const [i, t] of timesteps.entries()) expect(Math.abs(steps[i]!.timestep - t)).toBeLessThanOrEqual(slack(t));
    if (has(`N${n}.sigmas`)) {
      const sigmas = steps.map(({ level: { signal, noise } }) =>
        config.use_flow_sigmas === true ? noise : noise / (info.cls.startsWith("Flow") ? 1 : signal),
      );
      expectClose(sigmas, values(golden, `N${n}.sigmas`).slice(0, -1), 1e-6, "sigmas");
    }
    const start = steps[0]!.start ?? 1;
    expect(Math.abs(start - values(golden, `N${n}.init_noise_sigma`)[0]!)).toBeLessThanOrEqual(1e-6 * start);
    const { trajectory, clean } = run(steps, common, start);
    const bound = Math.max(20 * info.N[n]!.rel_l2_f64, 1e-5);
    expectClose(trajectory, values(golden, `N${n}.traj`), bound, "trajectory");
    // a clean estimate is as exact as the last state is: at sigma 4096 float32 cancels
    if (has(`N${n}.x0`)) expectClose(clean, values(golden, `N${n}.x0`), Math.max(20 * info.N[n]!.final_rel_l2_f64, bound), "x0");
  });
});

/** How far apart the logarithms of sigma are at timestep t. */
function logGap(process: ForwardProcess, t: number): number {
  const sigmas = trainSigmas(process),
    at = Math.min(Math.floor(t), sigmas.length - 2);
  return Math.log(sigmas[at + 1]!) - Math.log(sigmas[at]!);
}

/** The toy model of the goldens: out = 0.1 x + 0.05 c + 0.01 sin(0.01 t). */
function run(steps: readonly SchedulerStep[], common: SafetensorsFile, start: number): { trajectory: number[]; clean: number[] } {
  const c = values(common, "c"),
    noise = values(common, "noise"),
    first = values(common, "x_init").map(x => x * start);
  const model = (x: readonly number[], { timestep }: SchedulerStep): number[] => x.map((v, j) => 0.1 * v + 0.05 * c[j]! + 0.01 * Math.sin(0.01 * timestep));
  const { states, clean } = runPlan(steps, first, model, i => noise.slice(i * first.length, (i + 1) * first.length));
  return { trajectory: states.flat(), clean: clean.flat() };
}

test.each(["ddim-sd15", "dpmpp2m-sd15", "unipc-sd15"])("%s: a broken coefficient is seen", name => {
  const common = readSafetensors(path.join(folder, "common.safetensors"));
  const golden = readSafetensors(path.join(folder, name, "golden.safetensors"));
  const config = readConfig(name);
  const steps = schedulerFromConfig(config, name)(noiseScheduleFromConfig(config, name), 20);
  const broken = steps.map((s, i) => (i === 10 ? { ...s, update: { ...s.update, denoised: 1.01 * s.update.denoised! } } : s));
  expect(relL2(run(broken, common, 1).trajectory, values(golden, "N20.traj"))).toBeGreaterThan(1e-4);
  common.close();
  golden.close();
});
