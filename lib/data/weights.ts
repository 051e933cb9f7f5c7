/** The weights of a model folder as diffusers and transformers save them: `<base>.safetensors`, a variant `<base>.fp16.safetensors`,
 *  or shards listed in `<base>.safetensors.index.json` (`<base>.safetensors.index.fp16.json`); older folders have `.bin` of torch.save in place of `.safetensors`.
 *  One name -> tensor view of whichever it is. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";
import { readSafetensors, type TensorFile } from "./safetensors.js";
import type { SafetensorsEntry } from "./safetensors-header.js";
import { readTorchFile } from "./torch-file.js";

/** Base names that differ where the format does: transformers' "model.safetensors" was "pytorch_model.bin". */
const binNames: Readonly<Record<string, string>> = { model: "pytorch_model" };

/** Opens the weights of a folder, e.g. ("sd15/unet", "diffusion_pytorch_model", "fp16"), safetensors before `.bin`. Throws DataError if none of the layouts is there. */
export function readWeights(folder: string, baseName: string, variant?: string): TensorFile {
  const infix = variant ? `${variant}.` : "";
  const names = [baseName, binNames[baseName] ?? baseName];
  const layouts = ["safetensors", "bin"].map((kind, i) => ({
    extension: `.${kind}`,
    single: join(folder, `${names[i]}.${infix}${kind}`),
    index: join(folder, `${names[i]}.${kind}.index.${infix}json`),
  }));
  for (const { extension, single, index } of layouts) {
    if (existsSync(single)) return readTensors(single);
    if (existsSync(index)) return readShards(folder, index, extension);
  }
  const others = existsSync(folder) ? readdirSync(folder).filter(file => names.some(name => file.startsWith(`${name}.`))) : [];
  const wanted = layouts.flatMap(({ single, index }) => [basename(single), basename(index)]);
  throw new DataError(
    folder,
    `expected ${wanted.slice(0, -1).join(", ")} or ${wanted.at(-1)}, received ${others.length > 0 ? others.join(", ") : "none of them"}`,
  );
}

/** Opens one file of tensors: safetensors by its extension, else as torch.save wrote it (.bin, .pt, .pth, .ckpt). */
export function readTensors(path: string): TensorFile {
  return path.endsWith(".safetensors") ? readSafetensors(path) : readTorchFile(path);
}

function readShards(folder: string, index: string, extension: string): TensorFile {
  const places = parseIndex(index, extension);
  const shards = new Map<string, TensorFile>();
  const close = (): void => {
    for (const shard of shards.values()) shard.close();
  };
  try {
    for (const file of new Set(places.values())) shards.set(file, readTensors(join(folder, file)));
    const tensors = joinShards(index, places, shards);
    const metadata = new Map([...shards.values()].flatMap(shard => [...shard.metadata]));
    const shardOf = (name: string): TensorFile => {
      const shard = shards.get(places.get(name) ?? "");
      if (!shard) throw new DataError(index, `expected a tensor of this name, received ${places.size} others`, { field: name });
      return shard;
    };
    return { source: index, metadata, tensors, tensor: name => shardOf(name).tensor(name), place: name => shardOf(name).place(name), close };
  } catch (error) {
    close();
    throw error;
  }
}

/** name -> shard file. File names must stay in the folder: an index is data from elsewhere. */
function parseIndex(index: string, extension: string): ReadonlyMap<string, string> {
  const json = parseStrictJson(readFileSync(index), index) as { weight_map?: unknown } | null;
  const map = json?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) throw new DataError(index, "expected an object of file names", { field: "weight_map" });
  for (const [name, file] of Object.entries(map))
    if (typeof file !== "string" || file !== basename(file) || !file.endsWith(extension))
      throw new DataError(index, `expected the name of a ${extension} file in the same folder, received ${JSON.stringify(file)}`, {
        field: `weight_map.${name}`,
      });
  return new Map(Object.entries(map) as [string, string][]);
}

/** Index and shards must say the same: every listed tensor in its shard, no tensor unlisted. */
function joinShards(index: string, places: ReadonlyMap<string, string>, shards: ReadonlyMap<string, TensorFile>): ReadonlyMap<string, SafetensorsEntry> {
  const tensors = new Map<string, SafetensorsEntry>();
  for (const [name, file] of places) {
    const entry = shards.get(file)?.tensors.get(name);
    if (!entry) throw new DataError(index, `expected this tensor in ${file}, received a file without it`, { field: name });
    tensors.set(name, entry);
  }
  for (const [file, shard] of shards)
    for (const name of shard.tensors.keys())
      if (places.get(name) !== file)
        throw new DataError(
          index,
          `expected every tensor of ${file} to be listed there, received one that is ${places.has(name) ? `in ${places.get(name)}` : "not listed"}`,
          { field: name },
        );
  return tensors;
}
