/** What a run is made of, and the defaults. */

import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { ConfigError } from "../errors.js";
import type { LoraAdapter, LoraOptions } from "../nn/lora.js";
import type { Objective } from "../objectives/objective.js";
import type { EmaOptions } from "./ema.js";
import { constant, type LearningRateSchedule } from "./lr-schedule.js";
import { type AdamWOptions, adamW, type Optimizer } from "./optimizer.js";
import type { PairData } from "./pair-data.js";
import type { Trainable } from "./trainable.js";
import type { ValidationOptions } from "./validation.js";

export interface TrainerOptions {
  readonly model: Trainable;
  readonly data: PairData;
  /** dspo(), diffusionDpo(), sft(), ... */
  readonly objective: Objective;
  /** The forward process that the model was trained with. */
  readonly schedule: NoiseSchedule;
  /** Train an adapter: a new one with these options, or one that is on the model already. Default: every weight of the model. */
  readonly lora?: LoraOptions | LoraAdapter;
  /** Another adapter of the model, with its values in the session: what the objective compares with beside the reference (tgdpo, ofsFast, ofsSlow). It is
   *  read as it stands at every step. */
  readonly guide?: LoraAdapter;
  /** AdamW with these options, or another optimizer. */
  readonly optimizer: AdamWOptions | Optimizer;
  /** Factor of the learning rate at each step (default constant()). */
  readonly learningRateSchedule?: LearningRateSchedule;
  /** Optimizer steps of the whole run. */
  readonly steps: number;
  /** Pairs per micro-batch (default 1). */
  readonly batchSize?: number;
  /** Micro-batches per step (default 1). Pairs per step are batchSize x gradientAccumulationSteps. */
  readonly gradientAccumulationSteps?: number;
  /** Gradients of a larger global L2 norm are scaled down to it (default 1); Infinity: no clipping. */
  readonly maxGradNorm?: number;
  /** Probability that a pair is trained without its condition (default 0; published runs use 0.2). */
  readonly conditionDropout?: number;
  /** Keep an exponential moving average of what is trained. */
  readonly ema?: EmaOptions;
  /** Whole number in [0, 2^53): order of pairs, noise, timesteps, initial adapter (default 0). */
  readonly seed?: number;
  readonly validation?: ValidationOptions;
  /** Folder for checkpoints; without it none are written. */
  readonly output?: string;
  /** Steps between checkpoints (default 500); the end of the run, and a run broken off, are always saved. */
  readonly checkpointEvery?: number;
  /** Checkpoints kept, the newest (default 3). */
  readonly keepCheckpoints?: number;
  /** "latest": go on from the newest whole checkpoint in `output`, if there is any. A path: from that one. Default false: start anew, and refuse an `output`
   *  that holds checkpoints. */
  readonly resume?: "latest" | (string & {}) | false;
}

/** Options with every default in place. */
export type Settings = Omit<Required<TrainerOptions>, "optimizer" | "lora" | "guide" | "ema" | "validation" | "output"> & {
  readonly optimizer: Optimizer;
} & Pick<TrainerOptions, "lora" | "guide" | "ema" | "validation" | "output">;

/** Checks the options. Throws ConfigError. */
export function settingsOf(options: TrainerOptions): Settings {
  const { optimizer } = options;
  const settings: Settings = {
    learningRateSchedule: constant(),
    batchSize: 1,
    gradientAccumulationSteps: 1,
    maxGradNorm: 1,
    conditionDropout: 0,
    seed: 0,
    checkpointEvery: 500,
    keepCheckpoints: 3,
    resume: false,
    ...options,
    optimizer: "update" in optimizer ? optimizer : adamW(optimizer),
  };
  const { maxGradNorm, conditionDropout, seed, resume, output, objective, guide } = settings;
  for (const name of ["steps", "batchSize", "gradientAccumulationSteps", "checkpointEvery", "keepCheckpoints"] as const) whole(name, settings[name], 1);
  whole("seed", seed, 0);
  if (options.validation?.every !== undefined) whole("validation.every", options.validation.every, 1);
  if (!(maxGradNorm > 0)) throw new ConfigError("PreferenceTrainer", "maxGradNorm", "> 0 (Infinity: no clipping)", maxGradNorm);
  if (!(conditionDropout >= 0 && conditionDropout < 1)) throw new ConfigError("PreferenceTrainer", "conditionDropout", "in [0, 1)", conditionDropout);
  const guided = objective.uses?.includes("guide") ?? false;
  if (guided !== (guide !== undefined))
    throw new ConfigError(
      "PreferenceTrainer",
      "guide",
      guided ? `an adapter for the objective ${objective.name}` : `absent for the objective ${objective.name}`,
      guide && "an adapter",
    );
  if (resume === "latest" && output === undefined) throw new ConfigError("PreferenceTrainer", "output", 'a folder where resume is "latest"', output);
  return settings;
}

function whole(option: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) throw new ConfigError("PreferenceTrainer", option, `a whole number >= ${least}`, value);
}
