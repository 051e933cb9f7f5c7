/** Stable Diffusion checkpoints as one file (CompVis' and Stability's layout, .safetensors or .ckpt) and as a diffusers folder: each made from the other, tensor by tensor, so
 *  that memory holds one at a time. A file or folder appears whole or not at all, under its name only once every tensor is written. */

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type DeferredTensor, type TensorFile, writeSafetensors } from "../data/safetensors.js";
import { readTensors, readWeights } from "../data/weights.js";
import { ConfigError, DataError, WeightsError } from "../errors.js";
import { syncFolder, writeAtomically, writeFully } from "../util/atomic-file.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type Config, detectFamily, type Family, families, familyOf, type Part, type PartName } from "./single-file/parts.js";
import { modelIndex, schedulerConfig } from "./single-file/pipeline-config.js";
import { type Converted, toFile, toFolder } from "./single-file/rules.js";
import { unetPrefix } from "./single-file/unet.js";

export interface ConvertControl {
  readonly signal?: AbortSignal;
  /** After each tensor: how many are written, and how many will be. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface ToDiffusersOptions extends ConvertControl {
  /** What the model predicts, where the file does not say: needed for SD 2.x, whose 512 models predict noise and whose 768 models predict v. "epsilon" otherwise. */
  readonly predictionType?: "epsilon" | "v_prediction";
  /** config.json in place of what is detected from shapes, for models that are not of the published sizes. */
  readonly configs?: Readonly<Partial<Record<PartName, Config>>>;
  /** Takes the averaged weights of the UNet (`model_ema.`), which SD 1.x training checkpoints have beside the last ones. */
  readonly ema?: boolean;
}

export interface Conversion {
  readonly family: Family;
  readonly parts: readonly PartName[];
  /** Names of the file that stand for nothing in the folder: optimizer state, schedules, the last layer of SD 2's text encoder. */
  readonly ignored: readonly string[];
}

/** Writes `folder` from a checkpoint: unet, vae, text encoders as far as the file has them, scheduler and model_index.json. Tokenizers are not in such files.
 *  Throws ConfigError if the folder exists or a field of a config cannot be told from the file, DataError on a file of another layout, WeightsError listing every
 *  missing and mismatched tensor; then, or aborted, there is no folder. */
export async function toDiffusers(file: string, folder: string, options: ToDiffusersOptions = {}): Promise<Conversion> {
  if (existsSync(folder)) throw new ConfigError("toDiffusers", "folder", "a path where nothing is yet", folder);
  const source = readTensors(file);
  const temporary = `${folder}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`;
  try {
    const family = detectFamily(source);
    const predictionType = predictionOf(family, source, options);
    const parts = families[family].map(part => openPart(part, source, options)).filter(part => part !== undefined);
    const count = counter(
      parts.map(part => part.converted.tensors),
      options,
    );
    for (const { part, config, converted } of parts) {
      await mkdir(join(temporary, part.name), { recursive: true });
      await writeSafetensors(join(temporary, part.name, `${part.baseName}.safetensors`), count(converted.tensors), { format: "pt" });
      await writeJson(join(temporary, part.name, "config.json"), config);
    }
    await mkdir(join(temporary, "scheduler"));
    await writeJson(join(temporary, "scheduler", "scheduler_config.json"), schedulerConfig(family, predictionType));
    await writeJson(join(temporary, "model_index.json"), modelIndex(family, parts));
    await rename(temporary, folder);
    await syncFolder(dirname(folder));
    const used = new Set(parts.flatMap(part => [...part.converted.used]));
    return { family, parts: parts.map(({ part }) => part.name), ignored: [...source.tensors.keys()].filter(name => !used.has(name)) };
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  } finally {
    source.close();
  }
}

interface OpenPart {
  readonly part: Part;
  readonly config: Config;
  readonly converted: Converted;
}

/** The part's tensors by the names of a folder; undefined where the file has none of them. */
function openPart(part: Part, source: TensorFile, { configs, ema = false }: ToDiffusersOptions): OpenPart | undefined {
  const names = [...source.tensors.keys()].filter(name => name.startsWith(part.prefix));
  if (names.length === 0) return undefined;
  const whole = part.prefix + (part.optionalPrefix ?? "");
  const config = configs?.[part.name] ?? part.detect(source, names.some(name => name.startsWith(whole)) ? whole : part.prefix);
  const rules = part.rules(config, `${source.source} (${part.name})`);
  const located = new Map(names.map(name => [part.currentName(name.slice(part.prefix.length)), name]));
  const averaged = ema && part.name === "unet" ? new Map([...located].map(([name]) => [name, emaName(name)])) : located;
  const absent = [...averaged.values()].filter(name => !source.tensors.has(name));
  if (absent.length > 0) throw new WeightsError(source.source, absent, []);
  const converted = toFolder(source, averaged, rules);
  if (converted.missing.length > 0)
    throw new WeightsError(
      source.source,
      converted.missing.map(name => part.prefix + name),
      [],
    );
  const mismatched = part.mismatched?.(config, converted.tensors) ?? [];
  if (mismatched.length > 0) throw new WeightsError(source.source, [], [], mismatched);
  return { part, config, converted };
}

/** PyTorch Lightning's average of a parameter is a buffer, whose name may have no dots. */
function emaName(name: string): string {
  return `model_ema.${`${unetPrefix.split(".")[1]}.${name}`.replaceAll(".", "")}`;
}

function predictionOf(family: Family, source: TensorFile, { predictionType }: ToDiffusersOptions): "epsilon" | "v_prediction" {
  if (predictionType !== undefined) return predictionType;
  if (family === "sd2")
    throw new ConfigError("toDiffusers", "predictionType", '"epsilon" or "v_prediction" for SD 2.x, whose files do not say which', predictionType);
  return source.tensors.has("v_pred") ? "v_prediction" : "epsilon"; // fine-tunes of SDXL mark themselves so
}

export interface ToSingleFileOptions extends ConvertControl {
  /** "fp16" reads the weights of that variant. */
  readonly variant?: string;
}

/** Writes a checkpoint in CompVis' layout (.safetensors) from a diffusers folder, with the models that the folder has; a unet must be there.
 *  Throws DataError on folders without one, WeightsError listing every missing and unexpected tensor; then, or aborted, an existing file is left as it was. */
export async function toSingleFile(
  folder: string,
  file: string,
  options: ToSingleFileOptions = {},
): Promise<{ readonly family: Family; readonly parts: readonly PartName[] }> {
  const configs = await readConfigs(folder);
  const family = familyOf(configs);
  const parts = families[family].filter(part => configs[part.name]);
  const opened: TensorFile[] = [];
  try {
    const tensors = new Map<string, DeferredTensor>();
    for (const part of parts) {
      const source = readWeights(join(folder, part.name), part.baseName, options.variant);
      opened.push(source);
      const located = new Map([...source.tensors.keys()].map(name => [part.currentName(name), name]));
      const rules = part.rules(configs[part.name]!, join(folder, part.name, "config.json"));
      const { tensors: own, used, missing } = toFile(source, located, rules);
      const unexpected = [...source.tensors.keys()].filter(name => !used.has(name));
      if (missing.length + unexpected.length > 0) throw new WeightsError(source.source, missing, unexpected);
      for (const [name, tensor] of own) tensors.set(part.prefix + name, tensor);
    }
    await writeSafetensors(file, counter([tensors], options)(tensors), { format: "pt" });
  } finally {
    for (const source of opened) source.close();
  }
  return { family, parts: parts.map(part => part.name) };
}

async function readConfigs(folder: string): Promise<Partial<Record<PartName, Config>>> {
  const configs: Partial<Record<PartName, Config>> = {};
  for (const name of ["unet", "vae", "text_encoder", "text_encoder_2"] as const) {
    const path = join(folder, name, "config.json");
    if (!existsSync(path)) continue;
    const json = parseStrictJson(await readFile(path), path);
    if (typeof json !== "object" || json === null || Array.isArray(json)) throw new DataError(path, "expected a JSON object, received something else");
    configs[name] = json as Config;
  }
  if (!configs.unet) throw new DataError(folder, "expected unet/config.json, received a folder without it");
  return configs;
}

/** Tensors that check the signal before they are read, and count. */
function counter(groups: readonly ReadonlyMap<string, DeferredTensor>[], { signal, onProgress }: ConvertControl) {
  const total = groups.reduce((n, group) => n + group.size, 0);
  let done = 0;
  const counted = (tensor: DeferredTensor): DeferredTensor => ({
    ...tensor,
    async read() {
      signal?.throwIfAborted();
      const value = await tensor.read();
      onProgress?.(++done, total);
      return value;
    },
  });
  return (tensors: ReadonlyMap<string, DeferredTensor>) => new Map([...tensors].map(([name, tensor]) => [name, counted(tensor)]));
}

async function writeJson(path: string, value: unknown): Promise<void> {
  await writeAtomically(path, file => writeFully(file, new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)));
}
