/** A UNet with weights in a session: forward passes and gradients with host tensors in and out. Programs are compiled once per shape. */

import { ConfigError } from "../errors.js";
import type { Executable, Session } from "../graph/session.js";
import type { LoraAdapter, LoraOptions } from "../nn/lora.js";
import { type ParameterStore, Params } from "../nn/params.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { type LoadLoraOptions, ModelAdapters, type SaveLoraOptions } from "./adapters.js";
import { gradientsOf, type ModelGradients } from "./gradients.js";
import { checkDType, type ModelCreateOptions, ModelHandle, type ModelLoadOptions, readConfig } from "./model-handle.js";
import type { UNetOptions } from "./unet.js";
import { parseUNetConfig, type UNetConfig } from "./unet-config.js";
import { feedOf, forwardGraph, gradientGraph, type UNetHostInputs } from "./unet-graphs.js";
import { unetComponent } from "./unet-lora.js";
import { adaptUNet, declareUNet } from "./unet-parameters.js";

/** Base name of the weights of every diffusers model folder. */
const baseName = "diffusion_pytorch_model";

/** `trainable` is true by default; frozen is enough for generating and for training an adapter. Predictions, gradients and whatever is trained are f32. */
export type UNetLoadOptions = ModelLoadOptions;
export type UNetCreateOptions = ModelCreateOptions;

/** Gradients of an adapter's parameters stand under `<module>.lora.down.weight` and `.up.weight`. */
export interface UNetGradients extends Omit<ModelGradients, "inputGrads"> {
  /** [B, outChannels, H, W]. */
  readonly output: HostTensor;
  readonly inputGrads: { readonly sample: HostTensor; readonly encoderHiddenStates: HostTensor; readonly textEmbeds?: HostTensor };
}

export interface RunOptions extends UNetOptions {
  readonly signal?: AbortSignal;
}

export class UNet implements AsyncDisposable {
  readonly #handle: ModelHandle;
  readonly adapters: ModelAdapters;

  private constructor(
    readonly config: UNetConfig,
    handle: ModelHandle,
  ) {
    this.#handle = handle;
    const { store, session } = handle;
    const component = unetComponent(config, store.entries.keys());
    const declare = (options: LoraOptions, arena: string): LoraAdapter => adaptUNet(config, store, options, { arena });
    this.adapters = new ModelAdapters({ subject: "UNet", store, session, component, declare, changed: () => handle.forgetPrograms() });
  }

  /** Loads a diffusers folder: config.json and safetensors, whole, variant or sharded. Config and weights are checked before memory is taken.
   *  Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(folder: string, options: UNetLoadOptions): Promise<UNet> {
    const { device, dtype = "f32", trainable = true, signal } = options;
    checkDType("UNet.load", dtype, device);
    signal?.throwIfAborted();
    const config = readUNetConfig(folder);
    return new UNet(config, await ModelHandle.load("UNet", declareUNet(config, dtype, { trainable }), { folder, baseName }, options));
  }

  /** A model with random weights: `config` is what config.json would hold. */
  static async create(config: unknown, options: UNetCreateOptions): Promise<UNet> {
    const { device, dtype = "f32", trainable = true } = options;
    checkDType("UNet.create", dtype, device);
    const parsed = parseUNetConfig(config, "UNet.create");
    return new UNet(parsed, await ModelHandle.create("UNet", declareUNet(parsed, dtype, { trainable }), options));
  }

  get store(): ParameterStore {
    return this.#handle.store;
  }

  get session(): Session {
    return this.#handle.session;
  }

  /** The first of the adapters that are applied. */
  get adapter(): LoraAdapter | undefined {
    return this.adapters.first;
  }

  /** Where the model function takes its parameters from. */
  get params(): Params {
    return new Params(this.store, { adapter: this.adapters.active });
  }

  /** The prediction [B, outChannels, H, W] for latents [B, inChannels, H, W]. */
  async forward(inputs: UNetHostInputs, { signal, recompute }: RunOptions = {}): Promise<HostTensor> {
    const executable = this.#executable("forward", inputs, recompute);
    const { output } = await this.#handle.run(executable, { inputs: feedOf(inputs) }, signal);
    return output!;
  }

  /** Gradients of sum(output * cotangent) with respect to inputs and every parameter; `cotangent` is shaped like the output. */
  async lossAndGrads(
    { cotangent, ...inputs }: UNetHostInputs & { readonly cotangent: HostTensor },
    { signal, recompute }: RunOptions = {},
  ): Promise<UNetGradients> {
    const applied = this.adapters.active?.stores.length ?? 0; // their parameters have the same names
    if (applied > 1) throw new ConfigError("UNet.lossAndGrads", "the adapters", "at most one that is applied", applied);
    const executable = this.#executable("gradients", inputs, recompute);
    const results = await this.#handle.run(executable, { inputs: { ...feedOf(inputs), cotangent } }, signal);
    return { ...(gradientsOf(results) as ModelGradients & Pick<UNetGradients, "inputGrads">), output: results.output! };
  }

  /** Puts a fresh adapter on the model: random A, zero B, so that the output stays what it was. */
  addLora(options: LoraOptions, { seed, name }: { readonly seed: number; readonly name?: string }): Promise<void> {
    return this.adapters.add(options, { seed, ...(name !== undefined && { name }) });
  }

  /** Puts the adapter of a file or folder on the model, in any of the key styles that diffusers, peft and kohya write; several adapters under several names.
   *  Throws WeightsError listing all tensors that are not for a module of this model, those of text encoders too unless they are in `skip`. */
  loadLora(path: string, options: LoadLoraOptions = {}): Promise<void> {
    return this.adapters.load(path, options);
  }

  /** Applies these of the loaded adapters at these strengths, and no others: `setAdapters({ style: 0.7, detail: 0.3 })`. */
  setAdapters(strengths: Readonly<Record<string, number>>): void {
    this.adapters.set(strengths);
  }

  /** Writes an adapter: into a folder as diffusers' save_lora_weights does, or to a .safetensors file; as kohya's scripts do with `{ format: "kohya" }`.
   *  Returns warnings about its values: all zero, or not finite. */
  saveLora(path: string, options: SaveLoraOptions = {}): Promise<readonly string[]> {
    return this.adapters.save(path, options);
  }

  /** Folds the applied adapters into the weights. */
  fuseLora(): Promise<void> {
    return this.adapters.fuse();
  }

  /** Takes them out again: the weights are as they were, bit for bit. */
  unfuseLora(): Promise<void> {
    return this.adapters.unfuse();
  }

  /** Writes config.json and the weights, as diffusers' save_pretrained does. `dtype` is that of the file, by default what the weights are kept in. */
  save(folder: string, { dtype }: { readonly dtype?: HostDType } = {}): Promise<void> {
    return this.#handle.save({ folder, baseName }, { _class_name: "UNet2DConditionModel", ...this.config.json }, dtype);
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #executable(kind: "forward" | "gradients", inputs: UNetHostInputs, recompute: UNetOptions["recompute"] = "none"): Executable {
    this.#handle.checkOpen();
    const { sample, encoderHiddenStates, addedText } = inputs;
    const [, channels] = sample.shape;
    if (sample.shape.length !== 4 || channels !== this.config.inChannels)
      throw new ConfigError(`UNet.${kind}`, "sample", `[B, ${this.config.inChannels}, H, W]`, sample.shape);
    const key = [kind, recompute, sample.shape, encoderHiddenStates.shape, addedText?.textEmbeds.shape, addedText?.timeIds.shape];
    const build = kind === "forward" ? forwardGraph : gradientGraph;
    return this.#handle.program(key, () => build(this.config, this.params, inputs, recompute), { ...this.store.arenas, ...this.adapters.arenas });
  }
}

/** The config of a diffusers UNet folder. Throws DataError or ConfigError. */
export function readUNetConfig(folder: string): UNetConfig {
  return readConfig(folder, parseUNetConfig);
}
