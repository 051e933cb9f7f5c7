/** Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) in big integers, and the random ops' use of it as
 *  native/README.md states it. */

const word = 0xffffffffn;

/** Four 32-bit words from a counter of four and a key of two. */
export function philox(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  let [a = 0n, b = 0n, c = 0n, d = 0n] = counter;
  let [k = 0n, l = 0n] = key;
  for (let round = 0; round < 10; round++) {
    const first = 0xd2511f53n * a;
    const second = 0xcd9e8d57n * c;
    [a, b, c, d] = [(second >> 32n) ^ b ^ k, second & word, (first >> 32n) ^ d ^ l, first & word];
    k = (k + 0x9e3779b9n) & word;
    l = (l + 0xbb67ae85n) & word;
  }
  return [a, b, c, d];
}

export interface Draw {
  readonly seed: number;
  readonly step: number;
  readonly offset: number;
  readonly stream: number;
  readonly shape: readonly number[];
}

/** The 32 bits that belong to element i of a draw. */
export function bitsOf({ seed, step, offset, stream, shape }: Draw, i: number): bigint {
  const perSample = shape.slice(1).reduce((n, d) => n * d, 1);
  const at = BigInt(i) + BigInt(offset) * BigInt(perSample);
  return block(at / 4n, seed, step, stream)[Number(at % 4n)]!;
}

/** Element i of a normal draw: lanes (0, 1) and (2, 3) of a block are Box-Muller pairs. */
export function normalOf({ seed, step, offset, stream, shape }: Draw, i: number): number {
  const perSample = shape.slice(1).reduce((n, d) => n * d, 1);
  const at = BigInt(i) + BigInt(offset) * BigInt(perSample);
  const lane = Number(at % 4n);
  const lanes = block(at / 4n, seed, step, stream);
  const pair = lane < 2 ? 0 : 2;
  const u1 = (Number(lanes[pair]!) + 1) * 2 ** -32;
  const u2 = Number(lanes[pair + 1]!) * 2 ** -32;
  const radius = Math.sqrt(-2 * Math.log(u1));
  return radius * (lane % 2 === 0 ? Math.cos(2 * Math.PI * u2) : Math.sin(2 * Math.PI * u2));
}

function block(index: bigint, seed: number, step: number, stream: number): bigint[] {
  const key = BigInt(seed);
  return philox([index & word, index >> 32n, BigInt(stream), BigInt(step)], [key & word, key >> 32n]);
}
