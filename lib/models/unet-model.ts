/** A UNet with weights in a session: forward passes and gradients with host tensors in and out. Programs are compiled once per shape. */

import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors } from "../data/safetensors.js";
import { readWeights } from "../data/weights.js";
import type { Device } from "../device.js";
import { ClosedError, ConfigError, DataError } from "../errors.js";
import { compileGraph } from "../graph/compile.js";
import type { Executable, Session } from "../graph/session.js";
import { initialise, initialStreams, reserve } from "../nn/init.js";
import type { LoraAdapter, LoraOptions } from "../nn/lora.js";
import { type ModelDType, type ParameterStore, Params } from "../nn/params.js";
import { writeAtomically, writeFully } from "../util/atomic-file.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type LoadControl, loadWeights, matchWeights, storedWeights } from "./load.js";
import { readLora, writeLora } from "./lora-file.js";
import type { UNetOptions } from "./unet.js";
import { parseUNetConfig, type UNetConfig } from "./unet-config.js";
import { feedOf, forwardGraph, gradientGraph, gradientNames, type UNetHostInputs } from "./unet-graphs.js";
import { adaptUNet, declareUNet } from "./unet-parameters.js";

/** Base name of the weights of every diffusers model folder. */
const baseName = "diffusion_pytorch_model";

export interface UNetLoadOptions extends LoadControl {
  readonly device: Device;
  /** Dtype of arithmetic, whatever the files hold: "f32" by default. "bf16" needs a GPU; predictions, gradients and whatever is trained stay f32. */
  readonly dtype?: ModelDType;
  /** Whether the weights themselves may be trained (default true). Frozen, a model of "bf16" takes 2 bytes a weight rather than 6: enough for
   *  generating and for training an adapter. */
  readonly trainable?: boolean;
  /** "fp16" reads `diffusion_pytorch_model.fp16.safetensors`. */
  readonly variant?: string;
}

export interface UNetCreateOptions extends Omit<UNetLoadOptions, "variant" | keyof LoadControl> {
  /** A whole number; the same seed gives the same weights on every backend. */
  readonly seed: number;
}

export interface UNetGradients {
  /** sum(output * cotangent). */
  readonly loss: number;
  /** [B, outChannels, H, W]. */
  readonly output: HostTensor;
  /** d loss / d parameter by checkpoint name, in checkpoint order; an adapter's under `<module>.lora.down.weight` and `.up.weight`. */
  readonly grads: Readonly<Record<string, HostTensor>>;
  readonly inputGrads: { readonly sample: HostTensor; readonly encoderHiddenStates: HostTensor; readonly textEmbeds?: HostTensor };
}

export interface RunOptions extends UNetOptions {
  readonly signal?: AbortSignal;
}

export class UNet implements AsyncDisposable {
  readonly #programs = new Map<string, Executable>();
  #adapter: LoraAdapter | undefined;
  #adapting = false;
  #closed = false;

  private constructor(
    readonly config: UNetConfig,
    readonly store: ParameterStore,
    readonly session: Session,
  ) {}

  /** Loads a diffusers folder: config.json and safetensors, whole, variant or sharded. Config and weights are checked before memory is taken.
   *  Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(folder: string, { device, dtype = "f32", trainable = true, variant, signal, onProgress }: UNetLoadOptions): Promise<UNet> {
    checkDType("UNet.load", dtype, device);
    signal?.throwIfAborted();
    const config = readUNetConfig(folder);
    const store = declareUNet(config, dtype, { trainable });
    const file = readWeights(folder, baseName, variant);
    try {
      matchWeights(store, file);
      return await UNet.#open(config, store, device, session => loadWeights(session, store, file, { signal, onProgress }));
    } finally {
      file.close();
    }
  }

  /** A model with random weights: `config` is what config.json would hold. */
  static async create(config: unknown, { device, dtype = "f32", trainable = true, seed }: UNetCreateOptions): Promise<UNet> {
    checkDType("UNet.create", dtype, device);
    const parsed = parseUNetConfig(config, "UNet.create");
    const store = declareUNet(parsed, dtype, { trainable });
    return UNet.#open(parsed, store, device, session => initialise(session, store, { seed, stream: initialStreams.model }));
  }

  static async #open(config: UNetConfig, store: ParameterStore, device: Device, fill: (session: Session) => void | Promise<void>): Promise<UNet> {
    const session = device.openSession();
    try {
      reserve(session, store);
      await fill(session);
      return new UNet(config, store, session);
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  get adapter(): LoraAdapter | undefined {
    return this.#adapter;
  }

  /** Where the model function takes its parameters from. */
  get params(): Params {
    return new Params(this.store, { adapter: this.#adapter });
  }

  /** The prediction [B, outChannels, H, W] for latents [B, inChannels, H, W]. */
  async forward(inputs: UNetHostInputs, { signal, recompute }: RunOptions = {}): Promise<HostTensor> {
    const executable = this.#executable("forward", inputs, recompute);
    const { output } = await this.session.run(executable, { inputs: feedOf(inputs) }, signal ? { signal } : {});
    return output!;
  }

  /** Gradients of sum(output * cotangent) with respect to inputs and every parameter; `cotangent` is shaped like the output. */
  async lossAndGrads(
    { cotangent, ...inputs }: UNetHostInputs & { readonly cotangent: HostTensor },
    { signal, recompute }: RunOptions = {},
  ): Promise<UNetGradients> {
    const executable = this.#executable("gradients", inputs, recompute);
    const results = await this.session.run(executable, { inputs: { ...feedOf(inputs), cotangent } }, signal ? { signal } : {});
    const inputGrads = withPrefix(results, gradientNames.input) as unknown as UNetGradients["inputGrads"];
    return { loss: Number(results.loss!.data[0]), output: results.output!, grads: withPrefix(results, gradientNames.parameter), inputGrads };
  }

  /** Puts a fresh adapter on the model: random A, zero B, so that the output stays what it was. */
  async addLora(options: LoraOptions, { seed }: { readonly seed: number }): Promise<void> {
    await this.#adapt(options, store => initialise(this.session, store, { seed, stream: initialStreams.adapter }));
  }

  /** Puts the adapter of a file or folder on the model, in any of the key styles that diffusers, peft and kohya write. */
  async loadLora(path: string, { strength = 1, signal, onProgress }: { readonly strength?: number } & LoadControl = {}): Promise<void> {
    const modules = [...this.store.entries.keys()].flatMap(name => (name.endsWith(".weight") ? [name.slice(0, -".weight".length)] : []));
    const lora = readLora(path, modules);
    try {
      await this.#adapt({ ...lora.options, strength }, store =>
        loadWeights(this.session, store, lora.file, { parameterOf: lora.parameterOf, signal, onProgress }),
      );
    } finally {
      lora.file.close();
    }
  }

  /** Writes `pytorch_lora_weights.safetensors` into a folder, as diffusers' save_lora_weights does. */
  async saveLora(folder: string): Promise<void> {
    if (!this.#adapter) throw new ConfigError("UNet.saveLora", "the model", "one with an adapter", "none");
    await writeLora(folder, this.#adapter, storedWeights(this.session, this.#adapter.store));
  }

  async #adapt(options: LoraOptions, fill: (store: ParameterStore) => void | Promise<void>): Promise<void> {
    this.#checkOpen();
    if (this.#adapter || this.#adapting) throw new ConfigError("UNet", "the model", "one without an adapter", "one that has an adapter");
    const adapter = adaptUNet(this.config, this.store, options);
    this.#adapting = true; // two at once would fill the same arena
    try {
      reserve(this.session, adapter.store);
      await fill(adapter.store);
    } finally {
      this.#adapting = false;
    }
    this.#programs.clear();
    this.#adapter = adapter;
  }

  /** Writes config.json and the weights, as diffusers' save_pretrained does. `dtype` is that of the file, by default what the weights are kept in. */
  async save(folder: string, { dtype }: { readonly dtype?: HostDType } = {}): Promise<void> {
    this.#checkOpen();
    await mkdir(folder, { recursive: true });
    await writeSafetensors(join(folder, `${baseName}.safetensors`), storedWeights(this.session, this.store, dtype), { format: "pt" });
    const json = `${JSON.stringify({ _class_name: "UNet2DConditionModel", ...this.config.json }, null, 2)}\n`;
    await writeAtomically(join(folder, "config.json"), file => writeFully(file, new TextEncoder().encode(json)));
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#programs.clear();
    await this.session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #executable(kind: "forward" | "gradients", inputs: UNetHostInputs, recompute: UNetOptions["recompute"] = "none"): Executable {
    this.#checkOpen();
    const { sample, encoderHiddenStates, addedText } = inputs;
    const [, channels] = sample.shape;
    if (sample.shape.length !== 4 || channels !== this.config.inChannels)
      throw new ConfigError(`UNet.${kind}`, "sample", `[B, ${this.config.inChannels}, H, W]`, sample.shape);
    const key = JSON.stringify([kind, recompute, sample.shape, encoderHiddenStates.shape, addedText?.textEmbeds.shape, addedText?.timeIds.shape]);
    const known = this.#programs.get(key);
    if (known) return known;
    const graph = (kind === "forward" ? forwardGraph : gradientGraph)(this.config, this.params, inputs, recompute);
    const arenas = { ...this.store.arenas, ...this.#adapter?.store.arenas };
    const executable = this.session.compile(compileGraph(graph, { name: `unet ${kind}`, arenas, target: this.session.target }));
    this.#programs.set(key, executable);
    return executable;
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError("UNet");
  }
}

/** The config of a diffusers UNet folder. Throws DataError or ConfigError. */
export function readUNetConfig(folder: string): UNetConfig {
  const path = join(folder, "config.json");
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
  return parseUNetConfig(parseStrictJson(bytes, path), path);
}

/** The entries whose names begin with `prefix`, without it. */
function withPrefix<T>(record: Readonly<Record<string, T>>, prefix: string): Record<string, T> {
  const own = Object.entries(record).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

function checkDType(subject: string, dtype: ModelDType, { kind }: Device): void {
  const possible: readonly ModelDType[] = kind === "cpu" ? ["f32", "f64"] : ["f32", "bf16"];
  if (!possible.includes(dtype)) throw new ConfigError(subject, "dtype", `${possible.map(d => `"${d}"`).join(" or ")} on a ${kind} device`, dtype);
}
