/** The head of a safetensors file: 8 bytes little-endian length, then JSON that places every tensor in the data behind it.
 *  Everything is checked here, before a byte of data is read; what passes can be read without further checks.
 *  Format: huggingface/safetensors README and `safetensors/src/tensor.rs`. */

import { DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";

/** Bits of one element, by the format's names, in the order of the reference's enum. */
export const safetensorsBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type SafetensorsDType = keyof typeof safetensorsBits;

export interface SafetensorsEntry {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Position in the file, bytes. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
}

/** The reference implementation's limit: a length beyond it is damage or an attack, not a model. */
const maxHeaderBytes = 100_000_000;

/** Bytes of JSON that the first 8 bytes announce. Throws DataError if they cannot stand in a file of `fileBytes`. */
export function headerLength(first: Uint8Array, fileBytes: number, file: string): number {
  if (fileBytes < 8) throw new DataError(file, `expected at least 8 bytes of header length, received a file of ${fileBytes} bytes`, { field: "length" });
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes))
    throw new DataError(file, `expected a header of at most ${maxHeaderBytes} bytes, received ${length}`, { field: "length", offset: 0 });
  if (8 + Number(length) > fileBytes)
    throw new DataError(file, `expected a header of at most ${fileBytes - 8} bytes (the rest of the file), received ${length}`, { field: "length", offset: 0 });
  return Number(length);
}

/** Parses and checks the JSON of a file of `fileBytes` bytes: known dtypes, whole shapes, extents that fit them and tile the data without gap or overlap. */
export function parseHeader(json: Uint8Array, fileBytes: number, file: string): SafetensorsHeader {
  const value = parseStrictJson(json, file, "header");
  if (!isObject(value)) throw new DataError(file, "expected the header to be a JSON object, received something else", { field: "header" });
  const start = 8 + json.length;
  const tensors = new Map<string, SafetensorsEntry>();
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, entry] of Object.entries(value)) {
    if (name === "__metadata__") metadata = parseMetadata(entry, file);
    else tensors.set(name, parseEntry(name, entry, start, file));
  }
  checkTiling(tensors, start, fileBytes, file);
  return { metadata, tensors };
}

function parseMetadata(value: unknown, file: string): ReadonlyMap<string, string> {
  if (!isObject(value)) throw new DataError(file, `expected an object of strings, received ${brief(value)}`, { field: "__metadata__" });
  for (const [key, text] of Object.entries(value))
    if (typeof text !== "string") throw new DataError(file, `expected a string, received ${brief(text)}`, { field: `__metadata__.${key}` });
  return new Map(Object.entries(value) as [string, string][]);
}

function parseEntry(name: string, value: unknown, start: number, file: string): SafetensorsEntry {
  const fail = (field: string, expected: string, received: unknown): never => {
    throw new DataError(file, `expected ${expected}, received ${brief(received)}`, { field: field ? `${name}.${field}` : name });
  };
  if (!isObject(value)) return fail("", "an object with dtype, shape and data_offsets", value);
  const { dtype, shape, data_offsets: offsets, ...rest } = value;
  const extra = Object.keys(rest)[0];
  if (extra !== undefined) return fail(extra, "no field but dtype, shape and data_offsets", rest[extra]);
  if (typeof dtype !== "string" || !Object.hasOwn(safetensorsBits, dtype)) return fail("dtype", `one of ${Object.keys(safetensorsBits).join(", ")}`, dtype);
  if (!Array.isArray(shape) || !shape.every(isCount)) return fail("shape", "an array of whole numbers >= 0", shape);
  const [first, last] = Array.isArray(offsets) && offsets.length === 2 ? offsets : [];
  if (!isCount(first) || !isCount(last) || first > last) return fail("data_offsets", "[begin, end] with 0 <= begin <= end", offsets);
  const bits = shape.reduce((n, d) => n * d, safetensorsBits[dtype as SafetensorsDType]);
  if (!Number.isSafeInteger(bits) || bits % 8 !== 0) return fail("shape", "a size of whole bytes below 2^50", shape);
  if (last - first !== bits / 8) return fail("data_offsets", `an extent of ${bits / 8} bytes (${dtype} [${shape}])`, offsets);
  return { dtype: dtype as SafetensorsDType, shape, begin: start + first, end: start + last };
}

/** The data must be covered from its first byte to the end of the file, each byte by one tensor. */
function checkTiling(tensors: ReadonlyMap<string, SafetensorsEntry>, start: number, fileBytes: number, file: string): void {
  let at = start;
  for (const [name, { begin, end }] of [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at)
      throw new DataError(file, `expected data to begin at ${at - start}, received ${begin - start}: ${begin < at ? "an overlap" : "a hole"}`, {
        field: `${name}.data_offsets`,
        offset: begin,
      });
    at = end;
  }
  if (at !== fileBytes) throw new DataError(file, `expected a file of ${at} bytes by its header, received ${fileBytes}`, { field: "data_offsets", offset: at });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
