/** Preference pairs as files: `pairs.jsonl` with one {"prompt", "chosen", "rejected"} a line and the PNG pictures in a folder beside it. */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { decodePng, encodePng, type Image, overWhite } from "../../lib/data/image.js";
import { DataError } from "../../lib/errors.js";
import { readJsonLines } from "../../lib/report/jsonl.js";

export interface PreferencePair {
  readonly prompt: string;
  readonly chosen: Image;
  readonly rejected: Image;
}

/** Writes `folder`/pairs.jsonl and `folder`/pictures, one file per distinct picture; returns the path of the jsonl file. */
export function writePairs({ folder, pairs }: { folder: string; pairs: readonly PreferencePair[] }): string {
  mkdirSync(join(folder, "pictures"), { recursive: true });
  const lines = pairs.map(({ prompt, chosen, rejected }) =>
    JSON.stringify({ prompt, chosen: writePicture(folder, chosen), rejected: writePicture(folder, rejected) }),
  );
  const file = join(folder, "pairs.jsonl");
  replaceFile(file, lines.map(line => `${line}\n`).join(""));
  return file;
}

/** Reads a pairs file; picture paths are relative to it. Every picture must be `side` x `side`. */
export function readPairs({ file, side }: { file: string; side: number }): PreferencePair[] {
  return readJsonLines(file).map((row, index) => {
    const text = (field: string) => {
      const value = row[field];
      if (typeof value !== "string") throw new DataError(file, `expected ${field} to be a string, received ${JSON.stringify(value)}`, { row: index, field });
      return value;
    };
    const picture = (field: string) => {
      const path = resolve(dirname(file), text(field));
      const image = overWhite(decodePng(readPicture(path, index), path));
      if (image.width !== side || image.height !== side)
        throw new DataError(path, `expected ${side} x ${side} pixels, received ${image.width} x ${image.height}`, { row: index, field });
      return image;
    };
    return { prompt: text("prompt"), chosen: picture("chosen"), rejected: picture("rejected") };
  });
}

function readPicture(path: string, row: number): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, { row }, { cause });
  }
}

/** Stores a picture under the hash of its content and returns its path relative to `folder`. */
function writePicture(folder: string, image: Image): string {
  const file = encodePng(image);
  const name = join("pictures", `${createHash("sha256").update(file).digest("hex").slice(0, 16)}.png`);
  replaceFile(join(folder, name), file);
  return name;
}

/** Under a temporary name first: a reader sees the old file or the new one, never half of it. */
function replaceFile(path: string, content: string | Uint8Array): void {
  writeFileSync(`${path}.tmp-${process.pid}`, content);
  renameSync(`${path}.tmp-${process.pid}`, path);
}
