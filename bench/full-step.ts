/** Training steps of full-size models, built without a device: what plan.ts plans and floors.ts counts. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { noiseSchedule } from "../lib/diffusion/noise-schedule.js";
import { unetDenoiser } from "../lib/diffusion/unet-denoiser.js";
import { opTable } from "../lib/graph/op.js";
import type { Target } from "../lib/graph/target.js";
import type { Graph } from "../lib/graph/tensor.js";
import { parseUNetConfig, type UNetConfig } from "../lib/models/unet-config.js";
import { adaptUNet, declareUNet } from "../lib/models/unet-parameters.js";
import { Params, storage } from "../lib/nn/params.js";
import { dspo } from "../lib/objectives/dspo.js";
import { adamW } from "../lib/train/optimizer.js";
import { microGraph, updateGraph } from "../lib/train/step.js";

export interface Case {
  readonly model: "sd15" | "sdxl-base";
  readonly dtype: "f32" | "bf16";
  readonly pairs: number;
  /** LoRA rank, or undefined: all parameters are trained and a frozen copy is the reference. */
  readonly rank?: number;
  readonly recompute: "none" | "blocks";
  /** For a backend that has the kernels of all fused ops. */
  readonly fused?: true;
}

/** A backend that has the kernels of all fused ops. */
export const everyKernel: Target = { backend: "cuda", kernels: new Set(opTable.keys()) };

function readConfig(model: Case["model"]): UNetConfig {
  const path = join(__dirname, "..", "..", "..", "bench", "configs", `${model}-unet.json`);
  return parseUNetConfig(JSON.parse(readFileSync(path, "utf8")), path);
}

export function buildStep({ model, dtype, pairs: batch, rank, recompute }: Case): { micro: Graph; update: Graph } {
  const config = readConfig(model);
  const store = declareUNet(config, dtype, { trainable: rank === undefined });
  const adapter = rank ? adaptUNet(config, store, { rank }) : undefined;
  const trainable = adapter?.store ?? store;
  const gradients = trainable.mirror("gradients");
  const optimizer = adamW({ learningRate: 1e-6 });
  const micro = microGraph({
    denoiser: unetDenoiser(config, { height: config.sampleSize!, width: config.sampleSize!, recompute }),
    objective: dspo({ beta: 0.01 }),
    schedule: noiseSchedule(),
    policy: new Params(store, { adapter }),
    reference: new Params(adapter ? store : store.mirror("reference", storage(dtype, false))),
    trainable,
    gradients,
    batch,
    accumulation: 1,
    noise: "drawn",
    conditionDropout: 0,
  });
  return { micro, update: updateGraph({ trainable, gradients, optimizer, state: optimizer.state(trainable), maxGradNorm: 1 }) };
}
