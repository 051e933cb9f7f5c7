/** How tensors of a diffusers folder and of a single-file checkpoint correspond: lists of rules, read in either direction. A rule moves no numbers but where the two
 *  layouts differ: fused projections, a transposed matrix, 1 x 1 convolutions that became linear layers. Tensors are read when their turn to be written comes. */

import type { DeferredTensor, TensorFile, TensorPlace } from "../../data/safetensors.js";
import { DataError } from "../../errors.js";
import { type HostTensor, hostDtypeBytes, hostTensorFromBytes } from "../../util/host-tensor.js";
import { readFullyAsync } from "../../util/read-at.js";

export interface TensorRule {
  /** Names in the folder: one, or the parts that `stacked` joins along the first axis. */
  readonly folder: readonly string[];
  /** Name in the file, behind the part's prefix. */
  readonly file: string;
  /** conv1x1: [O, I] in the folder, [O, I, 1, 1] in the file. transposed: the file has the matrix the other way round. */
  readonly how: "same" | "stacked" | "transposed" | "conv1x1";
  /** May be absent from both. */
  readonly optional: boolean;
}

/** Weight and bias of a module. */
export function moduleRules(folder: string, file: string, { optional = false, bias = true }: { optional?: boolean; bias?: boolean } = {}): TensorRule[] {
  return (bias ? ["weight", "bias"] : ["weight"]).map(leaf => sameRule(`${folder}.${leaf}`, `${file}.${leaf}`, optional));
}

export function sameRule(folder: string, file: string, optional = false): TensorRule {
  return { folder: [folder], file, how: "same", optional };
}

export interface Converted {
  readonly tensors: Map<string, DeferredTensor>;
  /** Names that were read. */
  readonly used: ReadonlySet<string>;
  /** Names that had to be there and are not. */
  readonly missing: readonly string[];
}

/** Names in an opened file by the names that rules have for them. */
export type Located = ReadonlyMap<string, string>;

/** The tensors of one part as a folder has them. `located` has file names without prefix. */
export function toFolder(source: TensorFile, located: Located, rules: readonly TensorRule[]): Converted {
  return convertAll(
    rules,
    located,
    rule => [rule.file],
    (rule, [stored]) => {
      const place = source.place(stored!);
      return rule.folder.map((name, i) => [name, rule.how === "stacked" ? slice(place, i, rule.folder.length) : turned(place, rule.how, "folder")]);
    },
  );
}

/** The tensors of one part as a file has them, without prefix. */
export function toFile(source: TensorFile, located: Located, rules: readonly TensorRule[]): Converted {
  return convertAll(
    rules,
    located,
    rule => rule.folder,
    (rule, stored) => {
      const places = stored.map(name => source.place(name));
      return [[rule.file, rule.how === "stacked" ? joined(places) : turned(places[0]!, rule.how, "file")]];
    },
  );
}

function convertAll(
  rules: readonly TensorRule[],
  located: Located,
  inputs: (rule: TensorRule) => readonly string[],
  convert: (rule: TensorRule, stored: readonly string[]) => readonly (readonly [string, DeferredTensor])[],
): Converted {
  const tensors = new Map<string, DeferredTensor>();
  const used = new Set<string>();
  const missing: string[] = [];
  for (const rule of rules) {
    const names = inputs(rule);
    const absent = names.filter(name => !located.has(name));
    if (absent.length > 0) {
      if (!rule.optional || absent.length < names.length) missing.push(...absent);
      continue;
    }
    const stored = names.map(name => located.get(name)!);
    for (const name of stored) used.add(name);
    for (const [name, tensor] of convert(rule, stored)) tensors.set(name, tensor);
  }
  return { tensors, used, missing };
}

/** The bytes of a place, read off the event loop. */
async function read({ fd, path, offset, bytes, dtype, shape }: TensorPlace): Promise<HostTensor> {
  const into = new Uint8Array(bytes);
  await readFullyAsync(fd, into, offset, path);
  return hostTensorFromBytes(dtype, shape, into.buffer);
}

function reshaped(place: TensorPlace, shape: readonly number[]): DeferredTensor {
  return { dtype: place.dtype, shape, read: () => read({ ...place, shape }) };
}

function turned(place: TensorPlace, how: TensorRule["how"], towards: "folder" | "file"): DeferredTensor {
  const { dtype, shape } = place;
  if (how === "transposed" && shape.length === 2) return { dtype, shape: shape.toReversed(), read: async () => transposed(await read(place)) };
  const [rows, columns, height, width] = shape;
  if (how === "conv1x1" && towards === "folder" && shape.length === 4 && height === 1 && width === 1) return reshaped(place, [rows!, columns!]);
  if (how === "conv1x1" && towards === "file" && shape.length === 2) return reshaped(place, [rows!, columns!, 1, 1]);
  return reshaped(place, shape);
}

/** Rows `index` of `count` equal parts. */
function slice(place: TensorPlace, index: number, count: number): DeferredTensor {
  const [rows = 0, ...rest] = place.shape;
  if (rows % count !== 0) throw new DataError(place.path, `expected rows in ${count} equal parts, received [${place.shape}]`, { offset: place.offset });
  const bytes = place.bytes / count;
  return reshaped({ ...place, offset: place.offset + index * bytes, bytes }, [rows / count, ...rest]);
}

function joined(places: readonly TensorPlace[]): DeferredTensor {
  const [{ dtype, shape }] = places as [TensorPlace];
  const rows = places.reduce((sum, place) => sum + (place.shape[0] ?? 0), 0);
  const whole = [rows, ...shape.slice(1)];
  const join = async (): Promise<HostTensor> => {
    const bytes = new Uint8Array(whole.reduce((n, d) => n * d, hostDtypeBytes[dtype]));
    let at = 0;
    for (const { fd, path, offset, bytes: length } of places) {
      await readFullyAsync(fd, bytes.subarray(at, at + length), offset, path);
      at += length;
    }
    return hostTensorFromBytes(dtype, whole, bytes.buffer);
  };
  return { dtype, shape: whole, read: join };
}

function transposed({ dtype, shape, data }: HostTensor): HostTensor {
  const [rows, columns] = shape as [number, number];
  const from = data as Float32Array;
  const to = from.slice();
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c]!;
  return { dtype, shape: [columns, rows], data: to };
}
