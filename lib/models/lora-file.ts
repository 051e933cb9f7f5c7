/** Adapter files, read: every tensor's module (lora-names.ts), ranks from shapes, alphas from kohya's tensors or from the header text `lora_adapter_metadata`, else equal to
 *  the rank. A file may hold adapters of a UNet and of text encoders; each model takes its own. */

import { statSync } from "node:fs";
import { join } from "node:path";
import type { TensorFile } from "../data/safetensors.js";
import type { SafetensorsEntry } from "../data/safetensors-header.js";
import { readTensors } from "../data/weights.js";
import { DataError, WeightsError } from "../errors.js";
import { downName, type LoraOptions, magnitudeName, upName } from "../nn/lora.js";
import { convert } from "../util/host-tensor.js";
import { parseStrictJson } from "../util/strict-json.js";
import { type ComponentName, type LoraComponent, LoraNames, type LoraPart, type LoraPlace } from "./lora-names.js";

/** Name of the file in a folder, as diffusers has it. */
export const loraFileName = "pytorch_lora_weights.safetensors";
export const loraMetadataField = "lora_adapter_metadata";

export interface LoraFile {
  readonly file: TensorFile;
  /** By component: rank, alpha and the modules that the file adapts. */
  readonly options: ReadonlyMap<ComponentName, LoraOptions>;
  /** Parameter name of a stored tensor; undefined for alphas, and for tensors of another component. */
  parameterOf(component: ComponentName): (stored: string) => string | undefined;
}

export interface ReadLoraOptions {
  /** Components whose tensors are left alone, because another model reads them or nobody does. */
  readonly skip?: readonly ComponentName[];
}

/** Opens an adapter (.safetensors, or what torch.save wrote). `path` is the file, or a folder with pytorch_lora_weights.safetensors.
 *  Throws WeightsError listing every name that fits no style, or no module of these components; DataError on scalings and variants that are not supported. */
export function readLora(path: string, components: readonly LoraComponent[], { skip = [] }: ReadLoraOptions = {}): LoraFile {
  const file = readTensors(statSync(path, { throwIfNoEntry: false })?.isDirectory() ? join(path, loraFileName) : path);
  try {
    const names = new LoraNames(components);
    const wanted = [...file.tensors.keys()].filter(stored => !skip.includes(LoraNames.componentOf(stored) ?? components[0]!.name));
    const placed = wanted.map(stored => [stored, names.place(stored)] as const);
    const unmatched = placed.filter(([, place]) => !place).map(([stored]) => stored);
    if (unmatched.length > 0) throw new WeightsError(file.source, [], unmatched);
    const places = new Map(placed as readonly (readonly [string, LoraPlace])[]);
    if (places.size === 0) throw new DataError(file.source, `expected an adapter of ${components.map(c => c.name).join(", ")}, received a file without one`);
    const found = new Set([...places.values()].map(place => place.component));
    const options = new Map([...found].map(component => [component, readOptions(file, places, component)]));
    return { file: withFlatMagnitudes(file, places), options, parameterOf: component => stored => parameterName(places.get(stored), component) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function parameterName(place: LoraPlace | undefined, component: ComponentName): string | undefined {
  if (place?.component !== component || place.part === "alpha") return undefined;
  return { down: downName, up: upName, magnitude: magnitudeName }[place.part](place.module);
}

function readOptions(file: TensorFile, places: ReadonlyMap<string, LoraPlace>, component: ComponentName): LoraOptions {
  const own = [...places].filter(([, place]) => place.component === component);
  const stored = (part: LoraPart): Map<string, string> => new Map(own.filter(([, place]) => place.part === part).map(([name, { module }]) => [module, name]));
  const [downs, alphas, magnitudes] = [stored("down"), stored("alpha"), stored("magnitude")];
  if (downs.size === 0) throw new DataError(file.source, `expected an adapter of ${component}, received a file without one`);
  const notes = readMetadata(file, component);
  const sizes = new Map(
    [...downs].map(([module, name]) => {
      const rank = file.tensors.get(name)!.shape[0] ?? 0;
      return [module, { rank, alpha: readAlpha(file, alphas.get(module)) ?? notes.alphaOf(module) ?? rank }] as const;
    }),
  );
  const orphan = [...alphas, ...magnitudes].find(([module]) => !sizes.has(module));
  if (orphan) throw new WeightsError(file.source, [downName(orphan[0])], [orphan[1]]);
  const common = mostCommon([...sizes.values()]);
  const modules = new Map([...sizes].filter(([, { rank, alpha }]) => rank !== common.rank || alpha !== common.alpha));
  const { rankStabilized } = notes;
  return { ...common, rankStabilized, targets: [...sizes.keys()], modules, magnitudes: new Set(magnitudes.keys()) };
}

interface Size {
  readonly rank: number;
  readonly alpha: number;
}

function mostCommon(sizes: readonly Size[]): Size {
  const counts = new Map<string, { size: Size; count: number }>();
  for (const size of sizes) {
    const key = `${size.rank} ${size.alpha}`;
    counts.set(key, { size, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  return [...counts.values()].reduce((a, b) => (b.count > a.count ? b : a)).size;
}

/** kohya's tools take 0 for the rank. */
function readAlpha(file: TensorFile, stored: string | undefined): number | undefined {
  if (stored === undefined) return undefined;
  const { data, dtype } = file.tensor(stored);
  const value = data.length === 1 ? Number(convert({ data, dtype, shape: [] }, "f64").data[0]) : Number.NaN;
  if (!(value >= 0 && value < Infinity)) throw new DataError(file.source, `expected one number >= 0, received ${value}`, { field: stored });
  return value === 0 ? undefined : value;
}

interface Notes {
  readonly rankStabilized: boolean;
  alphaOf(module: string): number | undefined;
}

/** What of peft's LoraConfig changes the result. Ranks are in the shapes, and whether there are magnitudes in the names. */
function readMetadata(file: TensorFile, component: ComponentName): Notes {
  const text = file.metadata.get(loraMetadataField);
  if (text === undefined) return { rankStabilized: false, alphaOf: () => undefined };
  const json = parseStrictJson(new TextEncoder().encode(text), file.source, loraMetadataField) as Record<string, unknown> | null;
  const field = (name: string): unknown => json?.[`${component}.${name}`] ?? undefined;
  const refuse = (name: string, expected: string): never => {
    const place = { field: `${loraMetadataField}.${component}.${name}` };
    throw new DataError(file.source, `expected ${expected}, received ${JSON.stringify(field(name))}`, place);
  };
  for (const name of ["fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"]) if (field(name)) refuse(name, "false");
  const isAlpha = (value: unknown): value is number => typeof value === "number" && value > 0 && value < Infinity;
  const alpha = field("lora_alpha");
  if (alpha !== undefined && !isAlpha(alpha)) refuse("lora_alpha", "a number > 0");
  const patterns = Object.entries(field("alpha_pattern") ?? {});
  for (const [pattern, value] of patterns) if (!isAlpha(value) || !/^[\w.]+$/.test(pattern)) refuse("alpha_pattern", "numbers > 0 by names of modules");
  const order = new Map(patterns.map(([pattern], i) => [pattern, i]));
  /** By the first pattern that is the module's name or its end, as peft looks them up. */
  const alphaOf = (module: string): number | undefined => {
    const parts = module.split(".");
    const places = parts.flatMap((_, i) => order.get(parts.slice(i).join(".")) ?? []);
    return (places.length > 0 ? patterns[Math.min(...places)]![1] : alpha) as number | undefined;
  };
  return { rankStabilized: field("use_rslora") === true, alphaOf };
}

/** Magnitudes as [N], however a file shapes them: [N], [N, 1], [N, 1, 1, 1], peft's convolutions [1, N, 1, 1]. Those of LyCORIS along the inputs are another method. */
function withFlatMagnitudes(file: TensorFile, places: ReadonlyMap<string, LoraPlace>): TensorFile {
  const shapes = new Map<string, readonly number[]>();
  const ups = new Map([...places].filter(([, { part }]) => part === "up").map(([stored, { module, component }]) => [`${component}.${module}`, stored]));
  for (const [stored, { part, module, component }] of places) {
    if (part !== "magnitude") continue;
    const { shape } = file.tensors.get(stored)!;
    const up = ups.get(`${component}.${module}`);
    const features = up === undefined ? undefined : file.tensors.get(up)!.shape[0];
    const [first, second] = shape;
    const outputs = shape.length === 4 && first === 1 ? second : first;
    if (
      features === undefined ||
      outputs !== features ||
      shape.reduce((n, d) => n * d, 1) !== features ||
      (stored.endsWith(".dora_scale") && first !== features)
    )
      throw new DataError(file.source, `expected one magnitude for each of ${features} outputs, received [${shape}]`, { field: stored });
    shapes.set(stored, [features]);
  }
  if (shapes.size === 0) return file;
  const reshaped = <T extends { readonly shape: readonly number[] }>(name: string, value: T): T => ({ ...value, shape: shapes.get(name) ?? value.shape });
  const tensors = new Map([...file.tensors].map(([name, entry]): [string, SafetensorsEntry] => [name, reshaped(name, entry)]));
  const { source, metadata } = file;
  return {
    source,
    metadata,
    tensors,
    tensor: name => reshaped(name, file.tensor(name)),
    place: name => reshaped(name, file.place(name)),
    close: () => file.close(),
  };
}
