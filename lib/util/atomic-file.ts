/** Files that are whole or absent: written beside their final name, synced, renamed, and the folder synced, so that neither a crash nor
 *  a power cut leaves half a file under the name that readers open. */

import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";

/** Creates or replaces the file at `path` with what `write` puts into the handle. If anything fails, an existing file is left as it was. */
export async function writeAtomically(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = `${path}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`;
  const file = await open(temporary, "wx");
  try {
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {}); // the first error is the one to report
    throw error;
  }
  await syncFolder(dirname(path));
}

/** A rename is durable only once its folder is. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes all of `bytes` at the handle's position: one write call may take less than it was given, and at most 2 GiB. */
export async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  const chunk = 1 << 30;
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, Math.min(chunk, bytes.length - at));
    at += bytesWritten;
  }
}
