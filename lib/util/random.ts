/** Seeded random numbers for everything outside programs: splits, shuffles, resampling. Philox4x32-10 (Salmon et al. 2011), the generator
 *  of the kernels, so that a draw is a function of (seed, stream, position) on every machine. */

const { floor, imul } = Math; // bound once: a sandbox that intercepts globals makes every look-up slow

/** Independent streams of one seed are told apart by a number or a name. */
export class Random {
  readonly #key: readonly [number, number];
  readonly #stream: number;
  #block = 0;
  #lanes: number[] = [];

  constructor(seed: number, stream: number | string = 0) {
    this.#key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
    this.#stream = typeof stream === "number" ? stream >>> 0 : hash(stream);
  }

  /** 32 random bits. */
  bits(): number {
    if (this.#lanes.length === 0) this.#lanes = philox4x32([this.#block >>> 0, floor(this.#block++ / 2 ** 32), this.#stream, 0], this.#key);
    return this.#lanes.shift()!;
  }

  /** Uniform in [0, 1), 32 bits. */
  uniform(): number {
    return this.bits() * 2 ** -32;
  }

  /** Uniform in {0, ..., n - 1}; n up to 2^32, bias below n * 2^-32. */
  integer(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal, by Box and Muller. */
  normal(): number {
    return Math.sqrt(-2 * Math.log((this.bits() + 1) * 2 ** -32)) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** A shuffled copy (Fisher and Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }
}

/** Ten rounds over a counter of four and a key of two 32-bit words. */
export function philox4x32(counter: readonly number[], key: readonly number[]): number[] {
  let [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = counter;
  let [k0 = 0, k1 = 0] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, c0);
    const [high1, low1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    [k0, k1] = [(k0 + 0x9e3779b9) >>> 0, (k1 + 0xbb67ae85) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** High and low word of a 32 x 32 bit product. */
function multiply(a: number, b: number): [number, number] {
  const low = (a >>> 16) * (b & 0xffff) + ((a & 0xffff) * (b & 0xffff)) / 2 ** 16; // below 2^49, the fraction holds the low 16 bits: exact
  return [((a >>> 16) * (b >>> 16) + floor(((a & 0xffff) * (b >>> 16) + low) / 2 ** 16)) >>> 0, imul(a, b) >>> 0];
}

/** FNV-1a. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193) >>> 0;
  return h;
}
