/** ImageReward with weights in a session (Xu et al. 2023, arXiv:2304.05977): BLIP's text encoder reads the prompt while looking at the picture, a head makes a number of its
 *  first token. The same layout serves every reward of this format (VP-Score of VisionPrefer). Parameters are named as in ImageReward.pt. */

import type { TensorFile } from "../data/safetensors.js";
import type { Device } from "../device.js";
import { ConfigError, ShapeError } from "../errors.js";
import { wide } from "../graph/ops/check.js";
import { affine, cast, mul } from "../graph/ops/elementwise.js";
import { input } from "../graph/ops/leaf.js";
import { sum } from "../graph/ops/reduce.js";
import { reshape } from "../graph/ops/shape.js";
import { buildGraph, type Graph, type Tensor, typed } from "../graph/tensor.js";
import { type BlipTextInputs, blipProjections, blipText, blipVision, classToken } from "../models/blip.js";
import type { BlipConfig } from "../models/blip-config.js";
import { addGradients, gradientNames } from "../models/gradients.js";
import { checkDType, ModelHandle, type ModelLoadOptions } from "../models/model-handle.js";
import type { RecomputeOptions } from "../models/regions.js";
import { type ModelDType, ParameterStore, Params, storage } from "../nn/params.js";
import type { HostTensor } from "../util/host-tensor.js";
import { headLayers, scoreHead } from "./head.js";

export interface ImageRewardConfig extends BlipConfig {
  /** Rewards are (raw - mean) / std; the authors' numbers are those of their test set. */
  readonly mean: number;
  readonly std: number;
  /** Ids of a prompt, padded or cut. */
  readonly maxLength: number;
  /** Places and widths of the head's layers. */
  readonly head: readonly (readonly [number, number])[];
}

/** What the authors release beside med_config.json. */
export const imageRewardDefaults = {
  projection: 256,
  mean: 0.16717362830052426,
  std: 1.0333394966054072,
  maxLength: 35,
  head: headLayers,
} as const;

/** The reward as a graph function: pixels [B, S, S, 3] standardised, prompts as ids -> normalised rewards [B], differentiable down to the pixels.
 *  `p` is the root of the checkpoint's names. */
export function imageRewardScore(
  config: ImageRewardConfig,
  p: Params,
  pixels: Tensor,
  text: Omit<BlipTextInputs, "image">,
  options: RecomputeOptions = {},
): Tensor {
  const image = blipVision(config.vision, p.at("blip.visual_encoder"), pixels, options);
  return rewardOfStates(config, p, image, text, options);
}

function rewardOfStates(config: ImageRewardConfig, p: Params, image: Tensor, text: Omit<BlipTextInputs, "image">, options: RecomputeOptions = {}): Tensor {
  const states = blipText(config.text, p.at("blip.text_encoder"), { ...text, image }, options);
  const raw = scoreHead(classToken(states.at(-1)!), p.at("mlp"), config.head);
  return affine(cast(raw, wide(raw.dtype)), { scale: 1 / config.std, shift: -config.mean / config.std });
}

/** BLIPScore: the cosine of picture and text in BLIP's own space, [B]. */
export function blipScore(config: ImageRewardConfig, p: Params, pixels: Tensor, text: Omit<BlipTextInputs, "image">): Tensor {
  const image = blipVision(config.vision, p.at("blip.visual_encoder"), pixels);
  return cosineOfStates(config, p, image, text);
}

function cosineOfStates(config: ImageRewardConfig, p: Params, image: Tensor, text: Omit<BlipTextInputs, "image">): Tensor {
  const own = blipText(config.text, p.at("blip.text_encoder"), text).at(-1)!;
  const vectors = blipProjections(config, p.at("blip"), { image, text: own });
  return reshape(sum(mul(vectors.image, vectors.text), [1]), [image.shape[0]!]);
}

/** All parameters, sealed. */
export function declareImageReward(config: ImageRewardConfig, dtype: ModelDType, { trainable = false }: { readonly trainable?: boolean } = {}): ParameterStore {
  const store = new ParameterStore({ arena: "image reward", ...storage(dtype, trainable) });
  buildGraph(() => {
    const p = new Params(store);
    const pixels = pixelsInput(config, store, 1);
    const text = textInputs(store, 1, 2);
    imageRewardScore(config, p, pixels, text);
    blipScore(config, p, pixels, text);
  });
  store.seal();
  return store;
}

function pixelsInput({ vision: { imageSize } }: ImageRewardConfig, store: ParameterStore, batch: number): Tensor {
  return input("pixels", typed(wide(store.computes), batch, imageSize, imageSize, 3), "bchw");
}

function textInputs(store: ParameterStore, batch: number, tokens: number): Omit<BlipTextInputs, "image"> {
  return {
    inputIds: input("inputIds", typed("i32", batch, tokens)),
    attentionMask: input("attentionMask", typed(wide(store.computes), batch, tokens)),
  };
}

export interface ImageRewardInputs {
  /** [B, 3, S, S], standardised. */
  readonly pixels: HostTensor;
  /** [B, N] */
  readonly inputIds: HostTensor;
  readonly attentionMask: HostTensor;
}

/** Parameters of the checkpoint that are no parameters of the model: position ids are 0, 1, 2, ... */
function parameterOf(stored: string): string | undefined {
  return stored.endsWith("embeddings.position_ids") ? undefined : stored;
}

export interface Signalled {
  readonly signal?: AbortSignal | undefined;
}

export class ImageRewardModel implements AsyncDisposable {
  readonly #handle: ModelHandle;

  private constructor(
    readonly config: ImageRewardConfig,
    handle: ModelHandle,
  ) {
    this.#handle = handle;
  }

  /** Of an open file, which is closed: ImageReward.pt or the same in safetensors. Throws ConfigError, WeightsError (missing, unexpected, mismatched), DataError, the signal's reason. */
  static async fromWeights(config: ImageRewardConfig, file: TensorFile, options: Omit<ModelLoadOptions, "variant">): Promise<ImageRewardModel> {
    const { device, dtype = "f32", trainable = false } = options;
    checkDType("ImageRewardModel", dtype, device);
    options.signal?.throwIfAborted();
    const store = declareImageReward(config, dtype, { trainable });
    return new ImageRewardModel(config, await ModelHandle.read("ImageReward", store, file, options, { parameterOf }));
  }

  /** Random weights. */
  static async create(
    config: ImageRewardConfig,
    options: { readonly device: Device; readonly seed: number; readonly dtype?: ModelDType },
  ): Promise<ImageRewardModel> {
    const { device, dtype = "f32" } = options;
    checkDType("ImageRewardModel", dtype, device);
    return new ImageRewardModel(config, await ModelHandle.create("ImageReward", declareImageReward(config, dtype), options));
  }

  get params(): Params {
    return new Params(this.#handle.store);
  }

  /** States of pictures [B, 1 + patches, width], which serve any number of prompts. */
  async encodeImage(pixels: HostTensor, { signal }: Signalled = {}): Promise<HostTensor> {
    this.#checkPixels(pixels);
    const { store } = this.#handle;
    const program = this.#handle.program(["image", pixels.shape], () =>
      buildGraph(g => {
        const states = blipVision(this.config.vision, this.params.at("blip.visual_encoder"), pixelsInput(this.config, store, pixels.shape[0]!));
        g.output("states", cast(states, wide(states.dtype)));
      }),
    );
    return (await this.#handle.run(program, { inputs: { pixels } }, signal)).states!;
  }

  /** Normalised rewards [B] of states that encodeImage gave, row by row with prompts. */
  rewardOf(states: HostTensor, text: Omit<ImageRewardInputs, "pixels">, { signal }: Signalled = {}): Promise<HostTensor> {
    return this.#ofStates("reward", rewardOfStates, states, text, signal);
  }

  /** BLIPScore [B], the same way. */
  blipScoreOf(states: HostTensor, text: Omit<ImageRewardInputs, "pixels">, { signal }: Signalled = {}): Promise<HostTensor> {
    return this.#ofStates("blip score", cosineOfStates, states, text, signal);
  }

  async #ofStates(
    key: string,
    build: typeof cosineOfStates,
    states: HostTensor,
    text: Omit<ImageRewardInputs, "pixels">,
    signal?: AbortSignal,
  ): Promise<HostTensor> {
    this.#handle.checkOpen();
    const [batch = 0, tokens = 0] = this.#checkText(text, states.shape[0]!);
    const { store } = this.#handle;
    const program = this.#handle.program([key, states.shape, tokens], () =>
      buildGraph(g => {
        const image = input("states", typed(wide(store.computes), ...states.shape));
        g.output("score", build(this.config, this.params, cast(image, store.computes), textInputs(store, batch, tokens)));
      }),
    );
    return (await this.#handle.run(program, { inputs: { states, ...text } }, signal)).score!;
  }

  /** Rewards [B] and the gradient of their sum with respect to the pixels [B, 3, S, S]. */
  async rewardAndGradient({ pixels, ...text }: ImageRewardInputs, { signal, recompute }: Signalled & RecomputeOptions = {}) {
    this.#checkPixels(pixels);
    const [batch = 0, tokens = 0] = this.#checkText(text, pixels.shape[0]!);
    const ones = { dtype: "f64", shape: [batch], data: new Float64Array(batch).fill(1) } as const;
    const program = this.#handle.program(["gradient", pixels.shape, tokens, recompute], () => this.#gradientGraph(batch, tokens, { recompute }));
    const results = await this.#handle.run(program, { inputs: { pixels, ...text, "d rewards": ones } }, signal);
    return { rewards: results.rewards!, pixels: results[`${gradientNames.input}pixels`]! };
  }

  #gradientGraph(batch: number, tokens: number, options: RecomputeOptions): Graph {
    const { store } = this.#handle;
    return buildGraph(g => {
      const pixels = pixelsInput(this.config, store, batch);
      const rewards = imageRewardScore(this.config, this.params, pixels, textInputs(store, batch, tokens), options);
      g.output("rewards", rewards);
      const outputs = [{ name: "d rewards", tensor: rewards, layout: "plain" }] as const;
      addGradients({ outputs, inputs: [{ name: "pixels", tensor: pixels, layout: "bchw" }], stores: [] });
    });
  }

  #checkPixels({ shape }: HostTensor): void {
    this.#handle.checkOpen();
    const { imageSize } = this.config.vision;
    if (shape.length !== 4 || shape[0]! < 1 || [3, imageSize, imageSize].some((n, i) => n !== shape[i + 1]))
      throw new ShapeError("ImageReward", `expected pixels [B, 3, ${imageSize}, ${imageSize}], received [${shape.join(", ")}]`);
  }

  #checkText({ inputIds, attentionMask }: Omit<ImageRewardInputs, "pixels">, batch: number): readonly number[] {
    const { shape } = inputIds;
    const { positions } = this.config.text;
    if (shape.length !== 2 || shape[0] !== batch || shape[1]! < 1 || shape[1]! > positions)
      throw new ShapeError("ImageReward", `expected inputIds [${batch}, N] with N <= ${positions}, received [${shape.join(", ")}]`);
    if (attentionMask.shape.length !== 2 || attentionMask.shape.some((n, i) => n !== shape[i]))
      throw new ShapeError("ImageReward", `expected attentionMask [${shape.join(", ")}], received [${attentionMask.shape.join(", ")}]`);
    return shape;
  }

  /** Frees the session and all it holds. Calls after it throw ClosedError. */
  close(): Promise<void> {
    return this.#handle.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The config of a checkpoint beside med_config.json, whose text part it holds. Throws ConfigError for a normalisation that is none. */
export function imageRewardConfig(parts: Pick<ImageRewardConfig, "vision" | "text"> & Partial<ImageRewardConfig>): ImageRewardConfig {
  const config = { ...imageRewardDefaults, ...parts };
  if (!(config.std > 0 && Number.isFinite(config.mean)))
    throw new ConfigError("imageRewardConfig", "mean, std", "a number, and one > 0", [config.mean, config.std]);
  return config;
}
