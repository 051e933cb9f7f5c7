/** One alignment: a fresh copy of the base model, trained on pairs, watched on held-out pairs, sampled at the end. */

import type { Image } from "../../lib/data/image.js";
import type { Device } from "../../lib/device.js";
import { diffusionDpo } from "../../lib/objectives/diffusion-dpo.js";
import { dspo } from "../../lib/objectives/dspo.js";
import type { Objective } from "../../lib/objectives/objective.js";
import { sft } from "../../lib/objectives/sft.js";
import type { StepEvent, TrainEvent, ValidationEvent, WarningEvent } from "../../lib/train/events.js";
import { constantWithWarmup } from "../../lib/train/lr-schedule.js";
import { type PairData, tensorPairs } from "../../lib/train/pair-data.js";
import { withProgress } from "../../lib/train/progress.js";
import { PreferenceTrainer } from "../../lib/train/trainer.js";
import type { Method } from "./cli.js";
import { conditionOf, type EmojiModel, loadModel } from "./model.js";
import { toTensor } from "./pixels.js";
import type { PreferencePair } from "./preference-files.js";
import { samplePictures } from "./sample.js";
import type { Vocabulary } from "./vocabulary.js";

/** Objective and learning rate of each method: dspo's beta scales a prediction difference, dpo's an error difference. */
export const methodSettings: {
  readonly [M in Method]: { readonly label: string; readonly objective: () => Objective; readonly setting: string; readonly learningRate: number };
} = {
  sft: { label: "SFT", objective: sft, setting: "the preferred pictures alone", learningRate: 1e-4 },
  dspo: { label: "DSPO", objective: () => dspo({ beta: 0.9 }), setting: "beta 0.9", learningRate: 1e-4 },
  dpo: { label: "Diffusion-DPO", objective: () => diffusionDpo({ beta: 2000 }), setting: "beta 2000", learningRate: 2e-5 },
};

export const training = { batchSize: 16, warmup: 10, conditionDropout: 0.1 } as const;
const validationEvery = 40;

export interface AlignOptions {
  readonly method: Method;
  /** Folder of the base model. */
  readonly base: string;
  readonly device: Device;
  readonly pairs: readonly PreferencePair[];
  readonly heldOutPairs: readonly PreferencePair[];
  /** Held-out prompts to sample, one picture each. */
  readonly prompts: readonly string[];
  readonly steps: number;
  /** Default: the method's. */
  readonly learningRate?: number | undefined;
  readonly seed: number;
  readonly sampleSeed: number;
  readonly signal?: AbortSignal | undefined;
  onEvent?(event: TrainEvent): void;
  /** Looks at the aligned model before it is closed. */
  inspect?(model: EmojiModel, pictures: readonly Image[]): Promise<void>;
}

export interface Alignment {
  readonly method: Method;
  readonly learningRate: number;
  readonly pictures: readonly Image[];
  readonly steps: readonly StepEvent[];
  /** Before the first step everything is 1 and 0.5 by definition; these are the evaluations after it. */
  readonly validations: readonly ValidationEvent[];
  readonly warnings: readonly WarningEvent[];
  /** Wall-clock time of training, validation included. */
  readonly seconds: number;
}

export async function alignModel(options: AlignOptions): Promise<Alignment> {
  const { method, base, device, pairs, heldOutPairs, prompts, steps, seed, sampleSeed, signal, onEvent } = options;
  const { objective, learningRate: usual } = methodSettings[method];
  const learningRate = options.learningRate ?? usual;
  const model = await loadModel(base, device);
  try {
    const { batchSize, warmup, conditionDropout } = training;
    const trainer = new PreferenceTrainer({
      model,
      data: pairData(pairs, model.vocabulary),
      objective: objective(),
      schedule: model.schedule,
      optimizer: { learningRate },
      learningRateSchedule: constantWithWarmup({ warmup }),
      conditionDropout,
      batchSize,
      steps,
      seed,
      validation: { data: pairData(heldOutPairs, model.vocabulary), every: Math.min(validationEvery, Math.ceil(steps / 4)) },
    });
    const events: TrainEvent[] = [];
    for await (const event of withProgress(trainer.run(signal ? { signal } : {}), { stream: process.stdout, every: 20 })) {
      events.push(event);
      onEvent?.(event);
    }
    const of = <T extends TrainEvent["type"]>(type: T) => events.filter((event): event is Extract<TrainEvent, { type: T }> => event.type === type);
    const pictures = await samplePictures(model, { prompts, seed: sampleSeed, signal });
    await options.inspect?.(model, pictures);
    return { method, learningRate, pictures, steps: of("step"), validations: of("validation"), warnings: of("warning"), seconds: of("done")[0]!.seconds };
  } finally {
    await model.close();
  }
}

function pairData(pairs: readonly PreferencePair[], vocabulary: Vocabulary): PairData {
  return tensorPairs({
    winners: toTensor(pairs.map(pair => pair.chosen)),
    losers: toTensor(pairs.map(pair => pair.rejected)),
    condition: conditionOf(
      vocabulary,
      pairs.map(pair => pair.prompt),
    ),
  });
}
