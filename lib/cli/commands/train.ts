/** A preference run from a config: the same PreferenceTrainer, its events as lines. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { CommandConfig } from "../../config/schemas.js";
import { readSafetensors } from "../../data/safetensors.js";
import { type Device, openDevice } from "../../device.js";
import { noiseSchedule } from "../../diffusion/noise-schedule.js";
import { unetDenoiser } from "../../diffusion/unet-denoiser.js";
import { DataError } from "../../errors.js";
import { UNet } from "../../models/unet-model.js";
import { diffusionDpo } from "../../objectives/diffusion-dpo.js";
import { dspo } from "../../objectives/dspo.js";
import { dspoSdxl } from "../../objectives/dspo-sdxl.js";
import type { Objective } from "../../objectives/objective.js";
import { sft } from "../../objectives/sft.js";
import { readSchedule } from "../../pipeline/schedule-file.js";
import { constantWithWarmup } from "../../train/lr-schedule.js";
import { type PairBatch, tensorPairs } from "../../train/pair-data.js";
import { describeEvent, describeStep } from "../../train/progress.js";
import { PreferenceTrainer } from "../../train/trainer.js";
import { defineCommand } from "../command.js";
import { defined } from "../defined.js";

type Config = CommandConfig<"train">;

export const train = defineCommand({
  name: "train",
  summary: "aligns a UNet to pairs of latents, checkpoints as it goes",
  async run(config, { result, note, json, signal }) {
    const device = await openDevice(config.device as Parameters<typeof openDevice>[0]);
    note(device.description);
    const pairs = readPairs(config.data);
    const unet = await openUNet(config, device, signal);
    try {
      const [, , height, width] = pairs.winners.shape as [number, number, number, number];
      const tokens = pairs.condition.encoderHiddenStates!.shape[1]!;
      const { objective, learningRate, warmup, lora, recompute } = config;
      if (lora) await unet.addLora(defined(lora), { seed: config.seed });
      const trainer = new PreferenceTrainer({
        ...runOptions(config),
        model: { denoiser: unetDenoiser(unet.config, { height, width, tokens, recompute }), store: unet.store, session: unet.session },
        schedule: scheduleOf(config.model),
        data: tensorPairs(pairs),
        objective: objectiveOf(objective),
        optimizer: { learningRate },
        ...(warmup !== undefined && { learningRateSchedule: constantWithWarmup({ warmup }) }),
        ...(unet.adapter && { lora: unet.adapter }),
      });
      for await (const event of trainer.run({ signal })) {
        if (event.type !== "step") result(event, describeEvent(event));
        else if (json || event.step % 10 === 0 || event.step === event.steps) result(event, describeStep(event));
      }
      const saved = join(config.output, lora ? "lora" : "unet");
      await (lora ? unet.saveLora(saved) : unet.save(saved));
      result({ type: "saved", path: saved }, saved);
    } finally {
      await unet.close();
    }
  },
});

/** What the trainer takes as it is. */
function runOptions(config: Config) {
  const { steps, output, seed, resume, batchSize, gradientAccumulationSteps, maxGradNorm, conditionDropout, checkpointEvery, keepCheckpoints } = config;
  return { steps, output, seed, ...defined({ resume, batchSize, gradientAccumulationSteps, maxGradNorm, conditionDropout, checkpointEvery, keepCheckpoints }) };
}

function readPairs(path: string): PairBatch {
  const file = readSafetensors(path);
  try {
    for (const name of ["winners", "encoderHiddenStates"])
      if (!file.tensors.has(name)) throw new DataError(path, `expected a tensor "${name}", received ${[...file.tensors.keys()].join(", ")}`, { field: name });
    const condition = [...file.tensors.keys()].filter(name => name !== "winners" && name !== "losers");
    return {
      winners: file.tensor("winners"),
      ...(file.tensors.has("losers") && { losers: file.tensor("losers") }),
      condition: Object.fromEntries(condition.map(name => [name, file.tensor(name)])),
    };
  } finally {
    file.close();
  }
}

function openUNet({ model, dtype, variant, lora }: Config, device: Device, signal: AbortSignal): Promise<UNet> {
  const folder = existsSync(join(model, "unet")) ? join(model, "unet") : model;
  return UNet.load(folder, { device, dtype, signal, trainable: lora === undefined, ...(variant !== undefined && { variant }) });
}

/** That of the pipeline; of a UNet alone, Stable Diffusion's. */
function scheduleOf(model: string) {
  const folder = join(model, "scheduler");
  return existsSync(folder) ? readSchedule(folder).schedule : noiseSchedule();
}

function objectiveOf(objective: Config["objective"]): Objective {
  if (objective.type === "sft") return sft();
  const { beta } = objective;
  return objective.type === "dspo" ? dspo({ beta }) : objective.type === "dspo-sdxl" ? dspoSdxl({ beta }) : diffusionDpo({ beta });
}
