/** Between checkpoint files and a session's arenas: names, dtypes and axis order are settled here and nowhere else.
 *  Nothing is written before every name, shape and dtype has been checked; bytes are then moved on the session's thread, never on the event loop. */

import type { DeferredTensor, TensorFile } from "../data/safetensors.js";
import { DataError, WeightsError } from "../errors.js";
import type { Session } from "../graph/session.js";
import { sameShape } from "../graph/tensor.js";
import { refresh } from "../nn/init.js";
import type { ParameterEntry, ParameterStore } from "../nn/params.js";
import { convert, type HostDType, type HostTensor, outsideShape, toInside } from "../util/host-tensor.js";

export interface MatchOptions {
  /** The parameter that a stored name stands for, or undefined for a tensor that is no parameter (buffers such as position ids). The same name by default. */
  readonly parameterOf?: (stored: string) => string | undefined;
}

/** How a load can be stopped and watched. */
export interface LoadControl {
  /** Stops within a fraction of a tensor. */
  readonly signal?: AbortSignal | undefined;
  /** After each tensor: bytes of the file that are read, and that will be. */
  readonly onProgress?: ((bytesDone: number, bytesTotal: number) => void) | undefined;
}

/** Reads every parameter of the store from a file into the session, which already holds the store's arenas, its bf16 copy included. Aborted, or after an error of the file, it leaves
 *  some parameters read and others as they were.
 *  Throws WeightsError listing all that is missing, unexpected or mismatched; DataError if two stored names mean one parameter, or bytes cannot be read. */
export async function loadWeights(
  session: Session,
  store: ParameterStore,
  file: TensorFile,
  { parameterOf, signal, onProgress }: MatchOptions & LoadControl = {},
): Promise<void> {
  const matched = [...matchWeights(store, file, parameterOf ? { parameterOf } : {})].map(([entry, stored]) => ({ entry, place: file.place(stored) }));
  matched.sort((a, b) => (a.place.path === b.place.path ? a.place.offset - b.place.offset : a.place.path < b.place.path ? -1 : 1)); // as the disk has them
  const total = matched.reduce((sum, { place }) => sum + place.bytes, 0);
  let done = 0;
  for (const { entry, place } of matched) {
    // A matrix is turned as a kernel of one output and one column would be: [1, columns, rows, 1] -> [1, rows, 1, columns].
    const turned = place.transposed ? ({ place: { ...place, shape: [1, ...place.shape, 1] }, layout: "oihw" } as const) : { place, layout: entry.layout };
    await session.load(store.arena, entry.offset, turned.place, { dtype: entry.dtype, layout: turned.layout, signal });
    done += place.bytes;
    onProgress?.(done, total);
  }
  await refresh(session, store);
}

/** Every parameter with the stored tensor that it is read from. Touches no session: a model can be refused before memory is taken. */
export function matchWeights(store: ParameterStore, file: TensorFile, { parameterOf = name => name }: MatchOptions = {}): ReadonlyMap<ParameterEntry, string> {
  const found = new Map<ParameterEntry, string>();
  const unexpected: string[] = [];
  for (const stored of file.tensors.keys()) {
    const name = parameterOf(stored);
    if (name === undefined) continue;
    const entry = store.entries.get(name);
    if (!entry) unexpected.push(stored);
    else if (found.has(entry))
      throw new DataError(file.source, `expected one tensor for ${name}, received ${found.get(entry)} and ${stored}`, { field: stored });
    else found.set(entry, stored);
  }
  const missing = [...store.entries.values()].filter(e => !found.has(e)).map(e => e.name);
  const mismatched = [...found].flatMap(([entry, stored]) => mismatch(entry, stored, file));
  if (missing.length + unexpected.length + mismatched.length > 0) throw new WeightsError(file.source, missing, unexpected, mismatched);
  return found;
}

const floats: readonly string[] = ["F64", "F32", "BF16", "F16"];

function mismatch(entry: ParameterEntry, stored: string, file: TensorFile): { name: string; expected: string; received: string }[] {
  const { dtype, shape } = file.tensors.get(stored)!;
  const wanted = outsideShape(entry.shape, entry.layout);
  if (sameShape(shape, wanted) && floats.includes(dtype)) return [];
  return [{ name: stored, expected: `${floats.join("/")} [${wanted}]`, received: `${dtype} [${shape}]` }];
}

/** Writes one parameter, given in checkpoint order and any float dtype. Throws WeightsError if its shape is another. */
export function writeParameter(session: Session, store: ParameterStore, entry: ParameterEntry, value: HostTensor): void {
  const wanted = outsideShape(entry.shape, entry.layout);
  if (!sameShape(value.shape, wanted))
    throw new WeightsError(store.arena, [], [], [{ name: entry.name, expected: `[${wanted}]`, received: `[${value.shape}]` }]);
  session.write(store.arena, entry.offset, toInside(convert(value, entry.dtype), entry.layout).data);
}

/** Reads one parameter back, in checkpoint order and a float dtype, by default the one that it is kept in. */
export function readParameter(session: Session, store: ParameterStore, entry: ParameterEntry, dtype: HostDType = entry.dtype): Promise<HostTensor> {
  return session.readTensor(store.arena, entry.offset, { dtype: entry.dtype, shape: entry.shape, layout: entry.layout }, dtype);
}

/** The parameters of a store as writeSafetensors takes them, each read when it is written. `dtype` is that of the file, by default what each is kept in. */
export function storedWeights(session: Session, store: ParameterStore, dtype?: HostDType): Map<string, DeferredTensor> {
  const deferred = (entry: ParameterEntry): DeferredTensor => ({
    dtype: dtype ?? entry.dtype,
    shape: outsideShape(entry.shape, entry.layout),
    read: () => readParameter(session, store, entry, dtype),
  });
  return new Map([...store.entries.values()].map(entry => [entry.name, deferred(entry)]));
}
