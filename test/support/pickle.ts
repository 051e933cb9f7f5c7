/** Writes pickles and torch archives by hand, right ones and wrong ones, for the readers' tests. */

import { type HostTensor, hostDtypeBytes } from "../../lib/util/host-tensor.js";

export type Part = string | number | Uint8Array;

/** Joins opcodes (one character a byte) and numbers (one byte each). */
export function pickle(...parts: Part[]): Uint8Array {
  return Buffer.concat(parts.map(part => (typeof part === "string" ? Buffer.from(part, "latin1") : typeof part === "number" ? Uint8Array.of(part) : part)));
}

/** Little-endian. */
export function int(value: number, bytes = 4): Uint8Array {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntLE(value, 0, Math.min(bytes, 6));
  return buffer;
}

/** BINUNICODE. */
export function text(value: string): Uint8Array {
  const utf8 = Buffer.from(value);
  return pickle("X", int(utf8.length), utf8);
}

const whole = (value: number): Uint8Array => pickle("J", int(value));
const tuple = (...items: readonly Uint8Array[]): Uint8Array => pickle("(", ...items, "t");

const storageTypes: { readonly [dtype: string]: string } = { f64: "Double", f32: "Float", f16: "Half", bf16: "BFloat16", i64: "Long", i32: "Int", u8: "Byte" };

/** The call that rebuilds a tensor over storage `key`. */
export function tensorPickle(key: string, { dtype, shape }: Pick<HostTensor, "dtype" | "shape">): Uint8Array {
  const elements = shape.reduce((n, d) => n * d, 1);
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((n, d) => n * d, 1));
  const id = tuple(text("storage"), pickle(`ctorch\n${storageTypes[dtype]}Storage\n`), text(key), text("cpu"), whole(elements));
  const args = tuple(
    pickle(id, "Q"),
    whole(0),
    tuple(...shape.map(whole)),
    tuple(...strides.map(whole)),
    pickle("\x89"),
    pickle("ccollections\nOrderedDict\n)R"),
  );
  return pickle("ctorch._utils\n_rebuild_tensor_v2\n", args, "R");
}

/** A zip archive of stored entries, as torch writes them; `large` puts sizes and places into the 64-bit fields that archives beyond 4 GiB have. */
export function zip(entries: Readonly<Record<string, Uint8Array>>, { large = false }: { large?: boolean } = {}): Buffer {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [name, data] of Object.entries(entries)) {
    const utf8 = Buffer.from(name);
    const header = Buffer.concat([int(0x04034b50), int(0, 14), int(data.length), int(data.length), int(utf8.length, 2), int(0, 2), utf8]);
    const [bytes, place] = large ? [int(0xffffffff), int(0xffffffff)] : [int(data.length), int(at)];
    const extra = large ? Buffer.concat([int(1, 2), int(24, 2), int(data.length, 8), int(data.length, 8), int(at, 8)]) : Buffer.alloc(0);
    directory.push(Buffer.concat([int(0x02014b50), int(0, 16), bytes, bytes, int(utf8.length, 2), int(extra.length, 2), int(0, 10), place, utf8, extra]));
    parts.push(header, data);
    at += header.length + data.length;
  }
  const central = Buffer.concat(directory);
  const [count, size] = [directory.length, central.length];
  if (!large) return Buffer.concat([...parts, central, int(0x06054b50), int(0, 4), int(count, 2), int(count, 2), int(size), int(at), int(0, 2)]);
  const end = Buffer.concat([int(0x06064b50), int(44, 8), int(0, 12), int(count, 8), int(count, 8), int(size, 8), int(at, 8)]);
  const locator = Buffer.concat([int(0x07064b50), int(0), int(at + size, 8), int(1)]);
  return Buffer.concat([
    ...parts,
    central,
    end,
    locator,
    int(0x06054b50),
    int(0, 4),
    int(0xffff, 2),
    int(0xffff, 2),
    int(0xffffffff),
    int(0xffffffff),
    int(0, 2),
  ]);
}

/** torch.save of a dict of tensors. */
export function torchArchive(tensors: ReadonlyMap<string, HostTensor>, extra: Readonly<Record<string, Uint8Array>> = {}): Buffer {
  const items = [...tensors].map(([name, tensor], i) => pickle(text(name), tensorPickle(String(i), tensor)));
  const storages = [...tensors.values()].map(({ data, dtype }, i): [string, Uint8Array] => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length * hostDtypeBytes[dtype]);
    return [`archive/data/${i}`, bytes];
  });
  const parts = { "archive/data.pkl": pickle("\x80\x02}(", ...items, "u."), "archive/byteorder": Buffer.from("little"), ...Object.fromEntries(storages) };
  return zip({ ...parts, ...extra });
}
