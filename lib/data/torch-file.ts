/** Weights as torch.save writes them (.pt, .pth, .bin, .ckpt), behind the same interface as safetensors: names, dtypes and shapes are checked on opening, tensors are read on
 *  demand, no code in the file runs. Both formats are read: zip (torch 1.6 on) and the stream of pickles before it. Layouts: pytorch `torch/serialization.py`. */

import { randomBytes } from "node:crypto";
import { closeSync, fstatSync, openSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClosedError, DataError } from "../errors.js";
import type { HostDType, HostTensor } from "../util/host-tensor.js";
import { openForReading, readFully } from "../util/read-at.js";
import { unpickle } from "./pickle.js";
import type { PickleValue } from "./pickle-value.js";
import { hostDtypeOf, type TensorFile, type TensorPlace } from "./safetensors.js";
import type { SafetensorsEntry } from "./safetensors-header.js";
import { type Extent, readLegacy } from "./torch-legacy.js";
import { elementBytes, isContiguous, storageOfId, type TorchStorage, type TorchTensor, torchGlobals } from "./torch-pickle.js";
import { namedTensors } from "./torch-state-dict.js";
import { hostValues } from "./torch-values.js";
import { isZip, readZip, type ZipEntry } from "./zip.js";

/** A data.pkl of more bytes than this is no model. */
export const maxPickleBytes = 1 << 28;

/** Opens a file of torch.save and checks all that it says; data is read by `tensor(name)`. A checkpoint's `state_dict` is entered, other nesting joined with dots.
 *  Throws DataError naming file, offset, and the opcode, global or entry that it refuses. */
export function readTorchFile(path: string): TorchFile {
  return new TorchFile(path);
}

/** What an open file holds: the value of its pickle, and the bytes of each storage. */
interface Contents {
  readonly value: PickleValue;
  readonly storages: ReadonlyMap<string, Extent>;
  readonly bigEndian: boolean;
}

export class TorchFile implements TensorFile, Disposable {
  /** Empty: the format has none. */
  readonly metadata: ReadonlyMap<string, string> = new Map();
  /** `begin` and `end` span the first to the last element; a transposed or strided view has others between them. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  /** The whole value that was saved: step counts and settings stand beside the weights. */
  readonly value: PickleValue;
  readonly #views: ReadonlyMap<string, TorchTensor>;
  readonly #bigEndian: boolean;
  readonly #spilled = new Map<string, TensorPlace>();
  #fd: number | undefined;
  #spill: { readonly fd: number; bytes: number } | undefined;

  constructor(readonly source: string) {
    const fd = openForReading(source);
    try {
      const { value, storages, bigEndian } = readContents(fd, source);
      this.value = value;
      this.#bigEndian = bigEndian;
      this.#views = namedTensors(value, source);
      this.tensors = new Map([...this.#views].map(([name, view]) => [name, entryOf(view, storages, name, source)]));
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#fd = fd;
  }

  /** i8 and i16 are widened to i32, bool to u8. */
  tensor(name: string): HostTensor {
    const { fd, view, entry } = this.#open(name);
    const bytes = new Uint8Array(entry.end - entry.begin);
    readFully(fd, bytes, entry.begin, this.source);
    return hostValues(view, bytes, this.#bigEndian);
  }

  /** In the file itself where the tensor is dense there; else it is put in order in a temporary file, which goes with this one. */
  place(name: string): TensorPlace {
    const { fd, view, entry } = this.#open(name);
    const dtype = hostDtypeOf(entry.dtype);
    if (dtype && isContiguous(view) && !this.#bigEndian)
      return { path: this.source, fd, offset: entry.begin, bytes: entry.end - entry.begin, dtype, shape: entry.shape };
    const known = this.#spilled.get(name) ?? this.#spillOut(this.tensor(name));
    this.#spilled.set(name, known);
    return known;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    if (this.#spill) closeSync(this.#spill.fd);
    this.#fd = undefined;
    this.#spill = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #open(name: string): { fd: number; view: TorchTensor; entry: SafetensorsEntry } {
    if (this.#fd === undefined) throw new ClosedError(this.source);
    const [view, entry] = [this.#views.get(name), this.tensors.get(name)];
    if (!view || !entry) throw new DataError(this.source, `expected a tensor of this name, received a file of ${this.tensors.size} others`, { field: name });
    return { fd: this.#fd, view, entry };
  }

  #spillOut({ dtype, shape, data }: HostTensor): TensorPlace {
    this.#spill ??= { fd: openUnnamed(), bytes: 0 };
    const spill = this.#spill;
    const offset = spill.bytes;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at < bytes.length; ) at += writeSync(spill.fd, bytes, at, Math.min(1 << 30, bytes.length - at), offset + at);
    spill.bytes += Math.ceil(bytes.length / 64) * 64;
    return { path: this.source, fd: spill.fd, offset, bytes: bytes.length, dtype: dtype as HostDType, shape };
  }
}

/** A file without a name, gone when it is closed, however the process ends. */
function openUnnamed(): number {
  const path = join(tmpdir(), `attune-${process.pid}-${randomBytes(8).toString("hex")}`);
  const fd = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return fd;
}

function readContents(fd: number, source: string): Contents {
  const { size } = fstatSync(fd);
  const head = new Uint8Array(Math.min(size, 4));
  readFully(fd, head, 0, source);
  if (isZip(head)) return readArchive(fd, readZip(fd, size, source), source);
  if (head[0] !== 0x80) throw new DataError(source, "expected a file of torch.save, a zip archive or a pickle, received something else", { offset: 0 });
  return { ...readLegacy(fd, size, source), bigEndian: false };
}

/** `<name>/data.pkl` beside `<name>/data/<key>` and, from torch 2.1 on, `<name>/byteorder`. */
function readArchive(fd: number, entries: ReadonlyMap<string, ZipEntry>, source: string): Contents {
  const pickles = [...entries.keys()].filter(name => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) throw new DataError(source, `expected one <name>/data.pkl in the archive, received ${pickles.length}`);
  const prefix = pickles[0]!.slice(0, -"data.pkl".length);
  if (entries.has(`${prefix}constants.pkl`))
    throw new DataError(source, "expected tensors, received a TorchScript program", { field: `${prefix}constants.pkl` });
  const contents = (name: string, limit: number): { bytes: Uint8Array; offset: number } => {
    const { offset, bytes } = entries.get(prefix + name)!;
    if (bytes > limit) throw new DataError(source, `expected at most ${limit} bytes, received ${bytes}`, { field: prefix + name });
    const into = new Uint8Array(bytes);
    readFully(fd, into, offset, source);
    return { bytes: into, offset };
  };
  const order = entries.has(`${prefix}byteorder`) ? new TextDecoder().decode(contents("byteorder", 16).bytes) : "little";
  if (order !== "little" && order !== "big")
    throw new DataError(source, `expected "little" or "big", received ${JSON.stringify(order)}`, { field: `${prefix}byteorder` });
  const { bytes, offset } = contents("data.pkl", maxPickleBytes);
  const { value } = unpickle(bytes, { source, base: offset, globals: torchGlobals, persistent: storageOfId });
  const storages = new Map([...entries].flatMap(([name, entry]) => (name.startsWith(`${prefix}data/`) ? [[name.slice(prefix.length + 5), entry]] : [])));
  return { value, storages, bigEndian: order === "big" };
}

/** Where the view lies in the file, once its storage is known to be there whole. */
function entryOf(view: TorchTensor, storages: ReadonlyMap<string, Extent>, name: string, source: string): SafetensorsEntry {
  const { storage, shape, strides, offset } = view;
  const extent = storages.get(storage.key);
  if (!extent) throw new DataError(source, `expected the data of storage ${JSON.stringify(storage.key)} in the file, received none`, { field: name });
  const bytes = elementBytes(storage.dtype);
  if ((storage.start + storage.elements) * bytes > extent.bytes)
    throw new DataError(source, `expected ${storage.elements} elements of ${storage.dtype} in storage ${describe(storage)}, received ${extent.bytes} bytes`, {
      field: name,
    });
  const empty = shape.includes(0);
  const span = empty ? 0 : 1 + shape.reduce((sum, d, i) => sum + (d - 1) * strides[i]!, 0);
  const begin = extent.offset + (empty ? 0 : (storage.start + offset) * bytes);
  return { dtype: storage.dtype, shape, begin, end: begin + span * bytes };
}

function describe({ key, start }: TorchStorage): string {
  return `${JSON.stringify(key)}${start > 0 ? ` from element ${start} on` : ""}`;
}
