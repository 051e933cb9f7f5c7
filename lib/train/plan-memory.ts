/** The memory and the work of a training step before anything is loaded: from a UNet's config alone. */

import { noiseSchedule } from "../diffusion/noise-schedule.js";
import { unetDenoiser } from "../diffusion/unet-denoiser.js";
import { compileWithPlan } from "../graph/compile.js";
import type { NamedBuffer } from "../graph/plan.js";
import { programFlops, programTraffic } from "../graph/print.js";
import type { Program } from "../graph/program.js";
import type { Target } from "../graph/target.js";
import type { UNetOptions } from "../models/unet.js";
import type { UNetConfig } from "../models/unet-config.js";
import { adaptUNet, declareUNet } from "../models/unet-parameters.js";
import type { LoraOptions } from "../nn/lora.js";
import { type ModelDType, Params, storage } from "../nn/params.js";
import type { Objective } from "../objectives/objective.js";
import type { ArenaSize } from "./events.js";
import { adamW, type Optimizer } from "./optimizer.js";
import { microGraph, updateGraph } from "./step.js";

export interface PlanMemoryOptions extends UNetOptions {
  readonly config: UNetConfig;
  readonly objective: Objective;
  /** Pairs (or single samples) in a micro-batch. */
  readonly batchSize: number;
  /** Size of the latents; by default that of the model. */
  readonly height?: number;
  readonly width?: number;
  /** Text tokens (default 77). */
  readonly tokens?: number;
  readonly dtype?: ModelDType;
  /** An adapter; without it every weight is trained, and a frozen copy is the reference. */
  readonly lora?: LoraOptions;
  readonly optimizer?: Optimizer;
  /** Without it the plan is for no backend in particular: what a backend fuses is then not counted. */
  readonly target?: Target;
}

export interface MemoryPlan {
  /** Every arena of a step; scratch holds the activations. */
  readonly arenas: readonly ArenaSize[];
  readonly bytes: number;
  /** No order-preserving plan needs less scratch. */
  readonly lowerBound: number;
  /** The ten largest buffers alive at the peak. */
  readonly largest: readonly NamedBuffer[];
  readonly trainableParameters: number;
  /** Of a micro-batch: multiply-adds counted twice, and bytes that its instructions read and write. */
  readonly flops: number;
  readonly traffic: number;
  readonly programs: { readonly micro: Program; readonly update: Program };
}

/** Builds, differentiates and plans both programs of a step; takes a second for a UNet of full size. Throws ConfigError, ShapeError. */
export function planMemory(options: PlanMemoryOptions): MemoryPlan {
  const { config, objective, batchSize: batch, dtype = "f32", lora, recompute = "none", target, optimizer = adamW({ learningRate: 1e-6 }) } = options;
  const { height = config.sampleSize ?? 64, width = config.sampleSize ?? 64, tokens = 77 } = options;
  const store = declareUNet(config, dtype, { trainable: lora === undefined });
  const adapter = lora && adaptUNet(config, store, lora);
  const trainable = adapter?.store ?? store;
  const gradients = trainable.mirror("gradients");
  const reference = adapter ? store : store.mirror("reference", storage(dtype, false));
  const micro = microGraph({
    denoiser: unetDenoiser(config, { height, width, tokens, recompute, ...(dtype === "f64" && { dtype }) }),
    objective,
    schedule: noiseSchedule(),
    policy: new Params(store, { adapter }),
    reference: objective.usesReference ? new Params(reference) : undefined,
    trainable,
    gradients,
    batch,
    accumulation: 1,
    noise: "drawn",
    conditionDropout: 0,
  });
  const update = updateGraph({ trainable, gradients, optimizer, state: optimizer.state(trainable), maxGradNorm: 1 });
  const compiled = compileWithPlan(micro, { name: "micro", ...(target && { target }) });
  const updated = compileWithPlan(update, { name: "update", ...(target && { target }) });
  const arenas = new Map<string, number>();
  for (const { name, bytes } of [...compiled.program.arenas, ...updated.program.arenas]) arenas.set(name, Math.max(arenas.get(name) ?? 0, bytes));
  return {
    arenas: [...arenas].map(([name, bytes]) => ({ name, bytes })),
    bytes: [...arenas.values()].reduce((a, b) => a + b, 0),
    lowerBound: compiled.plan.lowerBound,
    largest: compiled.plan.largest,
    trainableParameters: trainable.elements,
    flops: programFlops(compiled.program),
    traffic: programTraffic(compiled.program),
    programs: { micro: compiled.program, update: updated.program },
  };
}
