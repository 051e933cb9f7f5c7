/** CLIP with weights in a session: texts and pictures as unit vectors, and the logits of every pair. Programs are compiled once per shape. */

import type { TensorFile } from "../data/safetensors.js";
import { ConfigError, ShapeError } from "../errors.js";
import type { Session } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import { type ParameterStore, Params } from "../nn/params.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { type ClipConfig, parseClipConfig } from "./clip-config.js";
import { type ClipTextHostInputs, clipGraph, imageFeatureGraph, textFeatureGraph, textFeed } from "./clip-graphs.js";
import { clipParameterOf, declareClip } from "./clip-parameters.js";
import { checkStates, checkTextInputs } from "./clip-text-model.js";
import { gradientsOf, type ModelGradients } from "./gradients.js";
import { readParameter } from "./load.js";
import { checkDType, type ModelCreateOptions, ModelHandle, type ModelLoadOptions, readConfig } from "./model-handle.js";
import type { RecomputeOptions } from "./regions.js";

const baseName = "model";

/** `trainable` is false by default: of bf16, a weight takes 2 bytes. Embeddings and logits are f32 whatever the dtype (f64 from a model of "f64"). */
export type ClipLoadOptions = ModelLoadOptions;
export type ClipCreateOptions = ModelCreateOptions;

export interface ClipHostInputs extends ClipTextHostInputs {
  /** Pictures [I, channels, imageSize, imageSize], resized and standardised as the model's preprocessing does. */
  readonly pixels: HostTensor;
}

export interface ClipResults {
  /** exp(logit_scale) * cosine [I, B]. */
  readonly logitsPerImage: HostTensor;
  /** Its transpose [B, I]. */
  readonly logitsPerText: HostTensor;
  /** Unit vectors [B, projection]. */
  readonly textEmbeds: HostTensor;
  /** Unit vectors [I, projection]. */
  readonly imageEmbeds: HostTensor;
}

export interface ClipImageFeatures {
  /** Unit vectors [I, projection]. */
  readonly imageEmbeds: HostTensor;
  /** The normalised class token before the projection [I, width]. */
  readonly pooled: HostTensor;
  /** Those that were asked for, in that order, each [I, 1 + patches, width]. */
  readonly hiddenStates: readonly HostTensor[];
}

export interface ClipGradients extends Omit<ModelGradients, "inputGrads"> {
  readonly results: ClipResults;
  readonly inputGrads: { readonly pixels: HostTensor };
}

const resultNames: readonly string[] = ["logitsPerImage", "logitsPerText", "textEmbeds", "imageEmbeds"];

interface Signalled {
  readonly signal?: AbortSignal;
}

export class Clip implements AsyncDisposable {
  readonly #handle: ModelHandle;

  private constructor(
    readonly config: ClipConfig,
    handle: ModelHandle,
  ) {
    this.#handle = handle;
  }

  /** Loads a transformers folder (CLIPModel): config.json and safetensors, whole, variant or sharded.
   *  Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(folder: string, options: ClipLoadOptions): Promise<Clip> {
    const { device, dtype = "f32", trainable = false, signal } = options;
    checkDType("Clip.load", dtype, device);
    signal?.throwIfAborted();
    const config = readConfig(folder, parseClipConfig);
    const store = declareClip(config, dtype, { trainable });
    return new Clip(config, await ModelHandle.load("Clip", store, { folder, baseName, parameterOf: clipParameterOf }, options));
  }

  /** A model of an open file, which is closed, under transformers' names: what `openClipWeights` makes of a checkpoint of open_clip. Throws as `load`. */
  static async fromWeights(config: ClipConfig, file: TensorFile, options: Omit<ClipLoadOptions, "variant">): Promise<Clip> {
    const { device, dtype = "f32", trainable = false, signal } = options;
    checkDType("Clip.fromWeights", dtype, device);
    signal?.throwIfAborted();
    const store = declareClip(config, dtype, { trainable });
    return new Clip(config, await ModelHandle.read("Clip", store, file, options, { parameterOf: clipParameterOf }));
  }

  /** A model with random weights: `config` is what config.json would hold. */
  static async create(config: unknown, options: ClipCreateOptions): Promise<Clip> {
    const { device, dtype = "f32", trainable = false } = options;
    checkDType("Clip.create", dtype, device);
    const parsed = parseClipConfig(config, "Clip.create");
    return new Clip(parsed, await ModelHandle.create("Clip", declareClip(parsed, dtype, { trainable }), options));
  }

  get store(): ParameterStore {
    return this.#handle.store;
  }

  get session(): Session {
    return this.#handle.session;
  }

  get params(): Params {
    return new Params(this.store);
  }

  /** Unit vectors [B, projection] of texts: computed once per prompt, they serve any number of pictures. */
  async encodeText(inputs: ClipTextHostInputs, { signal }: Signalled = {}): Promise<HostTensor> {
    this.#handle.checkOpen();
    checkTextInputs("Clip.encodeText", this.config.text, inputs);
    const key = ["text", inputs.inputIds.shape, inputs.attentionMask?.shape];
    const results = await this.#run(key, () => textFeatureGraph(this.config, this.params, inputs), textFeed(this.config.text, inputs), signal);
    return results.textEmbeds!;
  }

  /** Features of pictures. `hiddenStates` names the states that are wanted besides, 0 the embeddings, -1 the last. */
  async encodeImage(
    pixels: HostTensor,
    { hiddenStates = [], signal }: Signalled & { readonly hiddenStates?: readonly number[] } = {},
  ): Promise<ClipImageFeatures> {
    this.#checkPixels("encodeImage", pixels);
    checkStates("Clip.encodeImage", this.config.vision.layers, hiddenStates);
    const key = ["image", pixels.shape, hiddenStates];
    const results = await this.#run(key, () => imageFeatureGraph(this.config, this.params, pixels, hiddenStates), { pixels }, signal);
    return { imageEmbeds: results.imageEmbeds!, pooled: results.pooled!, hiddenStates: hiddenStates.map((_, k) => results[`hiddenStates.${k}`]!) };
  }

  /** Both, and the logits of every pair. */
  async forward(inputs: ClipHostInputs, { signal }: Signalled = {}): Promise<ClipResults> {
    this.#checkBoth("forward", inputs);
    const key = ["forward", inputs.inputIds.shape, inputs.attentionMask?.shape, inputs.pixels.shape];
    return resultsOf(await this.#run(key, () => clipGraph(this.config, this.params, inputs), this.#feed(inputs), signal));
  }

  /** Gradients of the sum over the given cotangents of sum(result * cotangent) with respect to the pictures and every parameter. */
  async lossAndGrads(
    { cotangents, ...inputs }: ClipHostInputs & { readonly cotangents: Partial<ClipResults> },
    { signal, recompute }: Signalled & RecomputeOptions = {},
  ): Promise<ClipGradients> {
    this.#checkBoth("lossAndGrads", inputs);
    const names = Object.keys(cotangents);
    if (names.length === 0 || names.some(name => !resultNames.includes(name)))
      throw new ConfigError("Clip.lossAndGrads", "cotangents", `given for at least one of ${resultNames.join(", ")}`, names);
    const key = ["gradients", recompute, inputs.inputIds.shape, inputs.attentionMask?.shape, inputs.pixels.shape, names];
    const feed = { ...this.#feed(inputs), ...Object.fromEntries(Object.entries(cotangents).map(([name, t]) => [`d ${name}`, t])) };
    const results = await this.#run(key, () => clipGraph(this.config, this.params, inputs, { cotangents: names, recompute }), feed, signal);
    return { ...(gradientsOf(results) as ModelGradients & Pick<ClipGradients, "inputGrads">), results: resultsOf(results) };
  }

  /** exp(logit_scale): the factor between cosines and logits, 100 of released models. */
  async logitScale(): Promise<number> {
    this.#handle.checkOpen();
    const { data } = await readParameter(this.session, this.store, this.store.entries.get("logit_scale")!, "f64");
    return Math.exp(Number(data[0]));
  }

  /** Writes config.json and the weights, as transformers' save_pretrained does. `dtype` is that of the file, by default what the weights are kept in. */
  save(folder: string, { dtype }: { readonly dtype?: HostDType } = {}): Promise<void> {
    return this.#handle.save({ folder, baseName }, { architectures: ["CLIPModel"], model_type: "clip", ...this.config.json }, dtype);
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #run(key: readonly unknown[], build: () => Graph, inputs: Readonly<Record<string, HostTensor>>, signal?: AbortSignal): Promise<Record<string, HostTensor>> {
    return this.#handle.run(this.#handle.program(key, build), { inputs }, signal);
  }

  #feed({ pixels, ...text }: ClipHostInputs): Record<string, HostTensor> {
    return { ...textFeed(this.config.text, text), pixels };
  }

  #checkBoth(method: string, inputs: ClipHostInputs): void {
    this.#checkPixels(method, inputs.pixels);
    checkTextInputs(`Clip.${method}`, this.config.text, inputs);
  }

  #checkPixels(method: string, { shape }: HostTensor): void {
    this.#handle.checkOpen();
    const { channels, imageSize } = this.config.vision;
    if (shape.length !== 4 || shape[0]! < 1 || [channels, imageSize, imageSize].some((n, i) => n !== shape[i + 1]))
      throw new ShapeError(`Clip.${method}`, `expected pixels [I, ${channels}, ${imageSize}, ${imageSize}], received [${shape.join(", ")}]`);
  }
}

function resultsOf({ logitsPerImage, logitsPerText, textEmbeds, imageEmbeds }: Readonly<Record<string, HostTensor>>): ClipResults {
  return { logitsPerImage: logitsPerImage!, logitsPerText: logitsPerText!, textEmbeds: textEmbeds!, imageEmbeds: imageEmbeds! };
}
