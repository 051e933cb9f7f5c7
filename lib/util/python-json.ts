/** JSON as Python writes it: `json.dumps` gives infinities and NaN names that JSON does not have, and diffusers' scheduler configs hold them. */

import { parseStrictJson } from "./strict-json.js";

/** The value of a text that is JSON but for Infinity, -Infinity and NaN. NaN becomes null.
 *  @throws DataError as parseStrictJson. */
export function parsePythonJson(bytes: Uint8Array, file: string): unknown {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1"); // bytes stay bytes
  const strict = text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/gs, token => constants[token] ?? token);
  return parseStrictJson(Buffer.from(strict, "latin1"), file);
}

/** Numbers too large for a double are read as infinities. */
const constants: Readonly<Record<string, string>> = { Infinity: "1e999", "-Infinity": "-1e999", NaN: "null" };
