/** torch.save before 1.6: five pickles (a magic number, the protocol, the machine, the value, the storages' keys), then each storage as its number of elements and its bytes,
 *  little-endian on every machine. How long the pickles are is known only when they have been read. */

import { DataError } from "../errors.js";
import { readFully } from "../util/read-at.js";
import { TruncatedPickle, unpickle } from "./pickle.js";
import { kindOf, type PickleValue } from "./pickle-value.js";
import { elementBytes, storageOfId, type TorchStorage, torchGlobals } from "./torch-pickle.js";

/** Bytes of the file. */
export interface Extent {
  readonly offset: number;
  readonly bytes: number;
}

const magic = 0x1950a86a20f9469cfc6cn;
const protocol = 1001;
const firstHeadBytes = 1 << 20;
const maxHeadBytes = 1 << 28;

export function readLegacy(fd: number, fileBytes: number, source: string): { value: PickleValue; storages: ReadonlyMap<string, Extent> } {
  for (let headBytes = Math.min(fileBytes, firstHeadBytes); ; headBytes = Math.min(fileBytes, headBytes * 4)) {
    const head = new Uint8Array(headBytes);
    readFully(fd, head, 0, source);
    try {
      const { value, keys, storages, end } = parseHead(head, source);
      return { value, storages: locate(fd, fileBytes, keys, storages, end, source) };
    } catch (error) {
      if (!(error instanceof TruncatedPickle) || headBytes === fileBytes || headBytes >= maxHeadBytes) throw error;
    }
  }
}

interface Head {
  readonly value: PickleValue;
  readonly keys: readonly string[];
  readonly storages: ReadonlyMap<string, TorchStorage>;
  readonly end: number;
}

function parseHead(head: Uint8Array, source: string): Head {
  const storages = new Map<string, TorchStorage>();
  const persistent = (id: PickleValue): TorchStorage => {
    const storage = storageOfId(id);
    const known = storages.get(storage.key);
    if (known && known.dtype !== storage.dtype)
      throw new DataError(source, `expected storage ${JSON.stringify(storage.key)} of ${known.dtype} again, received ${storage.dtype}`);
    storages.set(storage.key, storage);
    return storage;
  };
  let at = 0;
  const next = (options = {}): PickleValue => {
    const { value, end } = unpickle(head, { source, ...options }, at);
    at = end;
    return value;
  };
  const first = next();
  if (first !== magic) throw new DataError(source, `expected torch's magic number, received ${kindOf(first)}`, { offset: 0 });
  const version = next();
  if (version !== protocol) throw new DataError(source, `expected protocol ${protocol}, received ${kindOf(version)}`);
  next(); // of the machine that wrote it; integers and floats are little-endian whatever it says
  const value = next({ globals: torchGlobals, persistent });
  const keys = next();
  if (!Array.isArray(keys) || !keys.every(key => typeof key === "string") || new Set(keys).size !== keys.length)
    throw new DataError(source, `expected a list of distinct storage keys, received ${kindOf(keys)}`);
  return { value, keys: keys as string[], storages, end: at };
}

/** Walks the storages in the order of their keys: each begins with the number of its elements, which the pickle must have named too. */
function locate(
  fd: number,
  fileBytes: number,
  keys: readonly string[],
  storages: ReadonlyMap<string, TorchStorage>,
  from: number,
  source: string,
): ReadonlyMap<string, Extent> {
  const found = new Map<string, Extent>();
  const length = new DataView(new ArrayBuffer(8));
  let at = from;
  for (const key of keys) {
    const storage = storages.get(key);
    if (!storage) throw new DataError(source, "expected storages that a tensor uses, received another", { field: `storage ${JSON.stringify(key)}` });
    if (at + 8 > fileBytes) throw new DataError(source, "expected a number of elements, received the end of the file", { field: `storage ${key}`, offset: at });
    readFully(fd, new Uint8Array(length.buffer), at, source);
    const elements = Number(length.getBigInt64(0, true));
    const bytes = elements * elementBytes(storage.dtype);
    if (elements < 0 || bytes > fileBytes - at - 8)
      throw new DataError(source, `expected at most the ${fileBytes - at - 8} bytes that are left, received ${elements} elements of ${storage.dtype}`, {
        field: `storage ${key}`,
        offset: at,
      });
    found.set(key, { offset: at + 8, bytes });
    at += 8 + bytes;
  }
  return found;
}
