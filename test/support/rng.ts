/** Test data: seeded numbers, cheap to make by the million. (The generator under test is Philox; test data does not depend on it.) */

// Locals: in jest every look-up of a global such as Math goes through the sandbox, which would make this ten times slower.
const { imul, sqrt, log, cos, floor, PI } = Math;

/** sfc32 (Doty-Humphrey, PractRand): 128 bits of state, equal numbers for equal seeds and labels. */
export class Rng {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, label: number | string = 0) {
    this.#a = seed | 0;
    this.#b = typeof label === "number" ? label | 0 : hash(label);
    this.#c = 0x9e3779b9 | 0;
    for (let i = 0; i < 12; i++) this.#next();
  }

  /** In [0, 1), a multiple of 2^-32. */
  uniform(): number {
    return this.#next() * 2 ** -32;
  }

  /** Standard normal, by Box and Muller. */
  normal(): number {
    const radius = sqrt(-2 * log((this.#next() + 1) * 2 ** -32));
    return radius * cos(2 * PI * this.uniform());
  }

  /** In {0, ..., n - 1}. */
  integer(n: number): number {
    return floor(this.uniform() * n);
  }

  #next(): number {
    const out = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + out) | 0;
    return out >>> 0;
  }
}

/** FNV-1a. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = imul(h ^ text.charCodeAt(i), 0x01000193);
  return h;
}
