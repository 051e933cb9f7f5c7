/** Append-only metrics: one JSON object a line. A line is written whole, so a run that is killed leaves a file that can still be read. */

import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { ClosedError, DataError } from "../errors.js";

export type JsonRow = { readonly [name: string]: unknown };

/** An open metrics file; rows go behind those already in it. */
export class JsonLines implements Disposable {
  #file: number | undefined;

  constructor(readonly path: string) {
    mkdirSync(dirname(path), { recursive: true });
    this.#file = openSync(path, "a");
  }

  /** Numbers that JSON cannot hold are kept as the strings "NaN", "Infinity", "-Infinity": a diverged run must stay visible in its log. */
  append(row: JsonRow): void {
    const line = JSON.stringify(row, (_, value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value));
    writeSync(this.#handle, `${line}\n`);
  }

  /** Waits until everything appended is on disk. */
  sync(): void {
    fsyncSync(this.#handle);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  get #handle(): number {
    if (this.#file === undefined) throw new ClosedError(`metrics file ${this.path}`);
    return this.#file;
  }
}

/** The rows of a file. A last line that has no newline and is no whole object is a write that was cut off: it is left out.
 *  Throws DataError naming the row, or the file that cannot be read. */
export function readJsonLines(path: string): JsonRow[] {
  const lines = readText(path).split("\n");
  const last = lines.length - 1; // what follows the last newline
  return lines.flatMap((line, row) => {
    if (line.trim() === "") return [];
    const value = parsed(line);
    if (isRow(value)) return [value];
    if (row === last) return [];
    throw new DataError(path, "expected a JSON object", { row });
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
}

/** The value of a line, undefined where it is not JSON. */
function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function isRow(value: unknown): value is JsonRow {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
