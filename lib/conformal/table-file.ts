/** A table from a CSV or JSONL file, or from rows in memory: named columns, and for each row the line it stood on, so that an error about a value can say where it is. */

import { readFile } from "node:fs/promises";
import { ConfigError, DataError } from "../errors.js";
import { parseStrictJson } from "../util/strict-json.js";
import { parseCsv } from "./table-csv.js";

/** Text of a CSV file, or a value of JSON. */
export type Cell = string | number | boolean | null;

export interface Table {
  /** The file. */
  readonly name: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  /** The line on which each row begins, from 1; of rows in memory, its number. */
  readonly lines: readonly number[];
}

/** By the ending of its name: .csv, .jsonl or .ndjson. */
export async function readTable(path: string): Promise<Table> {
  const ending = /\.([^.]*)$/.exec(path)?.[1]?.toLowerCase();
  if (ending !== "csv" && ending !== "jsonl" && ending !== "ndjson") throw new ConfigError("readTable", "the file", "a .csv, .jsonl or .ndjson file", path);
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new DataError(path, `expected a readable file, received ${(cause as NodeJS.ErrnoException).code}`, {}, { cause });
  }
  return ending === "csv" ? parseCsv(utf8(bytes, path), path) : parseJsonLines(utf8(bytes, path), path);
}

/** One object a line, all with the keys of the first, in any order; values are strings, numbers, true, false or null. Lines end in LF or CRLF; the last end may be missing. */
export function parseJsonLines(text: string, file: string): Table {
  const lines = (text.startsWith("\ufeff") ? text.slice(1) : text).split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  if (lines.length === 0) throw new DataError(file, "expected a JSON object on every line, received an empty file");
  const objects = lines.map((line, i) => parseStrictJson(new TextEncoder().encode(line), file, `line ${i + 1}`));
  return fromObjects(objects, file);
}

/** Rows in memory: objects as in a JSONL file. */
export function tableOf(rows: readonly Readonly<Record<string, unknown>>[], name = "rows"): Table {
  if (rows.length === 0) throw new DataError(name, "expected at least one row, received none");
  return fromObjects(rows, name);
}

function fromObjects(objects: readonly unknown[], file: string): Table {
  const columns: string[] = [];
  const rows = objects.map((value, i) => {
    const row = i + 1;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new DataError(file, "expected a JSON object", { row });
    const object = value as Record<string, unknown>;
    if (i === 0) columns.push(...Object.keys(object));
    const missing = columns.find(name => !Object.hasOwn(object, name)),
      extra = Object.keys(object).find(name => !columns.includes(name));
    if (missing !== undefined || extra !== undefined)
      throw new DataError(
        file,
        `expected the keys of row 1, ${missing !== undefined ? `received no ${JSON.stringify(missing)}` : `received ${JSON.stringify(extra)} too`}`,
        { row },
      );
    return columns.map(column => cellOf(object[column], file, row, column));
  });
  return { name: file, columns, rows, lines: rows.map((_, i) => i + 1) };
}

function cellOf(value: unknown, file: string, row: number, column: string): Cell {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  throw new DataError(file, `expected a string, a number, true, false or null, received ${Array.isArray(value) ? "a list" : typeof value}`, { row, column });
}

function utf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new DataError(file, "expected UTF-8 text", {}, { cause });
  }
}

/** Index of a column. */
export function columnIndex({ columns, name }: Table, column: string, subject: string, option: string): number {
  const at = columns.indexOf(column);
  if (at < 0) throw new ConfigError(subject, option, `a column of ${name} (${columns.join(", ")})`, column);
  return at;
}

/** null: empty text, or null. */
export function isEmpty(cell: Cell): boolean {
  return cell === null || (typeof cell === "string" && cell.trim() === "");
}

/** A cell as a finite number: of JSON, or decimal text. */
export function numberOf(table: Table, row: number, at: number): number {
  const cell = table.rows[row]![at]!;
  const value =
    typeof cell === "number" ? cell : typeof cell === "string" && /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(cell) ? Number(cell) : Number.NaN;
  if (!Number.isFinite(value))
    throw new DataError(table.name, `expected a finite number, received ${JSON.stringify(cell)}`, { row: table.lines[row]!, column: table.columns[at]! });
  return value;
}

const truth: Readonly<Record<string, 0 | 1>> = { "1": 1, true: 1, "0": 0, false: 0 };

/** A cell as a label: 1, 0, true or false, as values or as text. */
export function labelOf(table: Table, row: number, at: number): 0 | 1 {
  const cell = table.rows[row]![at]!,
    label = truth[String(cell).trim().toLowerCase()];
  if (label === undefined)
    throw new DataError(table.name, `expected a label 0, 1, true or false (or a number, and a cutoff), received ${JSON.stringify(cell)}`, {
      row: table.lines[row]!,
      column: table.columns[at]!,
    });
  return label;
}
