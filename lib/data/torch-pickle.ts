/** What of torch stands in its pickles: storages by persistent id, and tensors as views of them. Everything is checked here but that a storage's bytes are in the file. */

import { kindOf, PickleGlobal, PickleMismatch, PickleObject, PickleTuple, type PickleValue } from "./pickle-value.js";
import { type SafetensorsDType, safetensorsBits } from "./safetensors-header.js";

/** The elements of a storage, of which tensors are views. */
export class TorchStorage extends PickleObject {
  constructor(
    readonly key: string,
    readonly dtype: SafetensorsDType,
    readonly elements: number,
    /** First element in the root storage: legacy files have storages that are parts of others. */
    readonly start: number,
  ) {
    super();
  }
}

/** Element [i, j, ..] is element offset + i * strides[0] + j * strides[1] + .. of the storage. */
export class TorchTensor extends PickleObject {
  constructor(
    readonly storage: TorchStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {
    super();
  }
}

const storages: Readonly<Record<string, SafetensorsDType>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** An expanded view (stride 0) may be larger than its storage, up to this many elements: a few bytes of file must not become a terabyte. */
const maxExpanded = 1 << 24;

/** Every name that a torch file may mention. Training frameworks leave names of their own beside the weights; those listed here without a function are inert. */
export const torchGlobals: ReadonlyMap<string, PickleGlobal> = new Map(
  [
    ...Object.keys(storages).map(name => new PickleGlobal(`torch.${name}`)),
    new PickleGlobal("collections.OrderedDict", orderedDict),
    new PickleGlobal("torch.Size", ([size]) => (size instanceof PickleTuple ? size : mismatch("a tuple", size))),
    new PickleGlobal("torch._utils._rebuild_tensor", args => rebuildTensor(args)),
    new PickleGlobal("torch._utils._rebuild_tensor_v2", args => rebuildTensor(args)),
    new PickleGlobal("torch._utils._rebuild_parameter", ([tensor]) => (tensor instanceof TorchTensor ? tensor : mismatch("a tensor", tensor))),
    // The checkpoints that Stable Diffusion 1.x was published as have this class as the key of a dict.
    new PickleGlobal("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
  ].map(global => [global.name, global]),
);

function mismatch(expected: string, received: PickleValue | undefined): never {
  throw new PickleMismatch(`expected ${expected}, received ${kindOf(received)}`);
}

/** OrderedDict() or OrderedDict([[key, value], ..]). */
function orderedDict([pairs, ...rest]: readonly PickleValue[]): PickleValue {
  if (rest.length > 0) return mismatch("at most one argument", `${rest.length + 1} arguments`);
  const dict = new Map<PickleValue, PickleValue>();
  if (pairs === undefined) return dict;
  if (!Array.isArray(pairs)) return mismatch("a list of pairs", pairs);
  for (const pair of pairs) {
    const items = pair instanceof PickleTuple ? pair.items : Array.isArray(pair) ? pair : [];
    if (items.length !== 2 || typeof items[0] !== "string") return mismatch("a pair of a string and a value", pair);
    dict.set(items[0], items[1]!);
  }
  return dict;
}

/** ("storage", type, key, location, elements), in legacy files with one more: None, or (key, first element, elements) of a part. */
export function storageOfId(id: PickleValue): TorchStorage {
  if (!(id instanceof PickleTuple) || id.items.length < 5 || id.items.length > 6) return mismatch("a storage's id of 5 or 6 values", id);
  const [tag, type, key, , elements, part = null] = id.items;
  if (tag !== "storage") return mismatch('"storage"', tag);
  const dtype = type instanceof PickleGlobal && type.name.startsWith("torch.") ? storages[type.name.slice("torch.".length)] : undefined;
  if (!dtype) return mismatch("a storage type", type);
  if (typeof key !== "string" || !/^\w{1,64}$/.test(key)) return mismatch("a storage key of letters and digits", key);
  const size = count(elements, "a number of elements");
  if (part === null) return new TorchStorage(key, dtype, size, 0);
  if (!(part instanceof PickleTuple) || part.items.length !== 3) return mismatch("a part (key, first element, elements)", part);
  const [start, length] = [count(part.items[1], "a first element"), count(part.items[2], "a number of elements")];
  if (start + length > size) return mismatch(`a part within ${size} elements`, `${start} + ${length}`);
  return new TorchStorage(key, dtype, length, start);
}

/** (storage, first element, shape, strides, requires_grad, hooks, flags). Gradients and hooks change no value; flags do: a lazy negation or conjugate. */
function rebuildTensor([storage, first, size, stride, , , flags = null]: readonly PickleValue[]): TorchTensor {
  if (!(storage instanceof TorchStorage)) return mismatch("a storage", storage);
  if (flags !== null && !(flags instanceof Map && flags.size === 0)) return mismatch("a tensor that is stored as it is", flags);
  const offset = count(first, "a first element");
  const [shape, strides] = [counts(size, "a shape"), counts(stride, "strides")];
  if (shape.length !== strides.length || shape.length > 64) return mismatch(`strides for each of ${shape.length} axes`, stride);
  const elements = shape.reduce((n, d) => n * d, 1);
  if (!Number.isSafeInteger(elements * 64)) return mismatch("a shape of fewer than 2^47 elements", `[${shape}]`);
  const last = offset + shape.reduce((sum, d, i) => sum + (d - 1) * strides[i]!, 0);
  if (elements > 0 && last >= storage.elements) return mismatch(`a view within ${storage.elements} elements`, `one of [${shape}] that reaches element ${last}`);
  if (elements > Math.max(storage.elements, maxExpanded)) return mismatch(`at most ${maxExpanded} elements of a storage of ${storage.elements}`, `[${shape}]`);
  return new TorchTensor(storage, offset, shape, strides);
}

function count(value: PickleValue | undefined, what: string): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : mismatch(`${what}, whole and >= 0`, value);
}

function counts(value: PickleValue | undefined, what: string): readonly number[] {
  return value instanceof PickleTuple ? value.items.map(item => count(item, `${what} of numbers`)) : mismatch(`${what} as a tuple`, value);
}

export function elementBytes(dtype: SafetensorsDType): number {
  return safetensorsBits[dtype] / 8;
}

/** Whether the elements stand one after another in row-major order. Axes of length 1 may have any stride. */
export function isContiguous({ shape, strides }: TorchTensor): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return shape.includes(0);
    expected *= shape[axis]!;
  }
  return true;
}
