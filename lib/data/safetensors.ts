/** Safetensors files: checked on opening, tensors read on demand, written whole or not at all.
 *  Reading is positional, not mapped: Node has no mmap, one from the addon would bring it into a room that must work without it, and every tensor is
 *  copied once anyhow (dtype, layout, device). A positional read goes from the page cache straight into the tensor's own memory, so the cost is that
 *  one copy, a file truncated under the reader is an error and not a SIGBUS, and WSL or network folders behave. Weights of models are too much to be read on
 *  this thread: `place(name)` says where a tensor lies, and Session.load reads it there. */

import { closeSync, fstatSync } from "node:fs";
import { ClosedError, DataError } from "../errors.js";
import { writeAtomically, writeFully } from "../util/atomic-file.js";
import { type HostDType, type HostTensor, hostTensor } from "../util/host-tensor.js";
import { openForReading, readFully } from "../util/read-at.js";
import { headerLength, parseHeader, type SafetensorsDType, type SafetensorsEntry, type SafetensorsHeader, safetensorsBits } from "./safetensors-header.js";

/** Tensors by name, wherever they lie: one file, or the shards of a folder (weights.ts). */
export interface TensorFile {
  /** The path that errors name. */
  readonly source: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  /** Reads one tensor. Throws DataError if there is none of that name, or its dtype has no host form (BOOL, F8_*, ...). */
  tensor(name: string): HostTensor;
  /** Where one tensor lies, as long as the file is open. Throws like `tensor`. */
  place(name: string): TensorPlace;
  close(): void;
}

/** A tensor in an open file: dense, row-major, little-endian. */
export interface TensorPlace {
  readonly path: string;
  /** What is read is this descriptor, whose header was checked; the path may name another file by then. */
  readonly fd: number;
  /** First byte. */
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: HostDType;
  readonly shape: readonly number[];
  /** The two axes lie the other way round: `shape` is [columns, rows] of the tensor that is meant. */
  readonly transposed?: boolean;
}

/** Format's dtype of each host dtype that a file can hold. */
const stored: { readonly [K in HostDType]: SafetensorsDType } = { f64: "F64", f32: "F32", bf16: "BF16", f16: "F16", i64: "I64", i32: "I32", u8: "U8" };
const order = Object.keys(safetensorsBits);
const hosted = new Map(Object.entries(stored).map(([host, file]) => [file, host as HostDType]));

/** The host's name of a file's dtype, if it has one. */
export function hostDtypeOf(dtype: SafetensorsDType): HostDType | undefined {
  return hosted.get(dtype);
}

/** Opens a file and checks its header whole; data is read by `tensor(name)`. Throws DataError naming file, field, expected and received. */
export function readSafetensors(path: string): SafetensorsFile {
  return new SafetensorsFile(path);
}

export class SafetensorsFile implements TensorFile, Disposable {
  readonly #header: SafetensorsHeader;
  #fd: number | undefined;

  constructor(readonly source: string) {
    const fd = openForReading(source);
    try {
      const { size } = fstatSync(fd);
      const first = new Uint8Array(8);
      if (size >= 8) readFully(fd, first, 0, source);
      const json = new Uint8Array(headerLength(first, size, source));
      readFully(fd, json, 8, source);
      this.#header = parseHeader(json, size, source);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#fd = fd;
  }

  get metadata(): ReadonlyMap<string, string> {
    return this.#header.metadata;
  }

  get tensors(): ReadonlyMap<string, SafetensorsEntry> {
    return this.#header.tensors;
  }

  tensor(name: string): HostTensor {
    const { fd, offset, dtype, shape } = this.place(name);
    const host = hostTensor(dtype, shape);
    readFully(fd, bytesOf(host), offset, this.source);
    return host;
  }

  place(name: string): TensorPlace {
    if (this.#fd === undefined) throw new ClosedError(this.source);
    const entry = this.tensors.get(name);
    if (!entry) throw new DataError(this.source, `expected a tensor of this name, received a file of ${this.tensors.size} others`, { field: name });
    const dtype = hosted.get(entry.dtype);
    if (!dtype) throw new DataError(this.source, `expected one of ${[...hosted.keys()].join(", ")}, received ${entry.dtype}`, { field: `${name}.dtype` });
    return { path: this.source, fd: this.#fd, offset: entry.begin, bytes: entry.end - entry.begin, dtype, shape: entry.shape };
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A tensor that is read when its turn to be written comes, so that a model need not lie in host memory whole. */
export interface DeferredTensor {
  readonly dtype: HostDType;
  readonly shape: readonly number[];
  read(): Promise<HostTensor>;
}

/** Writes a file atomically. Tensors stand widest dtype first, then by name, exactly as the reference writer has them: every one is then aligned to
 *  its element, because the header is padded so that the data begins at a multiple of 8 bytes. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, HostTensor | DeferredTensor> | Readonly<Record<string, HostTensor | DeferredTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const entries = (tensors instanceof Map ? [...tensors] : Object.entries(tensors)) as [string, HostTensor | DeferredTensor][];
  const rank = (t: { dtype: HostDType }): number => order.indexOf(stored[t.dtype]);
  entries.sort(([a, s], [b, t]) => rank(t) - rank(s) || (a < b ? -1 : 1));
  const header = formatHeader(entries, metadata, path);
  await writeAtomically(path, async file => {
    await writeFully(file, header);
    for (const [name, tensor] of entries) {
      const bytes = bytesOf("read" in tensor ? await tensor.read() : tensor);
      if (bytes.length !== tensorBytes(tensor))
        throw new DataError(path, `expected ${tensorBytes(tensor)} bytes for ${tensor.dtype} [${tensor.shape}], received ${bytes.length}`, { field: name });
      await writeFully(file, bytes);
    }
  });
}

function formatHeader(entries: readonly [string, HostTensor | DeferredTensor][], metadata: Readonly<Record<string, string>>, path: string): Uint8Array {
  const json: Record<string, unknown> = Object.create(null); // a tensor may be called "__proto__"
  if (Object.keys(metadata).length > 0) json.__metadata__ = metadata;
  let at = 0;
  for (const [name, tensor] of entries) {
    if (name === "__metadata__") throw new DataError(path, 'expected another name, received "__metadata__", which the format reserves', { field: name });
    const end = at + tensorBytes(tensor);
    json[name] = { dtype: stored[tensor.dtype], shape: tensor.shape, data_offsets: [at, end] };
    at = end;
  }
  const text = new TextEncoder().encode(JSON.stringify(json));
  const length = Math.ceil(text.length / 8) * 8;
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, 8);
  return header;
}

function tensorBytes({ dtype, shape }: { dtype: HostDType; shape: readonly number[] }): number {
  return (shape.reduce((n, d) => n * d, 1) * safetensorsBits[stored[dtype]]) / 8;
}

function bytesOf({ data }: HostTensor): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
