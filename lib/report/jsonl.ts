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

/** The rows of a file. A last line without its newline is a write that was cut off: it is left out. */
export function readJsonLines(path: string): JsonRow[] {
  const lines = readFileSync(path, "utf8").split("\n");
  lines.pop();
  return lines.filter(line => line.trim() !== "").map((line, row) => parse(line, path, row));
}

function parse(line: string, path: string, row: number): JsonRow {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new DataError(path, "not a JSON object", { row }, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new DataError(path, "not a JSON object", { row });
  return value as JsonRow;
}
