/** UNet and text encoders as one model in one session, for training both: one adapter, or the weights themselves, of all of them. A pipeline's parts have a session
 *  each, and a UNet alone is conditioned on text states that nothing can move. Parameters are `unet.*`, `text_encoder.*` and `text_encoder_2.*`. */

import { join } from "node:path";
import { resolveModel } from "../data/hub-cache.js";
import type { TensorFile } from "../data/safetensors.js";
import { ClipTokenizer, type Truncation } from "../data/tokenizer.js";
import { readWeights } from "../data/weights.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { ConfigError } from "../errors.js";
import { buildGraph } from "../graph/tensor.js";
import { type ClipTextConfig, parseClipTextConfig } from "../models/clip-config.js";
import { clipParameterOf } from "../models/clip-parameters.js";
import { pooledRows } from "../models/clip-text.js";
import { storedWeights } from "../models/load.js";
import { type WriteLoraOptions, writeLora } from "../models/lora-write.js";
import { checkDType, ModelHandle, readConfig } from "../models/model-handle.js";
import type { UNetOptions } from "../models/unet.js";
import { parseUNetConfig, type UNetConfig } from "../models/unet-config.js";
import { unetComponent } from "../models/unet-lora.js";
import { initialise, initialStreams, reserve } from "../nn/init.js";
import { LoraAdapter, type LoraOptions } from "../nn/lora.js";
import { ParameterStore, Params, storage } from "../nn/params.js";
import { type HostTensor, hostTensor } from "../util/host-tensor.js";
import { type JointConfig, jointDenoiser, type TextPart } from "./joint-denoiser.js";
import { readModelIndex } from "./model-index.js";
import type { PipelineLoadOptions } from "./pipeline.js";
import { readSchedule } from "./schedule-file.js";
import { timeIds } from "./text-conditioning.js";

/** Attention projections of UNet and text encoders: what diffusers' text-to-image LoRA examples adapt. */
export const jointProjections = ["to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj"] as const;

export class JointModel implements AsyncDisposable {
  readonly #handle: ModelHandle;
  #adapter: LoraAdapter | undefined;

  private constructor(
    readonly config: JointConfig,
    readonly tokenizers: readonly ClipTokenizer[],
    /** The forward process that the UNet was trained with. */
    readonly schedule: NoiseSchedule,
    handle: ModelHandle,
  ) {
    this.#handle = handle;
  }

  /** Loads UNet and text encoders of a pipeline's folder (or of one in the local Hugging Face cache). `trainable` (default false): whether the weights themselves
   *  may be trained, not an adapter alone. Throws what DiffusionPipeline.load throws. */
  static async load(model: string, options: Omit<PipelineLoadOptions, "vaeDtype">): Promise<JointModel> {
    const { device, dtype = "f32", trainable = false, variant, cacheDir, signal } = options;
    checkDType("JointModel.load", dtype, device);
    signal?.throwIfAborted();
    const folder = await resolveModel(model, cacheDir === undefined ? {} : { cacheDir });
    const index = readModelIndex(folder);
    const names = (["text_encoder", "text_encoder_2"] as const).filter(name => index.parts.has(name));
    const texts = names.map((name): TextPart => ({ name, config: readConfig(join(folder, name), (json, path) => parseClipTextConfig(json, path)) }));
    const tokenizers = await Promise.all(names.map(name => ClipTokenizer.load(join(folder, name.replace("text_encoder", "tokenizer")))));
    const unet = readConfig(join(folder, "unet"), parseUNetConfig);
    const config: JointConfig = {
      unet,
      texts,
      family: index.family,
      sizes: index.aestheticScore ? 5 : 6,
      emptyIds: tokenizers.map((t, i) => emptyIds(t, texts[i]!.config)),
    };
    checkWidths(folder, unet, texts);
    const store = declareJoint(config, new ParameterStore({ arena: "parameters", ...storage(dtype, trainable) }));
    const places = [{ name: "unet", baseName: "diffusion_pytorch_model" }, ...texts.map(({ name }) => ({ name, baseName: "model" }))];
    const file = oneFile(folder, places, variant);
    return new JointModel(config, tokenizers, readSchedule(join(folder, "scheduler")).schedule, await ModelHandle.read("JointModel", store, file, options));
  }

  get store(): ParameterStore {
    return this.#handle.store;
  }
  get session() {
    return this.#handle.session;
  }
  get adapter(): LoraAdapter | undefined {
    return this.#adapter;
  }

  /** The condition of B prompts: what the denoiser takes, and the prompts that were cut. */
  condition(
    prompts: readonly string[],
    sizes: readonly number[] = [],
  ): { readonly condition: Record<string, HostTensor>; readonly truncated: readonly Truncation[] } {
    const { texts, family } = this.config;
    const batches = this.tokenizers.map((tokenizer, i) => tokenizer.encode(prompts, { maxLength: texts[i]!.config.positions }));
    const condition = Object.fromEntries(batches.map(({ ids }, i) => [`${texts[i]!.name}.ids`, ids]));
    if (family === "sdxl") {
      const last = texts.length - 1,
        { ids } = batches[last]!;
      const tokens = ids.shape[1]!;
      const rows = pooledRows(texts[last]!.config, ids).data as Int32Array;
      condition.pooledAt = hostTensor(
        "i32",
        [prompts.length],
        rows.map(row => row % tokens),
      );
      if (sizes.length !== this.config.sizes) throw new ConfigError("JointModel.condition", "sizes", `${this.config.sizes} numbers, for SDXL`, sizes);
      condition.timeIds = timeIds(prompts.length, sizes);
    }
    return { condition, truncated: batches.flatMap(b => b.truncated) };
  }

  /** What PreferenceTrainer needs of it, for latents of this size. Its condition is that of `condition`. */
  trainable({ height, width, ...options }: { readonly height: number; readonly width: number } & UNetOptions) {
    this.#handle.checkOpen();
    return {
      model: { denoiser: jointDenoiser(this.config, { height, width, ...options }), store: this.store, session: this.session },
      schedule: this.schedule,
    };
  }

  /** A fresh adapter for modules of UNet and text encoders; random A, zero B. */
  async addLora(options: LoraOptions, { seed }: { readonly seed: number }): Promise<LoraAdapter> {
    this.#handle.checkOpen();
    if (this.#adapter) throw new ConfigError("JointModel.addLora", "the model", "one without an adapter", "one that has it");
    const store = new ParameterStore({ arena: "lora", ...storage(this.store.computes, true) });
    const adapter = new LoraAdapter(store, { targets: jointProjections, ...options });
    declareJoint(this.config, this.store, adapter);
    if (store.entries.size === 0) throw new ConfigError("lora", "targets", "names of modules of this model", adapter.targets);
    reserve(this.session, store);
    await initialise(this.session, store, { seed, stream: initialStreams.adapter });
    this.#adapter = adapter;
    return adapter;
  }

  /** Writes the adapter of UNet and text encoders into one file, as DiffusionPipeline.loadLora and diffusers read it, or as kohya's scripts do. */
  async saveLora(path: string, options: WriteLoraOptions = {}): Promise<readonly string[]> {
    const adapter = this.#adapter;
    if (!adapter) throw new ConfigError("JointModel.saveLora", "the model", "one with an adapter", "none");
    const weights = [...storedWeights(this.session, adapter.store)];
    const of = <T>(name: string, entries: readonly (readonly [string, T])[]) =>
      entries.filter(([key]) => key.startsWith(`${name}.`)).map(([key, value]) => [key.slice(name.length + 1), value] as const);
    const parameters = [...this.store.entries].map(([name]) => [name, undefined] as const);
    const modules = (name: string): string[] => of(name, parameters).flatMap(([key]) => (key.endsWith(".weight") ? [key.slice(0, -".weight".length)] : []));
    const xl = this.config.family === "sdxl";
    const components = [
      unetComponent(
        this.config.unet,
        of("unet", parameters).map(([key]) => key),
      ),
      ...this.config.texts.map(({ name }) => ({ name, modules: modules(name), ...(xl && name === "text_encoder" && { kohyaPrefix: "lora_te1_" }) })),
    ];
    const written = components.map(component => ({ component, adapter, weights: new Map(of(component.name, weights)) })).filter(w => w.weights.size > 0);
    return writeLora(path, written, options);
  }

  /** Frees the session and all it holds. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Every parameter of all parts, in the order of a forward pass; with an adapter, every parameter of it. */
function declareJoint(config: JointConfig, store: ParameterStore, adapter?: LoraAdapter): ParameterStore {
  const side = 2 ** (config.unet.down.length - 1);
  const dtype = store.computes === "f64" ? "f64" : "f32";
  buildGraph(() => {
    const denoiser = jointDenoiser(config, { height: side, width: side, dtype });
    denoiser.build(new Params(store, { adapter }));
  });
  (adapter?.store ?? store).seal();
  return store;
}

function emptyIds(tokenizer: ClipTokenizer, { positions }: ClipTextConfig): Int32Array {
  return tokenizer.encode("", { maxLength: positions }).ids.data as Int32Array;
}

function checkWidths(folder: string, unet: UNetConfig, texts: readonly TextPart[]): void {
  const width = texts.reduce((sum, { config }) => sum + config.width, 0);
  if (width !== unet.crossAttentionDim)
    throw new ConfigError(folder, "cross_attention_dim of the unet", `the width of the text encoders (${width})`, unet.crossAttentionDim);
}

/** Several folders' weights under one prefix each. */
function oneFile(folder: string, places: readonly { readonly name: string; readonly baseName: string }[], variant: string | undefined): TensorFile {
  const opened: TensorFile[] = [];
  const close = (): void => {
    for (const file of opened) file.close();
  };
  try {
    const where = new Map<string, { readonly file: TensorFile; readonly stored: string }>();
    for (const { name, baseName } of places) {
      const file = readWeights(join(folder, name), baseName, variant);
      opened.push(file);
      for (const stored of file.tensors.keys()) {
        const parameter = name === "unet" ? stored : clipParameterOf(stored);
        if (parameter !== undefined) where.set(`${name}.${parameter}`, { file, stored });
      }
    }
    const at = (name: string) => where.get(name)!;
    return {
      source: folder,
      metadata: new Map(),
      tensors: new Map([...where].map(([name, { file, stored }]) => [name, file.tensors.get(stored)!])),
      tensor: name => at(name).file.tensor(at(name).stored),
      place: name => at(name).file.place(at(name).stored),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}
