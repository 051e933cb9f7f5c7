/** Zip archives whose entries are stored as they are, which is how torch writes its files: the directory at the end says where each entry's bytes lie, and they are read in
 *  place. Zip64 is read, compression and encryption are refused. Checksums are not compared: torch may be told to write none, and tensors are read past this process.
 *  Format: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3. */

import { DataError } from "../errors.js";
import { readFully } from "../util/read-at.js";

export interface ZipEntry {
  /** First byte of the contents. */
  readonly offset: number;
  readonly bytes: number;
}

const maxEntries = 1 << 20;
const maxDirectoryBytes = 1 << 28;
/** Sizes of the fixed parts, and the four bytes that each begins with, "PK" and two more. */
const end = { signature: 0x06054b50, bytes: 22 };
const end64 = { signature: 0x06064b50, bytes: 56 };
const locator64 = { signature: 0x07064b50, bytes: 20 };
const central = { signature: 0x02014b50, bytes: 46 };
const local = { signature: 0x04034b50, bytes: 30 };

/** Whether a file begins as a zip archive does. */
export function isZip(head: Uint8Array): boolean {
  return head.length >= 4 && new DataView(head.buffer, head.byteOffset, 4).getUint32(0, true) === local.signature;
}

/** All entries by name. Every extent is checked: inside the file, before the directory, and no two overlap. Throws DataError. */
export function readZip(fd: number, fileBytes: number, source: string): ReadonlyMap<string, ZipEntry> {
  const { offset, bytes, count } = findDirectory(fd, fileBytes, source);
  const directory = read(fd, offset, bytes, source);
  const entries = new Map<string, ZipEntry>();
  const extents: { name: string; from: number; to: number }[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const record = parseRecord(directory, at, offset, source);
    at += record.length;
    if (entries.has(record.name))
      throw new DataError(source, "expected distinct entries, received one name twice", { field: record.name, offset: offset + at });
    const start = contentsOf(fd, record, offset, source);
    entries.set(record.name, { offset: start, bytes: record.bytes });
    extents.push({ name: record.name, from: record.header, to: start + record.bytes });
  }
  if (at !== bytes)
    throw new DataError(source, `expected ${count} entries in ${bytes} bytes of directory, received ${at} bytes`, { field: "directory", offset });
  extents.sort((a, b) => a.from - b.from || a.to - b.to);
  for (const [i, { name, from }] of extents.entries())
    if (i > 0 && from < extents[i - 1]!.to)
      throw new DataError(source, `expected entries apart, received one inside ${extents[i - 1]!.name}`, { field: name, offset: from });
  return entries;
}

function read(fd: number, offset: number, bytes: number, source: string): DataView {
  const into = new Uint8Array(bytes);
  readFully(fd, into, offset, source);
  return new DataView(into.buffer);
}

/** The directory stands behind the entries; the record that says where is the last thing but a comment of at most 65535 bytes. */
function findDirectory(fd: number, fileBytes: number, source: string): { offset: number; bytes: number; count: number } {
  const tailBytes = Math.min(fileBytes, end.bytes + 65535);
  const tailAt = fileBytes - tailBytes;
  const tail = read(fd, tailAt, tailBytes, source);
  let at = tailBytes - end.bytes;
  while (at >= 0 && !(tail.getUint32(at, true) === end.signature && at + end.bytes + tail.getUint16(at + 20, true) === tailBytes)) at--;
  if (at < 0) throw new DataError(source, "expected a zip archive, received a file without the record that ends one: it may be cut off");
  const small = { count: tail.getUint16(at + 10, true), bytes: tail.getUint32(at + 12, true), offset: tail.getUint32(at + 16, true) };
  const endAt = tailAt + at;
  const large = small.count === 0xffff || small.bytes === 0xffffffff || small.offset === 0xffffffff || hasLocator(tail, at);
  const found = large ? findDirectory64(fd, endAt, source) : { ...small, until: endAt };
  if (found.count > maxEntries || found.bytes > maxDirectoryBytes)
    throw new DataError(source, `expected at most ${maxEntries} entries, received ${found.count} in ${found.bytes} bytes`, { field: "directory" });
  if (found.offset + found.bytes > found.until)
    throw new DataError(source, `expected a directory before byte ${found.until}, received one of ${found.bytes} bytes at ${found.offset}`, {
      field: "directory",
    });
  return found;
}

function hasLocator(tail: DataView, at: number): boolean {
  return at >= locator64.bytes && tail.getUint32(at - locator64.bytes, true) === locator64.signature;
}

function findDirectory64(fd: number, endAt: number, source: string): { offset: number; bytes: number; count: number; until: number } {
  const fail = (detail: string): never => {
    throw new DataError(source, detail, { field: "zip64 directory" });
  };
  if (endAt < locator64.bytes) return fail("expected a zip64 locator, received none");
  const locator = read(fd, endAt - locator64.bytes, locator64.bytes, source);
  if (locator.getUint32(0, true) !== locator64.signature) return fail("expected a zip64 locator, received none");
  const until = whole(locator, 8, source);
  if (until + end64.bytes > endAt - locator64.bytes) return fail(`expected its end record before byte ${endAt}, received ${until}`);
  const record = read(fd, until, end64.bytes, source);
  if (record.getUint32(0, true) !== end64.signature) return fail(`expected its end record at byte ${until}, received something else`);
  return { count: whole(record, 32, source), bytes: whole(record, 40, source), offset: whole(record, 48, source), until };
}

interface Record {
  readonly name: string;
  readonly bytes: number;
  /** Of the entry's own header. */
  readonly header: number;
  /** Of this record in the directory. */
  readonly length: number;
}

function parseRecord(directory: DataView, at: number, base: number, source: string): Record {
  const fail = (detail: string, field = "directory"): never => {
    throw new DataError(source, detail, { field, offset: base + at });
  };
  const room = directory.byteLength - at;
  if (room < central.bytes || directory.getUint32(at, true) !== central.signature) return fail("expected an entry of the directory, received something else");
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map(field => directory.getUint16(at + field, true)) as [number, number, number];
  const length = central.bytes + nameBytes + extraBytes + commentBytes;
  if (length > room) return fail(`expected an entry of at most ${room} bytes, received ${length}`);
  const bytesAt = directory.byteOffset + at + central.bytes;
  const name = new TextDecoder().decode(new Uint8Array(directory.buffer, bytesAt, nameBytes));
  if ((directory.getUint16(at + 8, true) & 1) !== 0) return fail("expected an entry that is not encrypted, received one that is", name);
  const method = directory.getUint16(at + 10, true);
  if (method !== 0) return fail(`expected a stored entry, as torch writes them, received compression method ${method}`, name);
  const sizes = [directory.getUint32(at + 24, true), directory.getUint32(at + 20, true), directory.getUint32(at + 42, true)];
  const extra = new DataView(directory.buffer, bytesAt + nameBytes, extraBytes);
  const [bytes, stored, header] = widened(sizes, extra, name, source) as [number, number, number];
  if (bytes !== stored) return fail(`expected as many bytes stored as there are (${bytes}), received ${stored}`, name);
  return { name, bytes, header, length };
}

/** Fields of 0xffffffff stand, in this order, in the extra field of id 1 as 64 bits. */
function widened(sizes: readonly number[], extra: DataView, name: string, source: string): number[] {
  if (!sizes.includes(0xffffffff)) return [...sizes];
  for (let at = 0; at + 4 <= extra.byteLength; at += 4 + extra.getUint16(at + 2, true)) {
    if (extra.getUint16(at, true) !== 1) continue;
    let next = at + 4;
    const last = Math.min(extra.byteLength, next + extra.getUint16(at + 2, true));
    return sizes.map(size => {
      if (size !== 0xffffffff) return size;
      if (next + 8 > last) throw new DataError(source, "expected 64 bits of size or place, received fewer", { field: name });
      next += 8;
      return whole(extra, next - 8, source);
    });
  }
  throw new DataError(source, "expected a zip64 field for this entry's size or place, received none", { field: name });
}

/** The entry's own header repeats name and sizes; only its length matters, and that it is the one that the directory means. */
function contentsOf(fd: number, { name, bytes, header }: Record, limit: number, source: string): number {
  const fail = (detail: string): never => {
    throw new DataError(source, detail, { field: name, offset: header });
  };
  if (header + local.bytes > limit) return fail(`expected an entry before the directory at byte ${limit}, received one at ${header}`);
  const view = read(fd, header, local.bytes, source);
  if (view.getUint32(0, true) !== local.signature) return fail("expected an entry's header there, received something else");
  const nameBytes = view.getUint16(26, true);
  const start = header + local.bytes + nameBytes + view.getUint16(28, true);
  if (start + bytes > limit) return fail(`expected ${bytes} bytes before the directory at byte ${limit}, received ${Math.max(0, limit - start)}`);
  const own = new TextDecoder().decode(new Uint8Array(read(fd, header + local.bytes, nameBytes, source).buffer));
  if (own !== name) return fail(`expected the name that the directory has, received ${JSON.stringify(own.slice(0, 80))}`);
  return start;
}

function whole(view: DataView, at: number, source: string): number {
  const value = Number(view.getBigUint64(at, true));
  if (!Number.isSafeInteger(value)) throw new DataError(source, `expected a size or place below 2^53, received ${value}`, { field: "zip64" });
  return value;
}
