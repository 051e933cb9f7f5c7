/** Training of a CLIP reward on choices between two pictures of one prompt, whole or in part: PickScore's and HPSv2's procedure. As everywhere a step is two
 *  programs: `micro` adds the gradients of one batch to their arena, `update` clips and moves the weights. */

import { ConfigError, ShapeError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import { grad } from "../graph/grad.js";
import { wide } from "../graph/ops/check.js";
import { add, cast, clamp, div, minimum, mul, shift, sqrt, sub } from "../graph/ops/elementwise.js";
import { full, input } from "../graph/ops/leaf.js";
import { accumulate, adamw, assign, fill } from "../graph/ops/optimizer.js";
import { sum, sumSquares } from "../graph/ops/reduce.js";
import { reshape } from "../graph/ops/shape.js";
import { scalar } from "../graph/scalars.js";
import type { Executable } from "../graph/session.js";
import { buildGraph, type Graph, type Tensor, typed } from "../graph/tensor.js";
import { clipImageFeatures, clipTextFeatures } from "../models/clip.js";
import type { ClipConfig } from "../models/clip-config.js";
import type { Clip } from "../models/clip-model.js";
import { pooledRows } from "../models/clip-text.js";
import type { RecomputeOptions } from "../models/regions.js";
import { type ParameterEntry, ParameterStore } from "../nn/params.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { choiceDivergences, type ScoredChoices, scaledCosine } from "./losses.js";
import type { RewardOptions } from "./reward.js";

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

export class RewardTrainer {
  /** Names of the parameters that move. */
  readonly trained: readonly string[];
  readonly #clip: Clip;
  readonly #options: RewardTrainerOptions;
  readonly #stores: { readonly gradients: ParameterStore; readonly m: ParameterStore; readonly v: ParameterStore };
  readonly #programs = new Map<string, Executable>();
  #updates = 0;

  /** The model is trained in place, in its own session; backbones of it have to be made anew, since they remember vectors. Throws ConfigError. */
  constructor(clip: Clip, options: RewardTrainerOptions) {
    checkOptions(options);
    const { store } = clip;
    if (store.dtype === "bf16") throw new ConfigError("RewardTrainer", "the model", "loaded with trainable: true", "a frozen model of bf16");
    const moving = [...store.entries.values()].filter(({ name }) => options.trains?.(name) ?? true);
    if (moving.length === 0) throw new ConfigError("RewardTrainer", "trains", "true of some parameter", "of none");
    this.#clip = clip;
    this.#options = options;
    this.trained = moving.map(({ name }) => name);
    const of = (part: string): ParameterStore => mirrorOf(store, moving, `${store.arena}/${part}`);
    this.#stores = { gradients: of("gradients"), m: of("exp_avg"), v: of("exp_avg_sq") };
  }

  /** One update from the gradients of all batches together. `factor` multiplies the learning rate. Throws ShapeError, ConfigError; the signal's reason, with nothing moved. */
  async step(batches: readonly ChoiceBatch[], { signal, factor = 1 }: RewardOptions & { readonly factor?: number } = {}): Promise<RewardStep> {
    const { clear, update } = this.#effects();
    await this.#run(clear, {}, {});
    const { loss, accuracy } = await this.#all(batches, "train", signal);
    const [beta1, beta2] = this.#options.betas ?? [0.9, 0.999];
    const t = this.#updates + 1;
    const scalars = { learningRate: this.#options.learningRate * factor, correction1: 1 - beta1 ** t, correction2: 1 - beta2 ** t };
    signal?.throwIfAborted(); // from here on it is done whole
    const gradNorm = Number((await this.#run(update, {}, scalars)).gradNorm!.data[0]);
    if (Number.isFinite(gradNorm)) this.#updates = t;
    return { loss, accuracy, gradNorm };
  }

  /** Loss and accuracy; nothing moves. */
  evaluate(batches: readonly ChoiceBatch[], { signal }: RewardOptions = {}): Promise<Omit<RewardStep, "gradNorm">> {
    return this.#all(batches, "evaluate", signal);
  }

  async #all(batches: readonly ChoiceBatch[], kind: "train" | "evaluate", signal: AbortSignal | undefined) {
    if (batches.length === 0) throw new ConfigError("RewardTrainer", "batches", "at least one", 0);
    for (const batch of batches) checkBatch(this.#clip.config, batch);
    const total = batches.flatMap(weightsOf).reduce((a, b) => a + b, 0);
    const normalizer = (this.#options.reduction ?? "mean") === "mean" ? 1 / total : 1;
    let [loss, right, judged] = [0, 0, 0];
    for (const batch of batches) {
      const results = await this.#run(this.#micro(kind, batch), this.#feed(batch), { normalizer }, signal);
      loss += Number(results.loss!.data[0]);
      for (const [i, label] of batch.labels.entries()) {
        if (label === 0.5) continue;
        const margin = Number(results.first!.data[i]) - Number(results.second!.data[i]);
        judged++;
        right += margin === 0 ? 0.5 : Number(margin > 0 === label > 0.5);
      }
    }
    return { loss, accuracy: right / judged };
  }

  #feed(batch: ChoiceBatch): Record<string, HostTensor> {
    const { first, second, inputIds, labels } = batch;
    const vector = (values: readonly number[]): HostTensor => hostTensor("f64", [values.length], Float64Array.from(values));
    const texts = { inputIds, pooledRows: pooledRows(this.#clip.config.text, inputIds) };
    return { firstPixels: first, secondPixels: second, ...texts, labels: vector(labels), weights: vector(weightsOf(batch)) };
  }

  #micro(kind: "train" | "evaluate", { first, inputIds }: ChoiceBatch): Executable {
    return this.#program(`${kind} ${first.shape[0]} ${inputIds.shape[1]}`, () =>
      buildGraph(g => {
        const { loss, scores } = this.#lossOf(first.shape[0]!, inputIds.shape[1]!);
        g.output("loss", loss);
        for (const [name, tensor] of Object.entries(scores)) g.output(name, tensor);
        if (kind === "evaluate") return;
        const { store } = this.#clip;
        const leaves = this.trained.map(name => store.leaf(name));
        const grads = grad(loss, leaves, { unreachable: "zeros" });
        for (const [i, name] of this.trained.entries()) {
          const target = this.#stores.gradients.kept(name);
          accumulate(target, cast(grads[i]!, target.dtype));
        }
      }),
    );
  }

  #lossOf(batch: number, tokens: number): { readonly loss: Tensor; readonly scores: { readonly first: Tensor; readonly second: Tensor } } {
    const { config, params, store } = this.#clip;
    const { losses = choiceDivergences, recompute } = this.#options;
    const { imageSize, channels } = config.vision;
    const dtype = wide(store.computes) as "f32" | "f64";
    const pixels = ["firstPixels", "secondPixels"].map(name => input(name, typed(dtype, batch, imageSize, imageSize, channels), "bchw"));
    const [firstLabel, weights] = ["labels", "weights"].map(name => input(name, typed("f64", batch)));
    const texts = { inputIds: input("inputIds", typed("i32", batch, tokens)), pooledRows: input("pooledRows", typed("i32", batch)) };
    const { textEmbeds } = clipTextFeatures(config, params, texts, { recompute });
    const logScale = cast(params.tensor("logit_scale", [], { init: { value: config.logitScale } }), "f64");
    // Picture by picture of a pair, each a batch of its own: what is held for the backward pass of one can be recomputed alone.
    const [first, second] = pixels.map(x => {
      const { imageEmbeds } = clipImageFeatures(config, params, x, { recompute });
      return scaledCosine(cast(textEmbeds, "f64"), cast(imageEmbeds, "f64"), logScale); // margins are small differences of large numbers
    });
    const secondLabel = sub(full(1, [batch], "f64"), firstLabel!);
    const each = losses({ first: first!, second: second!, firstLabel: firstLabel!, secondLabel });
    return { loss: mul(reshape(sum(mul(weights!, each)), [1]), scalar("normalizer")), scores: { first: first!, second: second! } };
  }

  #effects(): { readonly clear: Executable; readonly update: Executable } {
    const { gradients } = this.#stores;
    return {
      clear: this.#program("clear", () => buildGraph(() => void fill(gradients.flat(), 0))),
      update: this.#program("update", () => buildGraph(g => this.#update(g))),
    };
  }

  #update(g: Graph): void {
    const { store } = this.#clip;
    const { gradients, m, v } = this.#stores;
    const { betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8, weightDecay = 0.01, maxGradNorm = 1, decays = () => true, logitScaleRange } = this.#options;
    const norm = sqrt(sumSquares(gradients.flat()));
    const coefficient = minimum(full(1, [1], "f64"), div(full(maxGradNorm, [1], "f64"), shift(norm, 1e-6)));
    const gradScale = add(coefficient, sub(norm, norm)); // NaN where the norm is no number: then nothing is written
    for (const name of this.trained) {
      const entry = store.entries.get(name)!;
      const decay = decays(entry) ? weightDecay : 0;
      adamw({ param: store.kept(name), grad: gradients.kept(name), m: m.kept(name), v: v.kept(name), gradScale }, { beta1, beta2, eps, weightDecay: decay });
    }
    if (logitScaleRange && this.trained.includes("logit_scale")) {
      const kept = store.kept("logit_scale");
      assign(kept, clamp(kept, { min: logitScaleRange[0], max: logitScaleRange[1] }));
    }
    store.refresh();
    g.output("gradNorm", norm);
  }

  #program(key: string, build: () => Graph): Executable {
    const known = this.#programs.get(key);
    if (known) return known;
    const { session, store } = this.#clip;
    const { gradients, m, v } = this.#stores;
    const arenas = Object.assign({}, ...[store, gradients, m, v].map(s => s.arenas)) as Record<string, number>;
    const executable = session.compile(compileGraph(build(), { name: `reward ${key}`, arenas, target: session.target }));
    this.#programs.set(key, executable);
    return executable;
  }

  #run(executable: Executable, inputs: Readonly<Record<string, HostTensor>>, scalars: Readonly<Record<string, number>>, signal?: AbortSignal) {
    return this.#clip.session.run(executable, { inputs, scalars }, signal ? { signal } : {});
  }
}

/** A store of these entries alone, in an arena of its own. */
function mirrorOf({ dtype }: ParameterStore, entries: readonly ParameterEntry[], arena: string): ParameterStore {
  const store = new ParameterStore({ arena, dtype, trainable: false });
  buildGraph(() => {
    for (const { name, shape, layout, init } of entries) store.tensor(name, shape, { layout, init });
  });
  store.seal();
  return store;
}

function weightsOf({ labels, weights }: ChoiceBatch): readonly number[] {
  return weights ?? labels.map(() => 1);
}

function checkOptions({ learningRate, weightDecay = 0, betas = [0.9, 0.999], eps = 1e-8, maxGradNorm = 1, reduction = "mean" }: RewardTrainerOptions): void {
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

function checkBatch({ vision, text }: ClipConfig, { first, second, inputIds, labels, weights }: ChoiceBatch): void {
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
