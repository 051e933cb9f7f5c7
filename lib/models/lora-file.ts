/** Adapter files. One adapter is written under four kinds of names in the field; all are brought to `<module>.lora.down.weight` and `.up.weight`:
 *    diffusers      unet.<module>.lora.down.weight
 *    peft           unet.<module>.lora_A.weight                        (A is down, B is up)
 *    processors     unet.<attention>.processor.to_q_lora.down.weight   (diffusers before peft)
 *    kohya          lora_unet_<module with underscores>.lora_down.weight, and .alpha
 *  Rank comes from the shapes, alpha from kohya's tensors or from the header text `lora_adapter_metadata`, else it equals the rank. */

import { statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type DeferredTensor, readSafetensors, type TensorFile, writeSafetensors } from "../data/safetensors.js";
import { DataError } from "../errors.js";
import { downName, type LoraAdapter, type LoraOptions, upName } from "../nn/lora.js";
import { parseStrictJson } from "../util/strict-json.js";

const fileName = "pytorch_lora_weights.safetensors";
const metadataField = "lora_adapter_metadata";

export interface LoraFile {
  readonly file: TensorFile;
  /** Rank, alpha and the modules that the file adapts. */
  readonly options: LoraOptions;
  /** Parameter name of a stored tensor; undefined for kohya's alphas. */
  parameterOf(stored: string): string | undefined;
}

type Part = "down" | "up" | "alpha";

/** Opens an adapter for a model with these module names. `path` is the file, or a folder with pytorch_lora_weights.safetensors.
 *  Throws DataError on a name that fits no style or module, on ranks or alphas that differ between modules, on DoRA and the like. */
export function readLora(path: string, modules: readonly string[]): LoraFile {
  const file = readSafetensors(statSync(path, { throwIfNoEntry: false })?.isDirectory() ? join(path, fileName) : path);
  try {
    const known = new Map(modules.map(module => [module.replaceAll(".", "_"), module]));
    const places = new Map([...file.tensors.keys()].map(stored => [stored, place(stored, known, file.source)]));
    const adapted = new Set([...places.values()].map(({ module }) => module));
    const rank = commonRank(file, places);
    const options = { rank, ...readScaling(file, places, rank), targets: [...adapted] };
    const parameterOf = (stored: string): string | undefined => {
      const { module, part } = places.get(stored)!;
      return part === "alpha" ? undefined : part === "down" ? downName(module) : upName(module);
    };
    return { file, options, parameterOf };
  } catch (error) {
    file.close();
    throw error;
  }
}

interface Place {
  readonly module: string;
  readonly part: Part;
}

const parts: Readonly<Record<string, Part>> = { "lora.down": "down", "lora.up": "up", lora_A: "down", lora_B: "up", lora_down: "down", lora_up: "up" };

function place(stored: string, known: ReadonlyMap<string, string>, file: string): Place {
  const kohya = /^lora_unet_(.+)\.(?:(lora_down|lora_up)\.weight|alpha)$/.exec(stored);
  const named = /^(?:unet\.)?(.+)\.(lora\.down|lora\.up|lora_A|lora_B)(?:\.default)?\.weight$/.exec(stored);
  const processor = /^(?:unet\.)?(.+)\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$/.exec(stored);
  const found: Place | undefined = processor
    ? { module: `${processor[1]}.${processor[2] === "to_out" ? "to_out.0" : processor[2]}`, part: processor[3] as Part }
    : kohya
      ? { module: known.get(kohya[1]!) ?? "", part: kohya[2] ? parts[kohya[2]]! : "alpha" }
      : named
        ? { module: named[1]!, part: parts[named[2]!]! }
        : undefined;
  if (!found) throw new DataError(file, "expected the name of an adapter's tensor (diffusers, peft, processor or kohya style)", { field: stored });
  if (known.get(found.module.replaceAll(".", "_")) !== found.module)
    throw new DataError(file, `expected a module of this model, received ${JSON.stringify(found.module || kohya?.[1])}`, { field: stored });
  return found;
}

function commonRank(file: TensorFile, places: ReadonlyMap<string, Place>): number {
  const ranks = new Map<number, string>();
  for (const [stored, { part }] of places) if (part === "down") ranks.set(file.tensors.get(stored)!.shape[0] ?? 0, stored);
  const [rank, ...others] = ranks.keys();
  if (rank === undefined) throw new DataError(file.source, "expected an adapter, received a file without one");
  if (others.length > 0)
    throw new DataError(file.source, `expected one rank for all modules, received ${[...ranks.keys()]}`, { field: ranks.get(others[0]!)! });
  return rank;
}

function readScaling(file: TensorFile, places: ReadonlyMap<string, Place>, rank: number): { alpha: number; rankStabilized: boolean } {
  const alphas = new Set<number>();
  for (const [stored, { part }] of places) if (part === "alpha") alphas.add(Number(file.tensor(stored).data[0]));
  if (alphas.size > 1) throw new DataError(file.source, `expected one alpha for all modules, received ${[...alphas]}`, { field: "alpha" });
  const text = file.metadata.get(metadataField);
  const { alpha, rankStabilized } = text === undefined ? { alpha: undefined, rankStabilized: false } : readMetadata(text, file.source);
  return { alpha: [...alphas][0] ?? alpha ?? rank, rankStabilized };
}

/** What of peft's LoraConfig changes the result. */
function readMetadata(text: string, file: string): { alpha: number | undefined; rankStabilized: boolean } {
  const json = parseStrictJson(new TextEncoder().encode(text), file, metadataField) as Record<string, unknown> | null;
  const field = (name: string): unknown => json?.[`unet.${name}`] ?? undefined;
  const refuse = (name: string, expected: string): never => {
    throw new DataError(file, `expected ${expected}, received ${JSON.stringify(field(name))}`, { field: `${metadataField}.unet.${name}` });
  };
  for (const name of ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"]) if (field(name)) refuse(name, "false");
  for (const name of ["rank_pattern", "alpha_pattern"]) if (Object.keys(field(name) ?? {}).length > 0) refuse(name, "one value for all modules");
  const alpha = field("lora_alpha");
  if (alpha !== undefined && !(typeof alpha === "number" && alpha > 0)) refuse("lora_alpha", "a number > 0");
  return { alpha: alpha as number | undefined, rankStabilized: field("use_rslora") === true };
}

/** Writes the adapter into a folder, with the scaling in the header as diffusers 0.40 does. `weights` are those of the adapter's store. */
export async function writeLora(folder: string, adapter: LoraAdapter, weights: ReadonlyMap<string, DeferredTensor>): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { rank, alpha, rankStabilized, targets } = adapter;
  const config = { alpha_pattern: {}, bias: "none", lora_alpha: alpha, lora_dropout: 0, peft_type: "LORA", r: rank, rank_pattern: {} };
  const fields = Object.entries({ ...config, target_modules: targets, use_dora: false, use_rslora: rankStabilized });
  const metadata = JSON.stringify(Object.fromEntries(fields.map(([name, value]) => [`unet.${name}`, value])), null, 2);
  const named = new Map([...weights].map(([name, tensor]) => [`unet.${name}`, tensor]));
  await writeSafetensors(join(folder, fileName), named, { format: "pt", [metadataField]: metadata });
}
