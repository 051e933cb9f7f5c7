/** What a call of DiffusionPipeline.generate takes, its defaults, and what is refused. */

import type { Image } from "../data/image.js";
import { ConfigError } from "../errors.js";
import type { VaeRunOptions } from "../models/vae-model.js";
import type { Scheduler } from "../schedulers/scheduler.js";
import type { HostTensor } from "../util/host-tensor.js";
import type { DiffusionPipeline } from "./pipeline.js";

export interface GenerateOptions {
  readonly prompt: string | readonly string[];
  /** What pictures should not show: one for all prompts, or one each. Where it is not given: "" (SDXL: no text at all). */
  readonly negativePrompt?: string | readonly string[];
  /** Default 1. */
  readonly imagesPerPrompt?: number;
  /** One number: picture i of the call is drawn from seed + i. Or one for each picture. A whole number; 0 by default. */
  readonly seed?: number | readonly number[];
  /** Default 25. */
  readonly steps?: number;
  /** That of the folder by default. */
  readonly scheduler?: Scheduler;
  /** Strength of classifier-free guidance, 1: none. Default 7.5, of SDXL 5. */
  readonly guidanceScale?: number;
  /** In [0, 1], against the overexposure of strong guidance (Lin et al. 2023, arXiv:2305.08891, section 3.4). Default 0. */
  readonly guidanceRescale?: number;
  /** Noise levels between which guidance applies (Sampler). */
  readonly guidanceInterval?: readonly [number, number];
  /** Size in pixels, multiples of the autoencoder's factor; that of the model, or of `image`, by default. */
  readonly height?: number;
  readonly width?: number;
  /** Layers of the text encoder left out at the end (default 0). */
  readonly clipSkip?: number;
  /** Image to image: what to begin with, resized to the size of the result. */
  readonly image?: Image;
  /** The share of the steps that `image` goes through, in (0, 1]; 0.8 by default, 1 for inpainting. */
  readonly strength?: number;
  /** Inpainting of `image`: white is painted anew, black is kept. */
  readonly mask?: Image;
  /** SDXL: what the model is told of the picture's origin, in pixels. */
  readonly sizes?: { readonly original?: Size; readonly cropTopLeft?: Size; readonly target?: Size };
  /** SDXL refiner: the scores that the model is told of prompts and negative prompts; 6 and 2.5 by default. */
  readonly aestheticScore?: { readonly positive?: number; readonly negative?: number };
  /** Standard normal noise [pictures, C, h, w] to begin with, in place of what the seeds draw. */
  readonly latents?: HostTensor;
  /** Pictures that run together: 1 by default. More is faster on a GPU and takes more memory. */
  readonly batchSize?: number;
  /** Decoding in tiles (AutoencoderKL). */
  readonly tiling?: VaeRunOptions["tiling"];
  /** Stops within a step; rejects with signal.reason. */
  readonly signal?: AbortSignal;
  /** After each evaluation of the UNet. */
  onStep?(event: GenerateStep): void;
  /** Told of prompts that were cut, once a call; by default a process warning (code ATTUNE_PROMPT_TRUNCATED). */
  onWarning?(message: string): void;
}

/** [height, width] or [top, left]. */
export type Size = readonly [number, number];

export interface GenerateStep {
  /** Evaluations of the UNet done, and in all, of this batch. */
  readonly step: number;
  readonly steps: number;
  /** Pictures first .. first + count - 1 of the call. */
  readonly first: number;
  readonly count: number;
  readonly pictures: number;
  /** What the pictures look like by now: the clean estimate, decoded. Costs nothing until it is called. */
  preview(): Promise<Image[]>;
}

/** The prompt of every picture: those of the first prompt, then of the second. */
export function promptsOf({ prompt, imagesPerPrompt = 1 }: GenerateOptions): string[] {
  if (!Number.isSafeInteger(imagesPerPrompt) || imagesPerPrompt < 1)
    throw new ConfigError("generate", "imagesPerPrompt", "a whole number >= 1", imagesPerPrompt);
  const prompts = asList(prompt);
  if (prompts.length === 0) throw new ConfigError("generate", "prompt", "at least one", prompts);
  for (const one of prompts) if (typeof one !== "string") throw new ConfigError("generate", "prompt", "text", one);
  return prompts.flatMap(one => Array.from({ length: imagesPerPrompt }, () => one));
}

/** The negative prompt of every picture; undefined: none was given. */
export function negativePromptsOf({ prompt, negativePrompt, imagesPerPrompt = 1 }: GenerateOptions, pictures: number): string[] | undefined {
  if (negativePrompt === undefined) return undefined;
  if (typeof negativePrompt === "string") return Array.from({ length: pictures }, () => negativePrompt);
  const prompts = asList(prompt).length;
  if (negativePrompt.length !== prompts)
    throw new ConfigError("generate", "negativePrompt", `one, or one for each of ${prompts} prompts`, `${negativePrompt.length} of them`);
  return promptsOf({ prompt: negativePrompt, imagesPerPrompt });
}

/** The seed of every picture. */
export function seedsOf({ seed = 0 }: GenerateOptions, pictures: number): number[] {
  const seeds = typeof seed === "number" ? Array.from({ length: pictures }, (_, i) => seed + i) : [...seed];
  if (seeds.length !== pictures) throw new ConfigError("generate", "seed", `one number, or one for each of ${pictures} pictures`, `${seeds.length} of them`);
  for (const s of seeds) if (!Number.isSafeInteger(s) || s < 0) throw new ConfigError("generate", "seed", "a whole number >= 0", s);
  return seeds;
}

/** Height and width in pixels: as given, as the picture that is begun with (cut to whole latents), or as the model was trained. */
export function sizeOf({ height, width, image }: GenerateOptions, { unet, factor }: DiffusionPipeline): Size {
  const own = (unet.config.sampleSize ?? 64) * factor;
  const whole = (pixels: number): number => pixels - (pixels % factor);
  const size: Size = [height ?? (image ? whole(image.height) : own), width ?? (image ? whole(image.width) : own)];
  for (const [i, name] of ["height", "width"].entries())
    if (!Number.isSafeInteger(size[i]) || size[i]! < factor || size[i]! % factor !== 0)
      throw new ConfigError("generate", name, `a multiple of ${factor}`, size[i]);
  return size;
}

export function guidanceOf({ guidanceScale }: GenerateOptions, { index }: DiffusionPipeline): number {
  const scale = guidanceScale ?? (index.family === "sdxl" ? 5 : 7.5);
  if (!Number.isFinite(scale)) throw new ConfigError("generate", "guidanceScale", "a finite number", guidanceScale);
  return scale;
}

function asList(text: string | readonly string[]): readonly string[] {
  return typeof text === "string" ? [text] : text;
}
