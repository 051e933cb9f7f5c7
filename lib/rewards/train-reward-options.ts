/** What a reward is trained on and how: choices between two pictures of one prompt, and the settings of PickScore's and HPSv2's procedures. */

import { ConfigError, ShapeError } from "../errors.js";
import type { Tensor } from "../graph/tensor.js";
import type { ClipConfig } from "../models/clip-config.js";
import type { RecomputeOptions } from "../models/regions.js";
import type { ParameterEntry } from "../nn/params.js";
import type { HostTensor } from "../util/host-tensor.js";
import type { ScoredChoices } from "./losses.js";

export interface ChoiceBatch {
  /** Standardised pictures [B, 3, S, S]. */
  readonly first: HostTensor;
  readonly second: HostTensor;
  /** Ids of the prompts [B, N]. */
  readonly inputIds: HostTensor;
  /** Of each pair, the first's share of the choice: 1, 0, or 0.5 for a tie. */
  readonly labels: readonly number[];
  /** Of each pair; PickScore's are one over the number of examples of the prompt. All 1 by default. */
  readonly weights?: readonly number[];
}

export interface RewardTrainerOptions extends RecomputeOptions {
  /** Losses of each example [B]: `choiceDivergences` (PickScore's, the default) or `choiceEntropies` (HPSv2's). */
  readonly losses?: (choices: ScoredChoices) => Tensor;
  /** "mean" by weight over all batches of a step (PickScore), or their "sum" (HPSv2). */
  readonly reduction?: "mean" | "sum";
  /** Which parameters move, by name; all by default. `hpsTrains` is HPSv2's choice. */
  readonly trains?: (name: string) => boolean;
  /** Which of them decay; all by default. HPSv2 spares vectors and logit_scale. */
  readonly decays?: (entry: Pick<ParameterEntry, "name" | "shape">) => boolean;
  /** PickScore 3e-6, HPSv2 3.3e-6, with a schedule of the caller's: `step` takes a factor. */
  readonly learningRate: number;
  readonly weightDecay?: number;
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  /** Of the global gradient; 1 by default. */
  readonly maxGradNorm?: number;
  /** logit_scale is kept within: [0, ln 100] in HPSv2's code; free by default. */
  readonly logitScaleRange?: readonly [number, number];
}

export interface RewardStep {
  /** Before the update, reduced as trained. */
  readonly loss: number;
  /** Share of pairs whose chosen picture scores higher; ties of people are left out, ties of the model count a half. NaN where all are ties. */
  readonly accuracy: number;
  /** NaN or infinity: nothing was moved. */
  readonly gradNorm: number;
}

/** HPSv2's partial training of ViT-H/14 (`lock_image`, `lock_text` of its script): the last 11 text layers, the last 19 picture layers, final norms, projections, logit_scale. */
export function hpsTrains({ text, vision }: ClipConfig, { textLayers = 11, imageLayers = 19 } = {}): (name: string) => boolean {
  return name => {
    const layer = /^(text|vision)_model\.encoder\.layers\.(\d+)\./.exec(name);
    if (layer) return layer[1] === "text" ? Number(layer[2]) >= text.layers - textLayers : Number(layer[2]) >= vision.layers - imageLayers;
    return /^(text_model\.final_layer_norm|vision_model\.post_layernorm|text_projection|visual_projection|logit_scale)\b/.test(name);
  };
}

/** Of each pair; 1 by default. */
export function weightsOf({ labels, weights }: ChoiceBatch): readonly number[] {
  return weights ?? labels.map(() => 1);
}

/** Throws ConfigError. */
export function checkOptions({
  learningRate,
  weightDecay = 0,
  betas = [0.9, 0.999],
  eps = 1e-8,
  maxGradNorm = 1,
  reduction = "mean",
}: RewardTrainerOptions): void {
  const refuse = (option: string, expected: string, received: unknown): never => {
    throw new ConfigError("RewardTrainer", option, expected, received);
  };
  if (!(learningRate > 0 && Number.isFinite(learningRate))) refuse("learningRate", "a finite number > 0", learningRate);
  if (!(weightDecay >= 0)) refuse("weightDecay", "a number >= 0", weightDecay);
  if (!betas.every(b => b >= 0 && b < 1)) refuse("betas", "two numbers in [0, 1)", betas);
  if (!(eps > 0)) refuse("eps", "a number > 0", eps);
  if (!(maxGradNorm > 0)) refuse("maxGradNorm", "a number > 0", maxGradNorm);
  if (reduction !== "mean" && reduction !== "sum") refuse("reduction", '"mean" or "sum"', reduction);
}

/** Throws ShapeError, ConfigError. */
export function checkBatch({ vision, text }: ClipConfig, { first, second, inputIds, labels, weights }: ChoiceBatch): void {
  const batch = labels.length;
  const wanted = [batch, vision.channels, vision.imageSize, vision.imageSize];
  const refuse = (name: string, expected: string, shape: readonly number[]): never => {
    throw new ShapeError("RewardTrainer", `expected ${name} ${expected}, received [${shape.join(", ")}]`);
  };
  for (const [name, { shape }] of [["first", first] as const, ["second", second] as const])
    if (shape.length !== 4 || batch < 1 || wanted.some((n, i) => n !== shape[i])) refuse(name, `[${wanted.join(", ")}]`, shape);
  if (inputIds.shape.length !== 2 || inputIds.shape[0] !== batch || inputIds.shape[1]! > text.positions)
    refuse("inputIds", `[${batch}, N] with N <= ${text.positions}`, inputIds.shape);
  const bad = labels.find(l => l !== 0 && l !== 1 && l !== 0.5);
  if (bad !== undefined) throw new ConfigError("RewardTrainer", "labels", "0, 1 or 0.5", bad);
  if (weights && (weights.length !== batch || !weights.every(w => w > 0 && Number.isFinite(w))))
    throw new ConfigError("RewardTrainer", "weights", `${batch} numbers > 0`, weights);
}
