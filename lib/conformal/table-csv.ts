/** Comma-separated values, strictly as RFC 4180 has them: a header, fields that may be quoted ("" is a quote within), lines that end in LF, CRLF or CR, all in UTF-8
 *  with or without a byte order mark. Whatever does not fit is refused with its line: a table that was misread would be certified all the same. */

import { DataError } from "../errors.js";
import type { Table } from "./table-file.js";

/** Text of every cell. Throws DataError naming file and line: rows of another length than the header, a quote inside a bare field, text after a closing quote, a quote that
 *  is never closed, equal or empty column names, no header. */
export function parseCsv(text: string, file: string): Table {
  const records = [...csvRecords(text.startsWith("\ufeff") ? text.slice(1) : text, file)];
  const [header, ...rest] = records;
  if (!header) throw new DataError(file, "expected a line of column names, received an empty file");
  const columns = header.cells;
  for (const [c, name] of columns.entries()) {
    if (name.trim() === "") throw new DataError(file, `line ${header.line}: expected a name for column ${c + 1}, received none`);
    if (columns.indexOf(name) !== c) throw new DataError(file, `line ${header.line}: expected distinct column names, received ${JSON.stringify(name)} twice`);
  }
  for (const { line, cells } of rest) {
    if (cells.length !== columns.length)
      throw new DataError(file, `line ${line}: expected ${columns.length} fields as in the header, received ${cells.length}`, { row: line });
  }
  return { name: file, columns, rows: rest.map(r => r.cells), lines: rest.map(r => r.line) };
}

interface CsvRecord {
  /** Where it begins, from 1. */
  readonly line: number;
  readonly cells: string[];
}

/** Separator, or end of a line. */
const breaks = /[,\r\n"]/g;

function* csvRecords(text: string, file: string): Generator<CsvRecord> {
  let at = 0,
    line = 1;
  while (at < text.length) {
    const begun = line,
      cells: string[] = [];
    for (let more = true; more; ) {
      const field = text[at] === '"' ? quotedField(text, at, file, line) : bareField(text, at, file, line);
      cells.push(field.value);
      line += field.lines;
      at = field.end;
      more = text[at] === ",";
      if (more) at++;
    }
    if (at < text.length) {
      at += text.startsWith("\r\n", at) ? 2 : 1;
      line++;
    }
    yield { line: begun, cells };
  }
}

interface Field {
  readonly value: string;
  /** Index behind it. */
  readonly end: number;
  /** Line ends within. */
  readonly lines: number;
}

function bareField(text: string, start: number, file: string, line: number): Field {
  breaks.lastIndex = start;
  const end = breaks.exec(text)?.index ?? text.length;
  if (text[end] === '"') throw new DataError(file, `line ${line}: expected a field with a quote in it to be quoted as a whole`, { row: line });
  return { value: text.slice(start, end), end, lines: 0 };
}

function quotedField(text: string, start: number, file: string, line: number): Field {
  const parts: string[] = [];
  for (let at = start + 1; ; ) {
    const quote = text.indexOf('"', at);
    if (quote < 0) throw new DataError(file, `line ${line}: expected a closing quote, received the end of the file`, { row: line });
    parts.push(text.slice(at, quote));
    at = quote + 2;
    if (text[quote + 1] === '"') {
      parts.push('"');
      continue;
    }
    const end = quote + 1,
      next = text[end];
    if (next !== undefined && next !== "," && next !== "\r" && next !== "\n")
      throw new DataError(file, `line ${line}: expected a comma or a line end after a closing quote, received ${JSON.stringify(next)}`, { row: line });
    const value = parts.join("");
    return { value, end, lines: value.match(/\r\n|\r|\n/g)?.length ?? 0 };
  }
}
