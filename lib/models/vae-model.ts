/** An autoencoder with weights in a session: pictures to latents and back, with host tensors in and out. Programs are compiled once per shape. */

import { ConfigError, NonFiniteError, ShapeError } from "../errors.js";
import type { Feed, Session } from "../graph/session.js";
import type { Graph } from "../graph/tensor.js";
import { type ModelDType, type ParameterStore, Params } from "../nn/params.js";
import { convert, type HostDType, type HostTensor, hostTensor } from "../util/host-tensor.js";
import { gradientsOf, type ModelGradients } from "./gradients.js";
import { checkDType, type ModelCreateOptions, ModelHandle, type ModelLoadOptions, readConfig } from "./model-handle.js";
import type { RecomputeOptions } from "./regions.js";
import { logvarRange } from "./vae.js";
import { parseVaeConfig, type VaeConfig, vaeFactor } from "./vae-config.js";
import { decodeGraph, encodeGraph, momentsGraph, sampleGraph, scalingGraph, vaeGradientGraph } from "./vae-graphs.js";
import { declareVae, vaeParameterOf } from "./vae-parameters.js";
import { inTiles, needsTiles, type TilingOptions, tileSteps } from "./vae-tiles.js";

const baseName = "diffusion_pytorch_model";

/** `trainable` is false by default: of bf16, a weight takes 2 bytes. Pictures and latents are f32 whatever the dtype (f64 from a model of "f64"). */
export type VaeLoadOptions = ModelLoadOptions;
export type VaeCreateOptions = ModelCreateOptions;

/** A diagonal normal distribution of latents, each [B, latentChannels, h, w]. */
export interface HostPosterior {
  readonly mean: HostTensor;
  /** Logarithm of the variance, in [-30, 20]. */
  readonly logvar: HostTensor;
}

/** Noise that is given, shaped like the mean, or drawn: sample i of a batch draws what sample i + sampleOffset of the whole set draws. */
export type PosteriorNoise = { readonly noise: HostTensor } | { readonly seed: number; readonly sampleOffset?: number };

export interface VaeRunOptions {
  readonly signal?: AbortSignal;
  /** In tiles where a side is longer than one: memory of a tile, for pictures of any size. Off by default. */
  readonly tiling?: boolean | TilingOptions;
}

export interface VaeGradientInputs {
  readonly pixels?: HostTensor;
  readonly latents?: HostTensor;
  /** Shaped like the outputs: mean and logvar where pixels are given, decoded where latents are. */
  readonly cotangents: { readonly mean?: HostTensor; readonly logvar?: HostTensor; readonly decoded?: HostTensor };
}

export interface VaeGradients extends Omit<ModelGradients, "inputGrads"> {
  readonly outputs: { readonly mean?: HostTensor; readonly logvar?: HostTensor; readonly decoded?: HostTensor };
  readonly inputGrads: { readonly pixels?: HostTensor; readonly latents?: HostTensor };
}

export class AutoencoderKL implements AsyncDisposable {
  readonly #handle: ModelHandle;

  private constructor(
    readonly config: VaeConfig,
    handle: ModelHandle,
  ) {
    this.#handle = handle;
  }

  /** Loads a diffusers folder: config.json and safetensors, whole, variant or sharded. Config and weights are checked before memory is taken.
   *  Throws DataError, ConfigError (unsupported fields), WeightsError (missing, unexpected, mismatched), the signal's reason. */
  static async load(folder: string, options: VaeLoadOptions): Promise<AutoencoderKL> {
    const { device, dtype = "f32", trainable = false, signal } = options;
    checkDType("AutoencoderKL.load", dtype, device);
    signal?.throwIfAborted();
    const config = readConfig(folder, parseVaeConfig);
    const store = declareVae(config, dtype, { trainable });
    return new AutoencoderKL(config, await ModelHandle.load("AutoencoderKL", store, { folder, baseName, parameterOf: vaeParameterOf }, options));
  }

  /** A model with random weights: `config` is what config.json would hold. */
  static async create(config: unknown, options: VaeCreateOptions): Promise<AutoencoderKL> {
    const { device, dtype = "f32", trainable = false } = options;
    checkDType("AutoencoderKL.create", dtype, device);
    const parsed = parseVaeConfig(config, "AutoencoderKL.create");
    return new AutoencoderKL(parsed, await ModelHandle.create("AutoencoderKL", declareVae(parsed, dtype, { trainable }), options));
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

  /** Pixels per latent, along each axis. */
  get factor(): number {
    return vaeFactor(this.config);
  }

  /** Pictures [B, inChannels, H, W] in [-1, 1] -> the posterior of their latents, before toLatents; h = floor(H / factor). */
  async encode(pixels: HostTensor, { signal, tiling }: VaeRunOptions = {}): Promise<HostPosterior> {
    this.#expectMap("encode", "pixels", pixels, this.config.inChannels);
    const grid = this.#tiles(tiling, pixels, { from: this.factor, to: 1 });
    if (!grid)
      return (await this.#run(["encode", pixels.shape], () => encodeGraph(this, pixels.shape), { inputs: { pixels } }, signal)) as unknown as HostPosterior;
    const moments = async (part: HostTensor): Promise<HostTensor> =>
      (await this.#run(["moments", part.shape], () => momentsGraph(this, part.shape), { inputs: { pixels: part } }, signal)).moments!;
    return posteriorOf(await inTiles(pixels, grid, moments));
  }

  /** mean + std * noise. */
  async sample({ mean, logvar }: HostPosterior, noise: PosteriorNoise, { signal }: { readonly signal?: AbortSignal } = {}): Promise<HostTensor> {
    this.#expectMap("sample", "mean", mean, this.config.latentChannels);
    const given = "noise" in noise;
    const inputs = { mean, logvar, ...(given && { noise: noise.noise }) };
    const scalars = given ? {} : { seed: noise.seed, step: 0, sampleOffset: noise.sampleOffset ?? 0 };
    const build = (): Graph => sampleGraph(this, mean.shape, given ? "given" : "drawn");
    return (await this.#run(["sample", given, mean.shape], build, { inputs, scalars }, signal)).sample!;
  }

  /** Latents [B, latentChannels, h, w], after fromLatents -> pictures [B, outChannels, h * factor, w * factor], about [-1, 1] and not cut.
   *  Throws NonFiniteError, saying what to do, where a picture would hold NaN or infinity. */
  async decode(latents: HostTensor, { signal, tiling }: VaeRunOptions = {}): Promise<HostTensor> {
    this.#expectMap("decode", "latents", latents, this.config.latentChannels);
    const decoded = async (part: HostTensor): Promise<HostTensor> =>
      (await this.#run(["decode", part.shape], () => decodeGraph(this, part.shape), { inputs: { latents: part } }, signal)).decoded!;
    const grid = this.#tiles(tiling, latents, { from: 1, to: this.factor });
    const pixels = grid ? await inTiles(latents, grid, decoded) : await decoded(latents);
    checkFinite(pixels, latents, this.store.computes);
    return pixels;
  }

  /** What the encoder gives (a sample or the mean) -> what denoisers are trained on: (z - shift) * scale, as config.json has them. */
  toLatents(z: HostTensor, options: { readonly signal?: AbortSignal } = {}): Promise<HostTensor> {
    return this.#scaled("to", z, options.signal);
  }

  /** What denoisers give -> what the decoder takes: latents / scale + shift. */
  fromLatents(latents: HostTensor, options: { readonly signal?: AbortSignal } = {}): Promise<HostTensor> {
    return this.#scaled("from", latents, options.signal);
  }

  /** Gradients of sum(output * cotangent) over encoder (where pixels are given) and decoder (latents), with respect to both and to every parameter. */
  async lossAndGrads(
    { pixels, latents, cotangents }: VaeGradientInputs,
    { signal, recompute }: RecomputeOptions & { readonly signal?: AbortSignal } = {},
  ): Promise<VaeGradients> {
    if (!pixels && !latents) throw new ConfigError("AutoencoderKL.lossAndGrads", "inputs", "pixels, latents or both", "neither");
    if (pixels) this.#expectMap("lossAndGrads", "pixels", pixels, this.config.inChannels);
    if (latents) this.#expectMap("lossAndGrads", "latents", latents, this.config.latentChannels);
    const { mean, logvar, decoded } = cotangents;
    const pairs = Object.entries({ pixels, latents, "d mean": mean, "d logvar": logvar, "d decoded": decoded });
    const inputs = Object.fromEntries(pairs.filter((pair): pair is [string, HostTensor] => pair[1] !== undefined));
    const shapes = { pixels: pixels?.shape, latents: latents?.shape };
    const results = await this.#run(["gradients", recompute, shapes], () => vaeGradientGraph(this, shapes, { recompute }), { inputs }, signal);
    const outputs = Object.fromEntries(["mean", "logvar", "decoded"].flatMap(name => (results[name] ? [[name, results[name]]] : [])));
    return { ...gradientsOf(results), outputs };
  }

  /** Writes config.json and the weights, as diffusers' save_pretrained does. `dtype` is that of the file, by default what the weights are kept in. */
  save(folder: string, { dtype }: { readonly dtype?: HostDType } = {}): Promise<void> {
    return this.#handle.save({ folder, baseName }, { _class_name: "AutoencoderKL", ...this.config.json }, dtype);
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #scaled(way: "to" | "from", x: HostTensor, signal: AbortSignal | undefined): Promise<HostTensor> {
    this.#expectMap(`${way}Latents`, "latents", x, this.config.latentChannels);
    return (await this.#run([way, x.shape], () => scalingGraph(this, x.shape, way), { inputs: { x } }, signal)).scaled!;
  }

  #run(key: readonly unknown[], build: () => Graph, feed: Feed, signal: AbortSignal | undefined): Promise<Record<string, HostTensor>> {
    return this.#handle.run(this.#handle.program(key, build), feed, signal);
  }

  /** Undefined where one tile is enough. */
  #tiles(tiling: VaeRunOptions["tiling"], x: HostTensor, scale: { readonly from: number; readonly to: number }) {
    if (!tiling) return undefined;
    const grid = { ...tileSteps(tiling === true ? {} : tiling, this.config.sampleSize, this.factor), ...scale };
    return needsTiles(x, grid) ? grid : undefined;
  }

  #expectMap(method: string, name: string, { shape }: HostTensor, channels: number): void {
    this.#handle.checkOpen();
    if (shape.length !== 4 || shape[1] !== channels || shape.some(n => n < 1))
      throw new ShapeError(`AutoencoderKL.${method}`, `expected ${name} [B, ${channels}, H, W], received [${shape.join(", ")}]`);
  }
}

/** Moments [B, 2 C, h, w] as mean and logvar, cut as the encoder's are. */
function posteriorOf({ dtype, shape, data }: HostTensor): HostPosterior {
  const [batch, both, height, width] = shape as [number, number, number, number];
  const half = (both / 2) * height * width;
  const part = (): HostTensor => hostTensor(dtype, [batch, both / 2, height, width]);
  const [mean, logvar] = [part(), part()];
  for (let b = 0; b < batch; b++) {
    const own = (data as Float32Array).subarray(2 * b * half, 2 * (b + 1) * half);
    (mean.data as Float32Array).set(own.subarray(0, half), b * half);
    (logvar.data as Float32Array).set(own.subarray(half), b * half);
  }
  const { min, max } = logvarRange;
  const values = logvar.data as Float32Array;
  for (let i = 0; i < values.length; i++) values[i] = Math.min(Math.max(values[i]!, min), max);
  return { mean, logvar };
}

function checkFinite(pixels: HostTensor, latents: HostTensor, dtype: ModelDType): void {
  if (allFinite(pixels)) return;
  const remedy = !allFinite(convert(latents, "f64"))
    ? "the latents already do: the denoiser or its sampling diverged, the autoencoder is not the cause"
    : dtype === "bf16"
      ? 'load the autoencoder with dtype: "f32"'
      : "its weights are damaged, or the latents are far out of range: pass denoised latents through fromLatents, and load the original f32 weights";
  throw new NonFiniteError(`AutoencoderKL.decode: expected finite pixels, received NaN or infinity; ${remedy}`);
}

function allFinite({ data }: HostTensor): boolean {
  for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i] as number)) return false;
  return true;
}
