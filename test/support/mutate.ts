/** Damages files the way fuzzers do: bits, bytes, lengths, pieces cut, doubled, moved or taken from a dictionary, text and numbers replaced. Equal seeds give equal damage. */

import type { Rng } from "./rng.js";

const { min, max } = Math;

/** Numbers at which sizes and signs go wrong. */
const integers = [
  0n,
  1n,
  2n,
  7n,
  8n,
  127n,
  128n,
  255n,
  256n,
  65535n,
  65536n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 64n - 1n,
];
/** The same as text. */
const literals = [
  "0",
  "-1",
  "1",
  "3",
  "1e3",
  "65536",
  "2147483648",
  "1e9",
  "4294967296",
  "9007199254740993",
  "1e308",
  "1e999",
  "-0",
  "0.5",
  "null",
  "true",
  "[]",
  "{}",
  '""',
  "[[]]",
  '"x"',
  "NaN",
  `${"[".repeat(20_000)}${"]".repeat(20_000)}`,
];

export type Mutation = (rng: Rng, bytes: Buffer, dictionary: readonly Buffer[]) => Buffer;

const spliced = (bytes: Buffer, at: number, removed: number, inserted: Uint8Array): Buffer =>
  Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(min(bytes.length, at + removed))]);

const mutations: readonly Mutation[] = [
  (rng, bytes) => {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[rng.integer(copy.length)]! ^= 1 << rng.integer(8);
    return copy;
  },
  (rng, bytes) => {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[rng.integer(copy.length)] = rng.integer(256);
    return copy;
  },
  (rng, bytes) => {
    const width = [1, 2, 4, 8][rng.integer(4)]!;
    if (bytes.length < width) return bytes;
    const value = Buffer.alloc(8);
    value.writeBigUInt64LE(integers[rng.integer(integers.length)]!);
    const word = value.subarray(0, width);
    return spliced(bytes, rng.integer(bytes.length - width + 1), width, rng.integer(2) === 0 ? word : Buffer.from(word).reverse());
  },
  (rng, bytes) => spliced(bytes, rng.integer(bytes.length + 1), 0, Buffer.from(Array.from({ length: 1 + rng.integer(8) }, () => rng.integer(256)))),
  (rng, bytes) => spliced(bytes, rng.integer(bytes.length + 1), 1 + rng.integer(max(1, bytes.length >> 3)), Buffer.alloc(0)),
  (rng, bytes) => bytes.subarray(0, rng.integer(bytes.length + 1)),
  (rng, bytes) => {
    const from = rng.integer(bytes.length + 1);
    const piece = bytes.subarray(from, from + 1 + rng.integer(64));
    return spliced(bytes, rng.integer(bytes.length + 1), rng.integer(2) * piece.length, piece);
  },
  (rng, bytes, dictionary) => {
    const piece = dictionary.length > 0 ? dictionary[rng.integer(dictionary.length)]! : Buffer.alloc(4);
    return spliced(bytes, rng.integer(bytes.length + 1), rng.integer(2) * piece.length, piece);
  },
  (rng, bytes) => {
    const places = [...bytes.toString("latin1").matchAll(/-?\d+(\.\d+)?|true|false|null/g)];
    if (places.length === 0) return bytes;
    const [text] = places[rng.integer(places.length)]!;
    const { index } = places[rng.integer(places.length)]!;
    return spliced(bytes, index, text.length, Buffer.from(literals[rng.integer(literals.length)]!));
  },
];

/** One of the seeds with one mutation, or up to four. */
export function mutate(rng: Rng, seeds: readonly Buffer[], dictionary: readonly Buffer[] = []): Buffer {
  let bytes = seeds[rng.integer(seeds.length)]!;
  for (let i = 1 + rng.integer(2) * rng.integer(4); i > 0; i--) bytes = mutations[rng.integer(mutations.length)]!(rng, bytes, dictionary);
  return bytes;
}
