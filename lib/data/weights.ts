/** The weights of a model folder as diffusers and transformers save them: `<base>.safetensors`, a variant `<base>.fp16.safetensors`,
 *  or shards listed in `<base>.safetensors.index.json` (`<base>.safetensors.index.fp16.json`). One name -> tensor view of whichever it is. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";
import { readSafetensors, type TensorFile } from "./safetensors.js";
import type { SafetensorsEntry } from "./safetensors-header.js";

/** Opens the weights of a folder, e.g. ("sd15/unet", "diffusion_pytorch_model", "fp16"). Throws DataError if none of the layouts is there. */
export function readWeights(folder: string, baseName: string, variant?: string): TensorFile {
  const single = join(folder, `${baseName}.${variant ? `${variant}.` : ""}safetensors`);
  if (existsSync(single)) return readSafetensors(single);
  const index = join(folder, `${baseName}.safetensors.index.${variant ? `${variant}.` : ""}json`);
  if (existsSync(index)) return readShards(folder, index);
  const others = existsSync(folder) ? readdirSync(folder).filter(f => f.startsWith(`${baseName}.`)) : [];
  throw new DataError(folder, `expected ${basename(single)} or ${basename(index)}, received ${others.length > 0 ? others.join(", ") : "neither"}`);
}

function readShards(folder: string, index: string): TensorFile {
  const places = parseIndex(index);
  const shards = new Map<string, TensorFile>();
  const close = (): void => {
    for (const shard of shards.values()) shard.close();
  };
  try {
    for (const file of new Set(places.values())) shards.set(file, readSafetensors(join(folder, file)));
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
function parseIndex(index: string): ReadonlyMap<string, string> {
  const json = parseStrictJson(readFileSync(index), index) as { weight_map?: unknown } | null;
  const map = json?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) throw new DataError(index, "expected an object of file names", { field: "weight_map" });
  for (const [name, file] of Object.entries(map))
    if (typeof file !== "string" || file !== basename(file) || !file.endsWith(".safetensors"))
      throw new DataError(index, `expected the name of a .safetensors file in the same folder, received ${JSON.stringify(file)}`, {
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
