/** Pictures from prompts: text features, sampling of the UNet's latents, and the decoder, as diffusers' text-to-image, image-to-image and inpainting
 *  pipelines do it. What is not said here is said by the parts. */

import type { Image } from "../data/image.js";
import { imagesOf } from "../data/preprocess.js";
import { type SampleOptions, Sampler } from "../diffusion/sampler.js";
import { unetDenoiser } from "../diffusion/unet-denoiser.js";
import { ConfigError } from "../errors.js";
import type { HostTensor } from "../util/host-tensor.js";
import { type GenerateOptions, guidanceOf, negativePromptsOf, promptsOf, seedsOf, sizeOf } from "./generate-options.js";
import { latentMask, masked, maskOf, pixelsOf } from "./pictures.js";
import type { DiffusionPipeline } from "./pipeline.js";
import { gathered, joined, rows } from "./tensors.js";
import { type PromptFeatures, timeIds, zerosLike } from "./text-conditioning.js";

/** Everything about a call that does not change from batch to batch. */
interface Call {
  readonly options: GenerateOptions;
  readonly prompts: readonly string[];
  readonly seeds: readonly number[];
  readonly height: number;
  readonly width: number;
  readonly condition: Condition;
  readonly uncondition: Condition | undefined;
  readonly start: Partial<Pick<SampleOptions, "init" | "strength" | "mask" | "extraChannels">>;
}
type Condition = Readonly<Record<string, HostTensor>>;

export class Generator {
  readonly #samplers = new Map<string, Sampler>();
  #revision = 0;

  constructor(readonly pipeline: DiffusionPipeline) {}

  async images(options: GenerateOptions): Promise<Image[]> {
    const images: Image[] = [];
    await this.run(options, async latents => void images.push(...(await this.decode(latents, options))));
    return images;
  }

  /** Calls `take` with the latents [n, C, h, w] of each batch, in order. */
  async run(options: GenerateOptions, take: (latents: HostTensor) => Promise<void>): Promise<void> {
    options.signal?.throwIfAborted();
    const call = await this.#prepare(options);
    const pictures = call.seeds.length,
      { batchSize = 1 } = options;
    if (!Number.isSafeInteger(batchSize) || batchSize < 1) throw new ConfigError("generate", "batchSize", "a whole number >= 1", batchSize);
    for (let first = 0; first < pictures; first += batchSize) await take(await this.#batch(call, first, Math.min(batchSize, pictures - first)));
  }

  /** Pictures of latents [n, C, h, w]. */
  async decode(latents: HostTensor, { tiling, signal }: Pick<GenerateOptions, "tiling" | "signal">): Promise<Image[]> {
    const { vae } = this.pipeline;
    if (!vae) return imagesOf(latents);
    const control = signal ? { signal } : {};
    return imagesOf(await vae.decode(await vae.fromLatents(latents, control), { ...control, ...(tiling !== undefined && { tiling }) }));
  }

  async #batch(call: Call, first: number, count: number): Promise<HostTensor> {
    const { options, condition, uncondition, seeds, start } = call;
    const { steps = 25, scheduler = this.pipeline.scheduler, guidanceRescale, guidanceInterval, latents, signal, onStep } = options;
    const part = (all: Condition): Condition => Object.fromEntries(Object.entries(all).map(([name, t]) => [name, rows(t, first, count)]));
    return this.#sampler(call).sample({
      scheduler,
      steps,
      condition: part(condition),
      ...(uncondition && { uncondition: part(uncondition), guidanceScale: guidanceOf(options, this.pipeline) }),
      ...(guidanceRescale !== undefined && { guidanceRescale }),
      ...(guidanceInterval && { guidanceInterval }),
      seeds: seeds.slice(first, first + count),
      ...(latents && { latents: rows(latents, first, count) }),
      ...partOf(start, first, count),
      ...(signal && { signal }),
      ...(onStep && {
        onStep: (step: number, of: number, clean: () => HostTensor) =>
          onStep({ step, steps: of, first, count, pictures: seeds.length, preview: () => this.decode(clean(), options) }),
      }),
    });
  }

  /** One for each size; their programs live as long as the UNet's session. An adapter that is put on or taken off begins anew. */
  #sampler({ height, width }: Call): Sampler {
    const { unet, schedule, factor, index, textEncoders } = this.pipeline;
    const { active: adapter, revision } = unet.adapters;
    if (this.#revision !== revision) this.#samplers.clear();
    this.#revision = revision;
    const key = `${height}x${width}`;
    const dtype = unet.store.computes === "f64" ? "f64" : "f32";
    const tokens = textEncoders[0]!.model.config.positions;
    const denoiser = unetDenoiser(unet.config, { height: height / factor, width: width / factor, tokens, dtype, sizes: index.aestheticScore ? 5 : 6 });
    const sampler =
      this.#samplers.get(key) ?? new Sampler({ session: unet.session, denoiser, store: unet.store, schedule, dtype, ...(adapter && { adapter }) });
    this.#samplers.set(key, sampler);
    return sampler;
  }

  async #prepare(options: GenerateOptions): Promise<Call> {
    const prompts = promptsOf(options);
    const [height, width] = sizeOf(options, this.pipeline);
    const seeds = seedsOf(options, prompts.length);
    const guided = guidanceOf(options, this.pipeline) !== 1;
    const { condition, uncondition } = await this.#condition(options, prompts, { height, width, guided });
    return { options, prompts, seeds, height, width, condition, uncondition, start: await this.#start(options, height, width, seeds) };
  }

  /** Each distinct prompt is encoded once. */
  async #condition(options: GenerateOptions, prompts: readonly string[], { height, width, guided }: { height: number; width: number; guided: boolean }) {
    const negative = negativePromptsOf(options, prompts.length);
    const positive = await this.#features(prompts, options);
    const { sizes = {}, aestheticScore: { positive: high = 6, negative: low = 2.5 } = {} } = options;
    const { original = [height, width], cropTopLeft = [0, 0], target = [height, width] } = sizes;
    const ids = (score: number): number[] => [...original, ...cropTopLeft, ...(this.pipeline.index.aestheticScore ? [score] : target)];
    const conditionOf = (features: PromptFeatures, score: number): Condition => ({
      encoderHiddenStates: features.encoderHiddenStates,
      ...(features.textEmbeds && { textEmbeds: features.textEmbeds, timeIds: timeIds(prompts.length, ids(score)) }),
    });
    if (!guided) return { condition: conditionOf(positive, high), uncondition: undefined };
    const none = negative === undefined && this.pipeline.index.zerosForNoPrompt;
    const uncond = none ? zerosLike(positive) : await this.#features(negative ?? prompts.map(() => ""), options);
    return { condition: conditionOf(positive, high), uncondition: conditionOf(uncond, low) };
  }

  async #features(prompts: readonly string[], { clipSkip, signal, onWarning = warn }: GenerateOptions): Promise<PromptFeatures> {
    const distinct = [...new Set(prompts)];
    const features = await this.pipeline.encodePrompt(distinct, { ...(clipSkip !== undefined && { clipSkip }), ...(signal && { signal }) });
    for (const { index, tokens, text } of features.truncated)
      onWarning(
        `the prompt ${JSON.stringify(distinct[index])} is too long for the text encoder: its last ${tokens} tokens are not seen: ${JSON.stringify(text)}`,
      );
    const gather = (t: HostTensor): HostTensor =>
      gathered(
        t,
        prompts.map(p => distinct.indexOf(p)),
      );
    return {
      encoderHiddenStates: gather(features.encoderHiddenStates),
      ...(features.textEmbeds && { textEmbeds: gather(features.textEmbeds) }),
      truncated: [],
    };
  }

  /** Where sampling begins: noise, a given picture, or a picture with a hole. */
  async #start({ image, mask, strength, ...control }: GenerateOptions, height: number, width: number, seeds: readonly number[]): Promise<Call["start"]> {
    const { unet, vae } = this.pipeline;
    const channels = vae?.config.latentChannels ?? 3;
    const paints = unet.config.inChannels > channels;
    if (paints && !(image && mask))
      throw new ConfigError("generate", "image and mask", "given: the UNet is one for inpainting", { image: !!image, mask: !!mask });
    if (!image) {
      if (mask) throw new ConfigError("generate", "image", "given where mask is", undefined);
      if (strength !== undefined) throw new ConfigError("generate", "image", "given where strength is", undefined);
      return {};
    }
    const pixels = pixelsOf(image, height, width);
    const share = { strength: strength ?? (mask ? 1 : 0.8) };
    const init = await this.#encode(pixels, seeds, control);
    if (!mask) return { init, ...share };
    const hole = maskOf(mask, height, width),
      small = latentMask(hole, this.pipeline.factor);
    if (!paints) return { init, mask: small, ...share };
    const around = await this.#encode(masked(pixels, hole), seeds, control);
    return {
      ...(share.strength < 1 && { init, ...share }),
      extraChannels: joined(
        [
          gathered(
            small,
            seeds.map(() => 0),
          ),
          around,
        ],
        1,
      ),
    };
  }

  /** Latents [pictures, C, h, w] of one picture, each a sample of the posterior by its own seed. */
  async #encode(pixels: HostTensor, seeds: readonly number[], { tiling, signal }: Pick<GenerateOptions, "tiling" | "signal">): Promise<HostTensor> {
    const { vae } = this.pipeline;
    if (!vae)
      return gathered(
        pixels,
        seeds.map(() => 0),
      );
    const control = signal ? { signal } : {};
    const posterior = await vae.encode(pixels, { ...control, ...(tiling !== undefined && { tiling }) });
    const samples: HostTensor[] = [];
    for (const seed of seeds) samples.push(await vae.sample(posterior, { seed }, control));
    return vae.toLatents(joined(samples, 0), control);
  }
}

/** What a batch begins with: its own rows of what is per picture; the mask is one for all. */
function partOf({ init, extraChannels, ...rest }: Call["start"], first: number, count: number): Call["start"] {
  return { ...rest, ...(init && { init: rows(init, first, count) }), ...(extraChannels && { extraChannels: rows(extraChannels, first, count) }) };
}

function warn(message: string): void {
  process.emitWarning(message, { code: "ATTUNE_PROMPT_TRUNCATED" });
}
