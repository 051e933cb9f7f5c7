/** Sampling: one compiled program per batch size runs any scheduler for any number of steps. The scheduler's coefficients are scalars of the program, written
 *  before every run; classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) doubles the batch inside. */

import { ConfigError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import { add, maximum, minimum, mul, scale, sub } from "../graph/ops/elementwise.js";
import { input } from "../graph/ops/leaf.js";
import { randomNormal } from "../graph/ops/random.js";
import { broadcast } from "../graph/ops/reduce.js";
import { concat, slice } from "../graph/ops/shape.js";
import { scalar } from "../graph/scalars.js";
import type { Executable, Session } from "../graph/session.js";
import { buildGraph, type Tensor } from "../graph/tensor.js";
import type { Adapter } from "../nn/lora.js";
import { type ParameterStore, Params } from "../nn/params.js";
import type { Scheduler, SchedulerStep } from "../schedulers/scheduler.js";
import type { HostTensor } from "../util/host-tensor.js";
import type { Denoiser } from "./denoiser.js";
import type { NoiseSchedule } from "./noise-schedule.js";

/** Philox streams of sampling, apart from those of training. */
const streams = { start: 16, step: 17 } as const;

export interface SamplerOptions {
  readonly session: Session;
  readonly denoiser: Denoiser;
  readonly store: ParameterStore;
  readonly adapter?: Adapter;
  readonly schedule: NoiseSchedule;
  readonly dtype?: "f32" | "f64";
}

export interface SampleOptions {
  readonly scheduler: Scheduler;
  readonly steps: number;
  /** Condition tensors of the batch, by the denoiser's names; the leading dimension is the batch. */
  readonly condition: Readonly<Record<string, HostTensor>>;
  /** Condition of the unconditional half; needed where guidanceScale is not 1. */
  readonly uncondition?: Readonly<Record<string, HostTensor>>;
  /** prediction = uncond + guidanceScale (cond - uncond); 1 runs the conditional half alone. */
  readonly guidanceScale?: number;
  /** Same seed, same device, same pictures. Sample i of a batch draws what sample i + sampleOffset of the whole set draws. */
  readonly seed: number;
  readonly sampleOffset?: number;
  readonly signal?: AbortSignal;
  onStep?(step: number, steps: number): void;
}

const slots = ["denoisedSample", "denoisedOutput", "clip", "state", "denoised", "output", "noise"] as const;

/** Samples from a denoiser. Programs are compiled once per (batch, guided) and kept for the session's life. */
export class Sampler {
  readonly #options: Required<Omit<SamplerOptions, "adapter">> & Pick<SamplerOptions, "adapter">;
  readonly #programs = new Map<string, Executable>();

  constructor(options: SamplerOptions) {
    this.#options = { dtype: "f32", ...options };
  }

  /** Returns samples [B, C, H, W]. */
  async sample(options: SampleOptions): Promise<HostTensor> {
    const { scheduler, steps, condition, uncondition, guidanceScale = 1, seed, sampleOffset = 0, signal, onStep } = options;
    const guided = guidanceScale !== 1;
    if (guided && !uncondition) throw new ConfigError("Sampler.sample", "uncondition", "given where guidanceScale is not 1", uncondition);
    const batch = batchOf(condition);
    const plan = scheduler(this.#options.schedule, steps);
    const inputs = guided ? { ...condition, ...prefixed("uncond/", uncondition!) } : { ...condition };
    const run = { session: this.#options.session, random: { seed, sampleOffset }, signal };
    let x = (await run.session.run(this.#program("start", batch, guided), { scalars: { ...run.random, step: 0 } }, signal ? { signal } : {})).x!;
    for (const [i, step] of plan.entries()) {
      const scalars = { ...run.random, step: i + 1, timestep: step.timestep, guidanceScale, ...coefficients(step) };
      const used = guided ? scalars : without(scalars, "guidanceScale");
      x = (await run.session.run(this.#program("step", batch, guided), { inputs: { ...inputs, x }, scalars: used }, signal ? { signal } : {})).x!;
      onStep?.(i + 1, plan.length);
    }
    return x;
  }

  #program(kind: "start" | "step", batch: number, guided: boolean): Executable {
    const key = `${kind}/${batch}/${guided}`;
    let executable = this.#programs.get(key);
    if (!executable) {
      const graph = kind === "start" ? this.#startGraph(batch) : this.#stepGraph(batch, guided);
      executable = this.#options.session.compile(compileGraph(graph, { name: `sample/${key}`, target: this.#options.session.target }));
      this.#programs.set(key, executable);
    }
    return executable;
  }

  #startGraph(batch: number) {
    const { denoiser, dtype } = this.#options;
    return buildGraph(graph => graph.output("x", randomNormal([batch, ...denoiser.sampleShape], { stream: streams.start, dtype }), "bchw"));
  }

  #stepGraph(batch: number, guided: boolean) {
    const { denoiser, dtype } = this.#options;
    return buildGraph(graph => {
      const [denoisedSample, denoisedOutput, clip, state, denoised, output, noise] = slots.map(name => scalar(name, dtype)) as Coefficients;
      const x = input("x", { dtype, shape: [batch, ...denoiser.sampleShape] }, "bchw");
      const prediction = this.#predict(x, batch, guided);
      const free = add(mul(x, denoisedSample), mul(prediction, denoisedOutput));
      const clean = maximum(minimum(free, clip), scale(clip, -1));
      const mix = add(add(mul(x, state), mul(clean, denoised)), mul(prediction, output));
      const drawn = randomNormal(x.shape, { stream: streams.step, dtype });
      graph.output("x", add(mix, mul(drawn, noise)), "bchw");
    });
  }

  #predict(x: Tensor, batch: number, guided: boolean): Tensor {
    const { denoiser, store, adapter, dtype } = this.#options;
    const params = new Params(store, adapter ? { adapter } : {});
    const timestep = (n: number): Tensor => broadcast(scalar("timestep", dtype), [n]);
    const condition = denoiser.condition(batch);
    if (!guided) return denoiser.predict(x, timestep(batch), condition, params);
    const both: Record<string, Tensor> = {};
    for (const [name, t] of Object.entries(condition)) both[name] = concat([input(`uncond/${name}`, { dtype: t.dtype, shape: t.shape }), t], 0);
    const predicted = denoiser.predict(concat([x, x], 0), timestep(2 * batch), both, params);
    const half = (start: number): Tensor => slice(predicted, { axis: 0, start, length: batch });
    const [uncond, cond] = [half(0), half(batch)];
    return add(uncond, mul(sub(cond, uncond), scalar("guidanceScale", dtype)));
  }
}

type Coefficients = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

function coefficients({ denoised, clip, update }: SchedulerStep): Record<(typeof slots)[number], number> {
  return {
    denoisedSample: denoised.sample,
    denoisedOutput: denoised.output,
    clip: clip ?? 3e38,
    state: update.state,
    denoised: update.denoised,
    output: update.output,
    noise: update.noise,
  };
}

function batchOf(condition: SampleOptions["condition"]): number {
  const sizes = new Set(Object.values(condition).map(t => t.shape[0]));
  const [size] = sizes;
  if (sizes.size !== 1 || size === undefined) throw new ConfigError("Sampler.sample", "condition", "tensors of one batch size", [...sizes]);
  return size;
}

function prefixed<T>(prefix: string, record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [prefix + name, value]));
}

function without(record: Record<string, number>, name: string): Record<string, number> {
  const { [name]: _, ...rest } = record;
  return rest;
}
