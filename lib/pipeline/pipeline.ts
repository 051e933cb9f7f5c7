/** A whole text-to-image model: a diffusers pipeline folder goes in, pictures come out. It owns its parts and closes them; each can be used on its own. */

import { existsSync } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { resolveModel } from "../data/hub-cache.js";
import type { Image } from "../data/image.js";
import { ClipTokenizer } from "../data/tokenizer.js";
import type { Device } from "../device.js";
import type { NoiseSchedule } from "../diffusion/noise-schedule.js";
import { unetDenoiser } from "../diffusion/unet-denoiser.js";
import { ClosedError, ConfigError } from "../errors.js";
import type { ModelAdapters } from "../models/adapters.js";
import { ClipText, type TextComponent } from "../models/clip-text-model.js";
import type { LoadControl } from "../models/load.js";
import { readLora } from "../models/lora-file.js";
import { type WriteLoraOptions, writeLora } from "../models/lora-write.js";
import type { UNetOptions } from "../models/unet.js";
import { UNet } from "../models/unet-model.js";
import { AutoencoderKL } from "../models/vae-model.js";
import type { ModelDType } from "../nn/params.js";
import type { Scheduler } from "../schedulers/scheduler.js";
import { Generator } from "./generate.js";
import type { GenerateOptions } from "./generate-options.js";
import { type ModelIndex, readModelIndex } from "./model-index.js";
import { readSchedule } from "./schedule-file.js";
import { type EncodePromptOptions, encodeForSd, encodeForSdxl, type PromptFeatures, type TextEncoder } from "./text-conditioning.js";

export interface PipelineLoadOptions extends LoadControl {
  readonly device: Device;
  /** Dtype of arithmetic of every part, "f32" by default; "bf16" needs a GPU. */
  readonly dtype?: ModelDType;
  /** That of the autoencoder alone, `dtype` by default: "f32" beside "bf16" where a decoder overflows. */
  readonly vaeDtype?: ModelDType;
  /** Whether the UNet's own weights may be trained (default false). An adapter can always be. */
  readonly trainable?: boolean;
  /** "fp16" reads files with ".fp16" in their names. */
  readonly variant?: string;
  /** Where names such as "org/model" are looked up; see resolveModel. */
  readonly cacheDir?: string;
}

export interface PipelineLoraOptions extends LoadControl {
  /** By which the adapter is known later ("default"). */
  readonly name?: string;
  /** At which it is applied at once (1). */
  readonly strength?: number;
}

interface Parts {
  readonly index: ModelIndex;
  readonly unet: UNet;
  /** Undefined: the UNet works on pixels. */
  readonly vae: AutoencoderKL | undefined;
  readonly encoders: readonly TextEncoder[];
  readonly schedule: NoiseSchedule;
  readonly scheduler: Scheduler;
}

export class DiffusionPipeline implements AsyncDisposable {
  readonly #parts: Parts;
  readonly #generator: Generator;
  #closed = false;

  private constructor(
    /** The folder that it was loaded from. */
    readonly folder: string,
    parts: Parts,
  ) {
    this.#parts = parts;
    this.#generator = new Generator(this);
  }

  /** Loads a folder as diffusers' save_pretrained writes it, or a model of the local Hugging Face cache by name; nothing is downloaded.
   *  model_index.json and the scheduler are read first, and every problem of theirs is told in one error; weights are checked part by part before memory is taken.
   *  Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(model: string, options: PipelineLoadOptions): Promise<DiffusionPipeline> {
    const { device, dtype = "f32", vaeDtype = dtype, trainable = false, variant, cacheDir, signal, onProgress } = options;
    const folder = await resolveModel(model, cacheDir === undefined ? {} : { cacheDir });
    const index = readModelIndex(folder);
    const { schedule, scheduler } = readSchedule(join(folder, "scheduler"));
    const shared = { device, ...(variant !== undefined && { variant }), signal, onProgress };
    const opened: AsyncDisposable[] = [];
    const keep = async <T extends AsyncDisposable>(part: Promise<T>): Promise<T> => {
      const loaded = await part;
      opened.push(loaded);
      return loaded;
    };
    try {
      const encoders: TextEncoder[] = [];
      for (const suffix of ["", "_2"] as const) {
        if (!index.parts.has(`text_encoder${suffix}`)) continue;
        const tokenizer = await ClipTokenizer.load(join(folder, `tokenizer${suffix}`));
        const lora: TextComponent = suffix
          ? { name: "text_encoder_2" }
          : { name: "text_encoder", ...(index.family === "sdxl" && { kohyaPrefix: "lora_te1_" }) };
        encoders.push({ tokenizer, model: await keep(ClipText.load(join(folder, `text_encoder${suffix}`), { ...shared, dtype, lora })) });
      }
      const vae = index.parts.has("vae") ? await keep(AutoencoderKL.load(join(folder, "vae"), { ...shared, dtype: vaeDtype })) : undefined;
      const unet = await keep(UNet.load(join(folder, "unet"), { ...shared, dtype, trainable }));
      checkFit(folder, unet, vae, encoders);
      return new DiffusionPipeline(folder, { index, unet, vae, encoders, schedule, scheduler });
    } catch (error) {
      for (const part of opened) await part[Symbol.asyncDispose]();
      throw error;
    }
  }

  get index(): ModelIndex {
    return this.#parts.index;
  }
  get unet(): UNet {
    return this.#parts.unet;
  }
  get vae(): AutoencoderKL | undefined {
    return this.#parts.vae;
  }
  get textEncoders(): readonly TextEncoder[] {
    return this.#parts.encoders;
  }
  /** The forward process that the UNet was trained with. */
  get schedule(): NoiseSchedule {
    return this.#parts.schedule;
  }
  /** The sampler that the folder names; `generate` takes any other. */
  get scheduler(): Scheduler {
    return this.#parts.scheduler;
  }
  /** Pixels per latent, along each axis; 1 without an autoencoder. */
  get factor(): number {
    return this.vae?.factor ?? 1;
  }

  /** Pictures for prompts, in order: those of the first prompt, then of the second. The same seed gives the same bits on a backend, whatever else is in the call.
   *  @throws ConfigError for options that do not fit, NonFiniteError where the decoder overflows, the signal's reason. */
  generate(options: GenerateOptions): Promise<Image[]> {
    this.checkOpen();
    return this.#generator.images(options);
  }

  /** What prompts condition the UNet with. A prompt that is too long is cut; `truncated` says what was lost. */
  async encodePrompt(prompt: string | readonly string[], options: EncodePromptOptions = {}): Promise<PromptFeatures> {
    this.checkOpen();
    const prompts = typeof prompt === "string" ? [prompt] : prompt;
    const [first] = this.textEncoders;
    if (this.index.family === "sd") return encodeForSd(first!, prompts, options);
    return encodeForSdxl(
      this.textEncoders,
      this.textEncoders.map(() => prompts),
      options,
    );
  }

  /** Puts the adapter of a file or folder on the models that it has tensors for, in any of the key styles of the field; several adapters under several names.
   *  Throws WeightsError listing every tensor that is for no module of this pipeline; then nothing has changed. */
  async loadLora(path: string, { name = "default", strength = 1, signal, onProgress }: PipelineLoraOptions = {}): Promise<void> {
    this.checkOpen();
    const hosts = this.#adapted();
    const { file, options } = readLora(
      path,
      hosts.map(adapters => adapters.host.component),
    );
    file.close();
    const own = hosts.filter(adapters => options.has(adapters.host.component.name));
    for (const adapters of own) if (adapters.all.has(name)) throw new ConfigError("DiffusionPipeline.loadLora", "name", "of no adapter that is there", name);
    for (const adapters of own) {
      const skip = hosts.map(other => other.host.component.name).filter(other => other !== adapters.host.component.name);
      await adapters.load(path, { name, strength, skip, signal, onProgress });
    }
  }

  /** Writes an adapter of UNet and text encoders into one file: diffusers' names, or kohya's. Returns warnings about its values: all zero, or not finite. */
  async saveLora(path: string, { name = "default", ...options }: WriteLoraOptions & { readonly name?: string } = {}): Promise<readonly string[]> {
    this.checkOpen();
    const own = this.#adapted().filter(adapters => adapters.all.has(name));
    if (own.length === 0) throw new ConfigError("DiffusionPipeline.saveLora", "name", "of an adapter that is there", name);
    return writeLora(
      path,
      own.map(adapters => adapters.written(name)),
      options,
    );
  }

  /** Applies these adapters at these strengths, and no others, wherever they are. Throws ConfigError naming one that is nowhere. */
  setAdapters(strengths: Readonly<Record<string, number>>): void {
    const hosts = this.#adapted();
    for (const name of Object.keys(strengths))
      if (!hosts.some(adapters => adapters.all.has(name))) throw new ConfigError("DiffusionPipeline.setAdapters", "the adapter", "one that is there", name);
    for (const adapters of hosts) adapters.set(Object.fromEntries(Object.entries(strengths).filter(([name]) => adapters.all.has(name))));
  }

  /** Folds the applied adapters into the weights: pictures then cost what they cost without. */
  async fuseLora(): Promise<void> {
    for (const adapters of this.#adapted()) if (adapters.active) await adapters.fuse();
  }

  /** Takes them out again, bit for bit. */
  async unfuseLora(): Promise<void> {
    for (const adapters of this.#adapted()) if (adapters.fused) await adapters.unfuse();
  }

  /** What PreferenceTrainer needs of it, for latents of this size: `new PreferenceTrainer({ ...pipeline.trainable({ height: 64, width: 64 }), data, ... })`. */
  trainable({ height, width, ...options }: { readonly height: number; readonly width: number } & UNetOptions) {
    this.checkOpen();
    const denoiser = unetDenoiser(this.unet.config, { height, width, tokens: this.textEncoders[0]!.model.config.positions, ...options });
    return { model: { denoiser, store: this.unet.store, session: this.unet.session }, schedule: this.schedule };
  }

  /** Writes a folder that `load` and diffusers read: weights in `dtype` (by default as they are kept), configs, and the tokenizers' files as they were. */
  async save(folder: string, { dtype }: { readonly dtype?: "f32" | "f16" | "bf16" } = {}): Promise<void> {
    this.checkOpen();
    const as = dtype ? { dtype } : {};
    await this.unet.save(join(folder, "unet"), as);
    await this.vae?.save(join(folder, "vae"), as);
    for (const [i, { model }] of this.textEncoders.entries()) await model.save(join(folder, this.#encoderNames()[i]!), as);
    for (const name of this.#encoderNames()) await this.#copyFolder(name.replace("text_encoder", "tokenizer"), folder);
    await this.#copyFolder("scheduler", folder);
    await copyFile(join(this.folder, "model_index.json"), join(folder, "model_index.json"));
  }

  checkOpen(): void {
    if (this.#closed) throw new ClosedError("DiffusionPipeline");
  }

  /** Closes every part. Calls after it throw ClosedError. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.unet.close();
    await this.vae?.close();
    for (const { model } of this.textEncoders) await model.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #adapted(): ModelAdapters[] {
    return [this.unet.adapters, ...this.textEncoders.map(({ model }) => model.adapters)];
  }

  #encoderNames(): string[] {
    return ["text_encoder", "text_encoder_2"].filter(name => this.index.parts.has(name as "text_encoder"));
  }

  async #copyFolder(name: string, to: string): Promise<void> {
    await mkdir(join(to, name), { recursive: true });
    for (const file of smallFiles) {
      const from = join(this.folder, name, file);
      if (existsSync(from)) await copyFile(from, join(to, name, file));
    }
  }
}

/** Files of a tokenizer or scheduler folder that mean something to one of their readers. */
const smallFiles = ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "scheduler_config.json"];

/** Widths that must agree between the parts. */
function checkFit(folder: string, { config }: UNet, vae: AutoencoderKL | undefined, encoders: readonly TextEncoder[]): void {
  const widths = encoders.map(e => e.model.config.width);
  const text = widths.reduce((a, b) => a + b, 0);
  if (text !== config.crossAttentionDim)
    throw new ConfigError(folder, "cross_attention_dim of the unet", `the width of the text encoders (${widths.join(" + ")})`, config.crossAttentionDim);
  const channels = vae?.config.latentChannels ?? 3;
  if (config.outChannels !== channels)
    throw new ConfigError(folder, "out_channels of the unet", `${channels}, those of the ${vae ? "latents" : "pixels"}`, config.outChannels);
  const allowed = [channels, 2 * channels + 1];
  if (!allowed.includes(config.inChannels))
    throw new ConfigError(folder, "in_channels of the unet", `${allowed.join(" or, for inpainting, ")}`, config.inChannels);
}
