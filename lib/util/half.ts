/** The two 16-bit float formats as bit patterns: bf16 (8 exponent bits, 7 of fraction) and f16 (IEEE 754 binary16).
 *  Towards 16 bits: to nearest, ties to even, straight from the float64 that a JavaScript number is. */

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** The float32 bits of x rounded to odd: truncated, with the last bit set if anything was cut. Rounding those to 16 bits is
 *  then the same as rounding x itself, which going through the nearest float32 is not. */
function oddBits(x: number): number {
  f32[0] = x;
  const nearest = f32[0];
  let bits = u32[0]!;
  if (nearest === x || Number.isNaN(x)) return bits;
  if (Math.abs(nearest) > Math.abs(x)) bits--; // also from infinity down to the largest float32
  return bits | 1;
}

/** Bits of x in bf16. NaN keeps its sign and becomes quiet. */
export function toBf16(x: number): number {
  if (Number.isNaN(x)) return 0x7fc0;
  const bits = oddBits(x);
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBf16(bits: number): number {
  u32[0] = bits << 16;
  return f32[0]!;
}

/** Bits of x in f16; from 65520 on it is infinite. */
export function toF16(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const bits = oddBits(x);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536 and more
  if (magnitude < 0x38800000) return sign | subnormalF16(magnitude); // below 2^-14
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** f16 below 2^-14 is a multiple of 2^-24: shift the fraction, with its leading one, to that unit. */
function subnormalF16(magnitude: number): number {
  const exponent = magnitude >>> 23;
  if (exponent < 102) return 0; // below 2^-25: half of the smallest
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent; // 14 .. 24
  const half = 1 << (shift - 1);
  return (fraction + half - 1 + ((fraction >>> shift) & 1)) >>> shift;
}

export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}
