/** JSON from files that were made by others: valid UTF-8, no duplicate keys, no endless nesting. JSON.parse alone keeps the last of two equal keys, so two readers
 *  of one file could disagree about what it says; and it takes nests that are too deep for whoever walks or prints them. */

import { DataError } from "../errors.js";

/** Objects and arrays within one another. */
const maxDepth = 256;

/** The value of a JSON text. Throws DataError naming `file` if it is not UTF-8, not JSON, nested deeper than 256, or repeats a key within one object. */
export function parseStrictJson(bytes: Uint8Array, file: string, field = "JSON"): unknown {
  let text: string, value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (cause) {
    throw new DataError(file, `expected UTF-8 JSON, received something else: ${(cause as Error).message}`, { field }, { cause });
  }
  if (isDeep(text)) throw new DataError(file, `expected values nested at most ${maxDepth} deep, received deeper ones`, { field });
  const repeated = repeatedKey(text);
  if (repeated !== undefined) throw new DataError(file, `expected distinct keys, received ${JSON.stringify(repeated)} twice`, { field });
  return value;
}

/** Whether a text known to be valid JSON nests deeper than it may. */
function isDeep(text: string): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c === 0x22) at = closingQuote(text, at);
    else if (c === 0x5b || c === 0x7b) {
      if (++depth > maxDepth) return true;
    } else if (c === 0x5d || c === 0x7d) depth--;
  }
  return false;
}

/** The first key that stands twice in one object of a text known to be valid JSON. */
function repeatedKey(text: string): string | undefined {
  const open: Set<string>[] = []; // keys of each enclosing object; an array has an empty set, and no key of its own
  for (let at = 0; at < text.length; at++) {
    const c = text[at];
    if (c === "{" || c === "[") open.push(new Set());
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const end = closingQuote(text, at);
      const keys = isKey(text, end) ? open.at(-1) : undefined;
      if (keys) {
        const key = JSON.parse(text.slice(at, end + 1)) as string; // "\u0061" and "a" are one key
        if (keys.has(key)) return key;
        keys.add(key);
      }
      at = end;
    }
  }
  return undefined;
}

function closingQuote(text: string, open: number): number {
  let at = open + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

/** Whether the string that ends at `end` is followed by a colon. */
function isKey(text: string, end: number): boolean {
  let at = end + 1;
  while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at++;
  return text[at] === ":";
}
