/** Positional reads of files that may be cut or replaced under the reader: all bytes, or an error that says where they end. */

import { openSync, read, readSync } from "node:fs";
import { promisify } from "node:util";
import { DataError } from "../errors.js";

/** One read call may not pass 2^31 - 1 bytes. */
const chunkBytes = 1 << 30;

/** A descriptor for reading. Throws DataError where the path cannot be opened. */
export function openForReading(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
}

/** Fills `into` from byte `position` on. Throws DataError if the file ends before. */
export function readFully(fd: number, into: Uint8Array, position: number, file: string): void {
  for (let at = 0; at < into.length; ) {
    const got = readSync(fd, into, at, Math.min(chunkBytes, into.length - at), position + at);
    if (got === 0) throw new DataError(file, `expected ${into.length} bytes, received ${at} before the file ended`, { offset: position + at });
    at += got;
  }
}

const readAsync = promisify(read);

/** The same without holding up the event loop. */
export async function readFullyAsync(fd: number, into: Uint8Array, position: number, file: string): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await readAsync(fd, into, at, Math.min(chunkBytes, into.length - at), position + at);
    if (bytesRead === 0) throw new DataError(file, `expected ${into.length} bytes, received ${at} before the file ended`, { offset: position + at });
    at += bytesRead;
  }
}
