/** A CLIP text encoder with weights in a session: tokens to the features that Stable Diffusion conditions on. Programs are compiled once per shape. */

import { ConfigError, ShapeError } from "../errors.js";
import type { Executable, Session } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import type { LoraAdapter, LoraOptions } from "../nn/lora.js";
import { type ParameterStore, Params } from "../nn/params.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { ModelAdapters } from "./adapters.js";
import { type ClipTextConfig, parseClipTextConfig } from "./clip-config.js";
import { type ClipTextHostInputs, type ClipTextSelection, textFeed, textGradientGraph, textGraph } from "./clip-graphs.js";
import { adaptClipText, clipParameterOf, declareClipText } from "./clip-parameters.js";
import { gradientsOf, type ModelGradients } from "./gradients.js";
import type { LoraComponent } from "./lora-names.js";
import { checkDType, type ModelCreateOptions, ModelHandle, type ModelLoadOptions, readConfig } from "./model-handle.js";
import type { RecomputeOptions } from "./regions.js";

const baseName = "model";

/** `trainable` is false by default: of bf16, a weight takes 2 bytes. Features are f32 whatever the dtype (f64 from a model of "f64"). */
export interface ClipTextLoadOptions extends ModelLoadOptions {
  /** Whether the model has a projection; by default what "architectures" of its config says. */
  readonly projection?: boolean;
  /** What adapter files call the model: "text_encoder" by default. */
  readonly lora?: TextComponent;
}
export interface ClipTextCreateOptions extends ModelCreateOptions {
  readonly projection?: boolean;
  readonly lora?: TextComponent;
}
/** SDXL's encoders are "text_encoder", of kohya's prefix "lora_te1_", and "text_encoder_2". */
export type TextComponent = Pick<LoraComponent, "name" | "kohyaPrefix">;

export interface ClipTextRunOptions extends ClipTextSelection {
  readonly signal?: AbortSignal;
}

export interface ClipTextFeatures {
  /** After the final norm [B, N, width]: what Stable Diffusion 1 and 2 condition on. */
  readonly lastHiddenState: HostTensor;
  /** Its end-of-text token [B, width]; of the last layer, whatever clipSkip. */
  readonly pooled: HostTensor;
  /** Projected, not normalised [B, projection]: what SDXL calls pooled. Only of a model with projection. */
  readonly textEmbeds?: HostTensor;
  /** Those that were asked for, in that order, before the final norm, each [B, N, width]. SDXL conditions on [-2]. */
  readonly hiddenStates: readonly HostTensor[];
}

/** Cotangents of the results that enter the loss; hiddenStates one for each that was asked for. */
export type ClipTextCotangents = Partial<ClipTextFeatures>;

export class ClipText implements AsyncDisposable {
  readonly #handle: ModelHandle;
  /** Low-rank adapters: put on, weighted, folded in, written. */
  readonly adapters: ModelAdapters;

  private constructor(
    readonly config: ClipTextConfig,
    handle: ModelHandle,
    lora: TextComponent = { name: "text_encoder" },
  ) {
    this.#handle = handle;
    const { store, session } = handle;
    const modules = [...store.entries.keys()].flatMap(name => (name.endsWith(".weight") ? [name.slice(0, -".weight".length)] : []));
    const declare = (options: LoraOptions, arena: string): LoraAdapter => adaptClipText(config, store, options, { arena });
    this.adapters = new ModelAdapters({
      subject: "ClipText",
      store,
      session,
      component: { ...lora, modules },
      declare,
      changed: () => handle.forgetPrograms(),
    });
  }

  /** Loads a transformers folder (CLIPTextModel or CLIPTextModelWithProjection): config.json and safetensors, whole, variant or sharded, with the names of
   *  transformers 4 or 5. Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(folder: string, options: ClipTextLoadOptions): Promise<ClipText> {
    const { device, dtype = "f32", trainable = false, signal } = options;
    checkDType("ClipText.load", dtype, device);
    signal?.throwIfAborted();
    const config = readConfig(folder, (json, path) => parseClipTextConfig(json, path, options));
    const store = declareClipText(config, dtype, { trainable });
    return new ClipText(config, await ModelHandle.load("ClipText", store, { folder, baseName, parameterOf: clipParameterOf }, options), options.lora);
  }

  /** A model with random weights: `config` is what config.json would hold. */
  static async create(config: unknown, options: ClipTextCreateOptions): Promise<ClipText> {
    const { device, dtype = "f32", trainable = false } = options;
    checkDType("ClipText.create", dtype, device);
    const parsed = parseClipTextConfig(config, "ClipText.create", options);
    return new ClipText(parsed, await ModelHandle.create("ClipText", declareClipText(parsed, dtype, { trainable }), options), options.lora);
  }

  get store(): ParameterStore {
    return this.#handle.store;
  }

  get session(): Session {
    return this.#handle.session;
  }

  get params(): Params {
    return new Params(this.store, { adapter: this.adapters.active });
  }

  /** Features of token ids [B, N], N up to config.positions. Throws ShapeError, ConfigError; DataError for an id outside of the vocabulary. */
  async forward(inputs: ClipTextHostInputs, { signal, ...selection }: ClipTextRunOptions = {}): Promise<ClipTextFeatures> {
    this.#check("forward", inputs, selection);
    const key = ["forward", inputs.inputIds.shape, inputs.attentionMask?.shape, selection];
    const program = this.#program(key, () => textGraph(this.config, this.params, inputs, selection));
    return featuresOf(await this.#handle.run(program, { inputs: textFeed(this.config, inputs) }, signal), selection);
  }

  /** Gradients of the sum over the given cotangents of sum(result * cotangent) with respect to every parameter. */
  async lossAndGrads(
    { cotangents, ...inputs }: ClipTextHostInputs & { readonly cotangents: ClipTextCotangents },
    { signal, recompute, ...selection }: ClipTextRunOptions & RecomputeOptions = {},
  ): Promise<Omit<ModelGradients, "inputGrads"> & { readonly features: ClipTextFeatures }> {
    this.#check("lossAndGrads", inputs, selection);
    const { hiddenStates = [], ...others } = cotangents;
    const fed = { ...others, ...Object.fromEntries(hiddenStates.map((t, k) => [`hiddenStates.${k}`, t])) };
    const names = Object.keys(fed);
    const possible = ["lastHiddenState", "pooled", ...(this.config.projection === undefined ? [] : ["textEmbeds"])];
    possible.push(...(selection.hiddenStates ?? []).map((_, k) => `hiddenStates.${k}`));
    if (names.length === 0 || names.some(name => !possible.includes(name)))
      throw new ConfigError("ClipText.lossAndGrads", "cotangents", `given for at least one of ${possible.join(", ")}`, names);
    const key = ["gradients", recompute, inputs.inputIds.shape, inputs.attentionMask?.shape, selection, names];
    const build = () => textGradientGraph(this.config, this.params, inputs, { ...selection, recompute, cotangents: names });
    const feed = { ...textFeed(this.config, inputs), ...Object.fromEntries(Object.entries(fed).map(([name, t]) => [`d ${name}`, t])) };
    const results = await this.#handle.run(this.#program(key, build), { inputs: feed }, signal);
    const { loss, grads } = gradientsOf(results);
    return { loss, grads, features: featuresOf(results, selection) };
  }

  /** Writes config.json and the weights under the names of transformers 4. `dtype` is that of the file, by default what the weights are kept in. */
  save(folder: string, { dtype }: { readonly dtype?: HostDType } = {}): Promise<void> {
    const architecture = this.config.projection === undefined ? "CLIPTextModel" : "CLIPTextModelWithProjection";
    return this.#handle.save({ folder, baseName }, { ...this.config.json, architectures: [architecture], model_type: "clip_text_model" }, dtype);
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #program(key: readonly unknown[], build: () => Graph): Executable {
    return this.#handle.program(key, build, { ...this.store.arenas, ...this.adapters.arenas });
  }

  #check(method: string, inputs: ClipTextHostInputs, { hiddenStates = [], clipSkip = 0 }: ClipTextSelection): void {
    this.#handle.checkOpen();
    const { layers } = this.config;
    checkTextInputs(`ClipText.${method}`, this.config, inputs);
    checkStates(`ClipText.${method}`, layers, hiddenStates);
    if (!Number.isSafeInteger(clipSkip) || clipSkip < 0 || clipSkip > layers)
      throw new ConfigError(`ClipText.${method}`, "clipSkip", `a whole number in [0, ${layers}]`, clipSkip);
  }
}

/** Throws ShapeError. */
export function checkTextInputs(method: string, { positions }: ClipTextConfig, { inputIds, attentionMask }: ClipTextHostInputs): void {
  const { shape } = inputIds;
  const tokens = shape[1] ?? 0;
  if (shape.length !== 2 || shape[0]! < 1 || tokens < 1 || tokens > positions)
    throw new ShapeError(method, `expected inputIds [B, N] with N <= ${positions}, received [${shape.join(", ")}]`);
  if (attentionMask && (attentionMask.shape.length !== 2 || shape.some((n, i) => n !== attentionMask.shape[i])))
    throw new ShapeError(method, `expected attentionMask [${shape.join(", ")}], received [${attentionMask.shape.join(", ")}]`);
}

/** Throws ConfigError for a hidden state that a tower of so many layers does not have. */
export function checkStates(method: string, layers: number, indices: readonly number[]): void {
  for (const index of indices)
    if (!Number.isSafeInteger(index) || index < -layers - 1 || index > layers)
      throw new ConfigError(method, "hiddenStates", `whole numbers in [${-layers - 1}, ${layers}]`, index);
}

function featuresOf(results: Readonly<Record<string, HostTensor>>, { hiddenStates = [] }: ClipTextSelection): ClipTextFeatures {
  const { lastHiddenState, pooled, textEmbeds } = results;
  const states = hiddenStates.map((_, k) => results[`hiddenStates.${k}`]!);
  return { lastHiddenState: lastHiddenState!, pooled: pooled!, ...(textEmbeds && { textEmbeds }), hiddenStates: states };
}
