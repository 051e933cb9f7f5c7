/** What a file or folder holds, from headers and configs alone. */

import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { TensorFile } from "../../data/safetensors.js";
import { readTensors, readWeights } from "../../data/weights.js";
import { DataError } from "../../errors.js";
import { readModelIndex } from "../../pipeline/model-index.js";
import { formatBytes } from "../../util/bytes.js";
import { defineCommand, type Io } from "../command.js";

interface WeightsReport {
  readonly path: string;
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: Readonly<Record<string, number>>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Groups of names with one beginning, with how many tensors each has. */
  readonly groups: Readonly<Record<string, number>>;
}

export const inspect = defineCommand({
  name: "inspect",
  summary: "says what a weights file, a model folder or a pipeline folder holds",
  positional: "path",
  async run({ path }, io) {
    if (!existsSync(path)) throw new DataError(path, "expected a file or folder, received nothing");
    if (!statSync(path).isDirectory()) return report(io, path, readTensors(path));
    if (existsSync(join(path, "model_index.json"))) {
      const { className, family, parts, unused } = readModelIndex(path);
      io.result({ path, className, family, parts: [...parts], unused }, `${path}: ${className}${unused.length > 0 ? `, ${unused.join(", ")} not used` : ""}`);
      for (const part of parts) if (hasWeights(join(path, part))) report(io, join(path, part), folderWeights(join(path, part)));
      return;
    }
    report(io, path, folderWeights(path));
  },
});

const baseNames = ["diffusion_pytorch_model", "model", "pytorch_lora_weights", "adapter_model"] as const;

function hasWeights(folder: string): boolean {
  return readdirSync(folder).some(file => /\.(safetensors|bin)$/.test(file));
}

/** The weights of a folder, whatever library named them, and whichever variant there is. */
function folderWeights(folder: string): TensorFile {
  const files = readdirSync(folder);
  for (const base of baseNames) {
    const own = files.filter(file => file.startsWith(base));
    if (own.length === 0) continue;
    const variant = own.some(file => file === `${base}.safetensors` || /\.index\.json$/.test(file) || file.endsWith(".bin"))
      ? undefined
      : own[0]!.split(".")[1];
    return readWeights(folder, base, variant);
  }
  throw new DataError(folder, `expected weights named ${baseNames.join(", ")}, received ${files.join(", ") || "an empty folder"}`);
}

function report(io: Io, path: string, file: TensorFile): void {
  try {
    const found = weightsReport(path, file);
    const list = (counts: Readonly<Record<string, number>>): string =>
      Object.entries(counts)
        .map(([name, n]) => `${name} ${n}`)
        .join(", ");
    io.result(
      found,
      [
        `${path}: ${found.tensors} tensors, ${found.parameters.toLocaleString("en")} parameters, ${formatBytes(found.bytes)}`,
        `  dtypes    ${list(found.dtypes)}`,
        `  names     ${list(found.groups)}`,
        ...Object.entries(found.metadata).map(([key, value]) => `  ${key}: ${value.length > 100 ? `${value.slice(0, 100)}...` : value}`),
      ].join("\n"),
    );
  } finally {
    file.close();
  }
}

function weightsReport(path: string, { tensors, metadata }: TensorFile): WeightsReport {
  const dtypes: Record<string, number> = {},
    groups: Record<string, number> = {};
  let parameters = 0,
    bytes = 0;
  for (const [name, { dtype, shape, begin, end }] of tensors) {
    dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
    const group = name.split(".").slice(0, 2).join(".");
    groups[group] = (groups[group] ?? 0) + 1;
    parameters += shape.reduce((n, d) => n * d, 1);
    bytes += end - begin;
  }
  return { path, tensors: tensors.size, parameters, bytes, dtypes, metadata: Object.fromEntries(metadata), groups };
}
