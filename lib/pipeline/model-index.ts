/** model_index.json of a diffusers pipeline folder: which parts there are, of which classes. Everything that cannot be used is found before a weight is read,
 *  and told in one error. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";

export type PartName = "unet" | "vae" | "scheduler" | "text_encoder" | "text_encoder_2" | "tokenizer" | "tokenizer_2";

/** What a pipeline does with its parts; which of the classes of a family a folder names says little, for the same parts serve all of them. */
export type PipelineFamily = "sd" | "sdxl";

export interface ModelIndex {
  readonly className: string;
  readonly family: PipelineFamily;
  /** Parts that are there. A pipeline without `vae` works on pixels. */
  readonly parts: ReadonlySet<PartName>;
  /** Parts that the folder has and that are not used, such as "safety_checker". */
  readonly unused: readonly string[];
  /** SDXL: a prompt that is not given is all zeros, not the encoding of "". */
  readonly zerosForNoPrompt: boolean;
  /** SDXL refiner: sizes are followed by an aesthetic score instead of the target size. */
  readonly aestheticScore: boolean;
  readonly json: Readonly<Record<string, unknown>>;
}

const families: Readonly<Record<string, PipelineFamily>> = {
  StableDiffusionPipeline: "sd",
  StableDiffusionImg2ImgPipeline: "sd",
  StableDiffusionInpaintPipeline: "sd",
  LatentConsistencyModelPipeline: "sd",
  StableDiffusionXLPipeline: "sdxl",
  StableDiffusionXLImg2ImgPipeline: "sdxl",
  StableDiffusionXLInpaintPipeline: "sdxl",
};

/** Classes that can stand for a part. Schedulers are judged by their config (schedulerFromConfig). */
const classes: Readonly<Record<PartName, readonly string[] | undefined>> = {
  unet: ["UNet2DConditionModel"],
  vae: ["AutoencoderKL"],
  scheduler: undefined,
  text_encoder: ["CLIPTextModel"],
  text_encoder_2: ["CLIPTextModelWithProjection"],
  tokenizer: ["CLIPTokenizer", "CLIPTokenizerFast"],
  tokenizer_2: ["CLIPTokenizer", "CLIPTokenizerFast"],
};
/** Parts of diffusers' pipelines that change nothing here: pictures are not censored, nor read as prompts. */
const ignored = new Set(["safety_checker", "feature_extractor", "image_encoder", "watermark"]);
const fields = new Set(["requires_safety_checker", "force_zeros_for_empty_prompt", "requires_aesthetics_score", "add_watermarker", "is_cosxl_edit"]);

/** Throws one DataError that lists every part that is missing, unknown or of a class that is not supported. */
export function readModelIndex(folder: string): ModelIndex {
  const path = join(folder, "model_index.json");
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const hint = existsSync(join(folder, "config.json")) ? "; this is the folder of one model, not of a pipeline: load it by its own class" : "";
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}${hint}`, {}, { cause });
  }
  const json = parseStrictJson(bytes, path);
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new DataError(path, "expected a JSON object");
  return modelIndexOf(json as Record<string, unknown>, path, part => existsSync(join(folder, part)));
}

/** The same of a parsed file; `exists` says whether the folder of a part is there. */
export function modelIndexOf(json: Readonly<Record<string, unknown>>, source: string, exists: (part: string) => boolean): ModelIndex {
  const problems: string[] = [];
  const className = String(json._class_name);
  const family = families[className];
  if (!family) problems.push(`_class_name: expected one of ${Object.keys(families).join(", ")}, received ${className}`);
  const parts = new Set<PartName>();
  const unused: string[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name.startsWith("_") || fields.has(name)) continue;
    if (isAbsent(value)) continue;
    if (ignored.has(name)) unused.push(name);
    else if (!(name in classes)) problems.push(`${name}: unexpected part ${JSON.stringify(value)}`);
    else {
      const problem = problemOf(name as PartName, value, exists);
      if (problem) problems.push(`${name}: ${problem}`);
      parts.add(name as PartName);
    }
  }
  for (const name of neededBy(family, parts)) if (!parts.has(name)) problems.push(`${name}: missing`);
  if (problems.length > 0) throw new DataError(source, problems.join("; "));
  return {
    className,
    family: family!,
    parts,
    unused,
    zerosForNoPrompt: json.force_zeros_for_empty_prompt === true,
    aestheticScore: json.requires_aesthetics_score === true,
    json,
  };
}

/** SDXL's refiner has the second text encoder alone. */
function neededBy(family: PipelineFamily | undefined, parts: ReadonlySet<PartName>): readonly PartName[] {
  const always: readonly PartName[] = ["unet", "scheduler"];
  if (family !== "sdxl") return [...always, "text_encoder", "tokenizer"];
  const first: readonly PartName[] = parts.has("text_encoder") || parts.has("tokenizer") ? ["text_encoder", "tokenizer"] : [];
  return [...always, ...first, "text_encoder_2", "tokenizer_2"];
}

/** diffusers writes [null, null] for a part that a pipeline may have and has not. */
function isAbsent(value: unknown): boolean {
  return value === null || (Array.isArray(value) && value.every(v => v === null));
}

function problemOf(name: PartName, value: unknown, exists: (part: string) => boolean): string | undefined {
  if (!Array.isArray(value) || value.length !== 2 || typeof value[1] !== "string") return `expected [library, class], received ${JSON.stringify(value)}`;
  const allowed = classes[name];
  if (allowed && !allowed.includes(value[1])) return `expected ${allowed.join(" or ")}, received ${value[1]}`;
  return exists(name) ? undefined : "its folder is missing";
}
