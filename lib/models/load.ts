/** Between checkpoint files and a session's arenas: names, dtypes and axis order are settled here and nowhere else.
 *  Nothing is written before every name, shape and dtype has been checked. */

import type { DeferredTensor, TensorFile } from "../data/safetensors.js";
import { DataError, WeightsError } from "../errors.js";
import type { Session } from "../graph/session.js";
import { byteSize, sameShape } from "../graph/tensor.js";
import type { ParameterEntry, ParameterStore } from "../nn/params.js";
import { convert, type HostDType, type HostTensor, hostTensorFromBytes, outsideShape, toInside, toOutside } from "../util/host-tensor.js";

export interface LoadOptions {
  /** The parameter that a stored name stands for, or undefined for a tensor that is no parameter (buffers such as position ids). The same name by default. */
  readonly parameterOf?: (stored: string) => string | undefined;
}

/** Reads every parameter of the store from a file into the session, which already holds the store's arena.
 *  Throws WeightsError listing all that is missing, unexpected or mismatched; DataError if two stored names mean one parameter. */
export function loadWeights(session: Session, store: ParameterStore, file: TensorFile, options: LoadOptions = {}): void {
  for (const [entry, stored] of matchWeights(store, file, options)) writeParameter(session, store, entry, file.tensor(stored));
}

/** Every parameter with the stored tensor that it is read from. Touches no session: a model can be refused before memory is taken. */
export function matchWeights(store: ParameterStore, file: TensorFile, { parameterOf = name => name }: LoadOptions = {}): ReadonlyMap<ParameterEntry, string> {
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
  session.write(store.arena, entry.offset, toInside(convert(value, store.dtype), entry.layout).data);
}

/** Reads one parameter back, in checkpoint order and the store's dtype. */
export async function readParameter(session: Session, store: ParameterStore, entry: ParameterEntry): Promise<HostTensor> {
  const bytes = await session.read(store.arena, entry.offset, byteSize({ dtype: store.dtype, shape: entry.shape }));
  return toOutside(hostTensorFromBytes(store.dtype, entry.shape, bytes), entry.layout);
}

/** The parameters of a store as writeSafetensors takes them, each read when it is written. `dtype` is that of the file, the store's by default. */
export function storedWeights(session: Session, store: ParameterStore, dtype: HostDType = store.dtype): Map<string, DeferredTensor> {
  const deferred = (entry: ParameterEntry): DeferredTensor => ({
    dtype,
    shape: outsideShape(entry.shape, entry.layout),
    read: async () => convert(await readParameter(session, store, entry), dtype),
  });
  return new Map([...store.entries.values()].map(entry => [entry.name, deferred(entry)]));
}
