/** Sampling: one compiled program per batch size and set of terms runs any scheduler for any number of steps. The scheduler's coefficients are scalars of the
 *  program, written before every run; classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) doubles the batch inside. */

import { ConfigError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import type { Executable, Session } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import type { Adapter } from "../nn/lora.js";
import { type ParameterStore, Params } from "../nn/params.js";
import type { Level, Scheduler, SchedulerStep } from "../schedulers/scheduler.js";
import { type HostTensor, hostTensor, toOutside } from "../util/host-tensor.js";
import type { Denoiser } from "./denoiser.js";
import type { NoiseSchedule } from "./noise-schedule.js";
import { memoryIndex, type PlanTerms, termsOf } from "./plan-terms.js";
import { blend, mix, type PreparedSample, prepareSample, stackSamples } from "./sample-options.js";
import { memoryRead, noiseGraph, type StepVariant, stepGraph, stepScalars, streams } from "./sampler-graphs.js";

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
  /** Condition of the unconditional half, of the same batch or of one for all; needed where guidanceScale is not 1. */
  readonly uncondition?: Readonly<Record<string, HostTensor>>;
  /** prediction = uncond + guidanceScale (cond - uncond); 1 runs the conditional half alone. */
  readonly guidanceScale?: number;
  /** Brings the spread of a guided prediction back to that of the conditional one, in [0, 1]; 0.7 against the overexposure of high guidance.
   *  Lin et al. 2023, arXiv:2305.08891, section 3.4. */
  readonly guidanceRescale?: number;
  /** Noise levels, noise / signal, between which guidance applies; outside the conditional half runs alone. Kynkäänniemi et al. 2024, arXiv:2404.07724. */
  readonly guidanceInterval?: readonly [number, number];
  /** Same seed, same device, same pictures. Sample i of a batch draws what sample i + sampleOffset of the whole set draws. */
  readonly seed?: number;
  readonly sampleOffset?: number;
  /** In place of `seed`, one for each sample: sample i draws what it draws alone with `seed: seeds[i]`. */
  readonly seeds?: readonly number[];
  /** Standard normal noise [B, C, H, W] to begin with, in place of what the seed draws. */
  readonly latents?: HostTensor;
  /** Clean latents [B, C, H, W] to begin with, noised to the level of the first step; batch 1 stands for all. */
  readonly init?: HostTensor;
  /** The share of the steps that `init` is taken through, in (0, 1]: the last floor(steps * strength) of them. 1 by default. */
  readonly strength?: number;
  /** [B, 1, H, W] in [0, 1], for `init`: where it is 0 the result is `init`; every step begins with the noised original there. With strength 1 a run begins with
   *  noise alone. Batch 1 stands for all. */
  readonly mask?: HostTensor;
  /** [B, E, H, W], joined to what the model sees after the sample's channels: mask and masked original for an inpainting model. Batch 1 stands for all. */
  readonly extraChannels?: HostTensor;
  /** Stops within a step; rejects with signal.reason. */
  readonly signal?: AbortSignal;
  /** After each evaluation of the model: how many of `steps` are done, and the current estimate of the clean samples [B, C, H, W]. */
  onStep?(step: number, steps: number, clean: () => HostTensor): void;
}

/** Samples from a denoiser. Programs are compiled once per (batch, guided, terms) and kept for the session's life. */
export class Sampler {
  readonly #options: Required<Omit<SamplerOptions, "adapter">> & Pick<SamplerOptions, "adapter">;
  readonly #programs = new Map<string, Executable>();

  constructor(options: SamplerOptions) {
    this.#options = { dtype: "f32", ...options };
  }

  /** Returns samples [B, C, H, W].
   *  @throws ConfigError, ShapeError for options that do not fit each other; what Session.run throws. */
  async sample(options: SampleOptions): Promise<HostTensor> {
    const { denoiser, dtype, schedule } = this.#options;
    const prepared = prepareSample(options, denoiser.sampleShape, dtype);
    const plan = options.scheduler(schedule, options.steps, prepared.skip);
    const terms = termsOf(plan);
    const startNoise = prepared.noise ?? (await this.#noise(options, prepared, streams.start, 0));
    let x = begin(prepared, plan[0]!, startNoise),
      memory: HostTensor[] = [];
    for (const [i, step] of plan.entries()) {
      const out = await this.#step(options, prepared, { step, terms, number: prepared.skip + i + 1, x, memory });
      memory = remembered(step, x, memory, out);
      x = prepared.mask ? keepOriginal(prepared, out.x!, startNoise, plan[i + 1]?.level) : out.x!;
      options.onStep?.(i + 1, plan.length, () => toOutside(out.denoised!, "bchw"));
    }
    return toOutside(x, "bchw");
  }

  async #step(
    options: SampleOptions,
    prepared: PreparedSample,
    { step, terms, number, x, memory }: { step: SchedulerStep; terms: PlanTerms; number: number; x: HostTensor; memory: readonly HostTensor[] },
  ): Promise<Record<string, HostTensor>> {
    const { guidanceScale = 1, guidanceRescale = 0, signal } = options,
      { batch, condition, uncondition, extra } = prepared;
    const guided = uncondition !== undefined && guides(options.guidanceInterval, step.level);
    const variant = { batch, guided, rescaled: guided && guidanceRescale !== 0, extraChannels: extra?.shape[3] ?? 0, terms };
    const zeros = (): HostTensor => hostTensor(this.#options.dtype, x.shape);
    const inputs: Record<string, HostTensor> = { ...condition, ...(guided && uncondition), ...(extra && { extra }), x };
    for (let k = 0; k < memoryRead(terms); k++) if (isRead(terms, k)) inputs[`memory${k}`] = memory[k] ?? zeros();
    if (usesNoise(terms)) inputs.noise = drawsNoise(step) ? await this.#noise(options, prepared, streams.step, number) : zeros();
    const scalars = { ...stepScalars(step, terms), guidanceScale, guidanceRescale };
    return this.#options.session.run(this.#stepProgram(variant), { inputs, scalars }, signal ? { signal } : {});
  }

  /** Standard normal noise [B, H, W, C] of a step: drawn for the whole batch from one seed, or for each sample alone from its own. */
  async #noise({ seed = 0, sampleOffset = 0, seeds, signal }: SampleOptions, { shape }: PreparedSample, stream: number, step: number): Promise<HostTensor> {
    const draw = async (count: number, from: number, offset: number): Promise<HostTensor> => {
      const drawn = [count, ...shape.slice(1)];
      const program = this.#program(`noise/${stream}/${drawn}`, () => noiseGraph(drawn, stream, this.#options.dtype));
      const scalars = { seed: from, step, sampleOffset: offset };
      return (await this.#options.session.run(program, { scalars }, signal ? { signal } : {})).noise!;
    };
    if (!seeds) return draw(shape[0]!, seed, sampleOffset);
    const each: HostTensor[] = [];
    for (const own of seeds) each.push(await draw(1, own, 0));
    return stackSamples(each);
  }

  #stepProgram(variant: StepVariant): Executable {
    const { denoiser, store, adapter, dtype } = this.#options;
    return this.#program(`step/${JSON.stringify(variant)}`, () =>
      stepGraph({ denoiser, dtype, params: new Params(store, adapter ? { adapter } : {}) }, variant),
    );
  }

  #program(key: string, graph: () => Graph): Executable {
    let executable = this.#programs.get(key);
    if (!executable) {
      executable = this.#options.session.compile(compileGraph(graph(), { name: `sample/${key}`, target: this.#options.session.target }));
      this.#programs.set(key, executable);
    }
    return executable;
  }
}

/** x before the first step: noise, or the original noised to where the run begins. */
function begin({ init, pureNoise }: PreparedSample, { level, start = 1 }: SchedulerStep, noise: HostTensor): HostTensor {
  return init && !pureNoise ? mix(init, level.signal, noise, level.noise) : mix(noise, start, noise, 0);
}

/** The original, noised to the level of the next step (clean after the last), where the mask is 0. */
function keepOriginal({ init, mask }: PreparedSample, x: HostTensor, noise: HostTensor, level: Level = { signal: 1, noise: 0 }): HostTensor {
  return blend(x, mix(init!, level.signal, noise, level.noise), mask!);
}

function remembered({ remember = [] }: SchedulerStep, x: HostTensor, memory: readonly HostTensor[], out: Readonly<Record<string, HostTensor>>): HostTensor[] {
  let saved = 0;
  return remember.map(r => {
    if (r === "state") return x;
    if (r === "denoised") return out.denoised!;
    if (typeof r !== "number") return out[`saved${saved++}`]!;
    const kept = memory[r];
    if (!kept) throw new ConfigError("Sampler.sample", "scheduler", "one that remembers what there is", `entry ${r} of ${memory.length}`);
    return kept;
  });
}

function guides(interval: readonly [number, number] | undefined, { signal, noise }: Level): boolean {
  return !interval || (noise >= interval[0] * signal && noise <= interval[1] * signal);
}

function isRead({ update, saved }: PlanTerms, k: number): boolean {
  return [...update, ...saved.flat()].some(term => memoryIndex(term) === k);
}

function usesNoise({ update, saved }: PlanTerms): boolean {
  return update.includes("noise") || saved.some(used => used.includes("noise"));
}

function drawsNoise({ update, remember = [] }: SchedulerStep): boolean {
  return [update, ...remember].some(c => typeof c === "object" && (c.noise ?? 0) !== 0);
}
