// Dynamic 8-bit codes of optimizer states (Dettmers et al. 2022, arXiv:2110.02861), the code books of bitsandbytes' create_dynamic_map: seven decades below 1,
// each twice as fine as the one below it. A magnitude has a rank t: with k = floor(log2 t) and j = t - 2^k it stands for 10^(k - K) (0.1 + 0.9 (j + 1/2) /
// 2^k), rank 2^(K + 1) for 1. Signed codes (K = 6) are 127 - t and 127 + t, 127 is 0, and -1 is missing; unsigned ones (K = 7) are t - 1, and 0 is 0. Ranks
// follow from arithmetic, not from a search; products meet sums in explicit fma alone, so that host and device agree on every code.
#pragma once
#include <cmath>
#include <cstdint>

#include "philox.h"  // ATTUNE_HOST_DEVICE

namespace attune {
namespace dynamic_code {

constexpr int kSigned = 6, kUnsigned = 7;
constexpr int kBlock = 256;  // elements that share one largest magnitude

constexpr double power(double base, int n) { return n == 0 ? 1.0 : n < 0 ? power(base, n + 1) / base : power(base, n - 1) * base; }

/// Decade k of a code book: its values begin at `first`, end at `last`; from `threshold` on a magnitude is nearer to it than to the decade below.
template <int K, int k>
struct Decade {
  static constexpr double unit = power(10, k - K), step = 0.9 * unit / power(2, k);
  static constexpr double first = 0.1 * unit + step / 2, last = unit - step / 2;
  static constexpr double below = k == 0 ? 0.0 : power(10, k - 1 - K) * (1 - 0.45 / power(2, k - 1));
  static constexpr float threshold = float((below + first) / 2);
  static constexpr float slope = float(1 / step), offset = float(power(2, k) * 8 / 9);  // rank = slope a + offset, rounded down
};
/// The code of 1.
template <int K>
constexpr float kTop = float((Decade<K, K>::last + 1) / 2);

template <int K, int k>
ATTUNE_HOST_DEVICE void enter(float a, float& slope, float& offset, int32_t& least) {
  constexpr float threshold = Decade<K, k>::threshold, slope_here = Decade<K, k>::slope, offset_here = Decade<K, k>::offset;
  const bool inside = a >= threshold;
  slope = inside ? slope_here : slope, offset = inside ? offset_here : offset, least = inside ? 1 << k : least;
}

/// Rank of the value nearest to a, in [2^lowest, 2^(K + 1)], for a in the book's range; `lowest` is 0 (signed) or 1.
template <int K>
ATTUNE_HOST_DEVICE int32_t rank_of(float a) {
  constexpr int kLowest = K == kUnsigned ? 1 : 0;
  float slope = Decade<K, kLowest>::slope, offset = Decade<K, kLowest>::offset;
  int32_t least = 1 << kLowest;
  if constexpr (kLowest == 0) enter<K, 1>(a, slope, offset, least);
  enter<K, 2>(a, slope, offset, least);
  enter<K, 3>(a, slope, offset, least);
  enter<K, 4>(a, slope, offset, least);
  enter<K, 5>(a, slope, offset, least);
  enter<K, 6>(a, slope, offset, least);
  if constexpr (K == 7) enter<K, 7>(a, slope, offset, least);
  int32_t rank = int32_t(fmaf(a, slope, offset));
  rank = rank < least ? least : rank;                  // below the decade's first value
  rank = rank > 2 * least - 1 ? 2 * least - 1 : rank;  // above its last
  constexpr float top = kTop<K>;
  return a >= top ? 1 << (K + 1) : rank;
}

/// Magnitude of a rank in [1, 2^(K + 1)].
template <int K>
ATTUNE_HOST_DEVICE float value_of(int32_t rank) {
  int32_t size = 1;
  float unit = K == 6 ? 1e-6f : 1e-7f;
  while (2 * size <= rank) {
    size *= 2;
    unit = unit < 5e-7f ? 1e-6f : unit < 5e-6f ? 1e-5f : unit < 5e-5f ? 1e-4f : unit < 5e-4f ? 1e-3f : unit < 5e-3f ? 1e-2f : unit < 5e-2f ? 1e-1f : 1.f;
  }
  if (size == 1 << (K + 1)) return 1.f;
  return unit * fmaf(0.9f, (float(rank - size) + 0.5f) / float(size), 0.1f);
}

/// First moments: a in [-1, 1], in units of the largest of its block.
ATTUNE_HOST_DEVICE uint8_t encode_signed(float a) {
  const float magnitude = fabsf(a);
  constexpr float smallest = Decade<kSigned, 0>::threshold;
  if (!(magnitude >= smallest)) return 127;
  const int32_t rank = rank_of<kSigned>(magnitude);
  return uint8_t(a < 0.f ? 127 - (rank < 127 ? rank : 127) : 127 + rank);
}

/// Second moments: a >= 0. What is not 0 is never stored as 0, because its root divides.
ATTUNE_HOST_DEVICE uint8_t encode_unsigned(float a) { return a > 0.f ? uint8_t(rank_of<kUnsigned>(a) - 1) : uint8_t(0); }

/// What a code multiplies the largest magnitude of its block with.
ATTUNE_HOST_DEVICE float decode_signed(uint8_t code) {
  const int32_t rank = int32_t(code) - 127;
  return rank == 0 ? 0.f : rank < 0 ? -value_of<kSigned>(-rank) : value_of<kSigned>(rank);
}
ATTUNE_HOST_DEVICE float decode_unsigned(uint8_t code) { return code == 0 ? 0.f : value_of<kUnsigned>(int32_t(code) + 1); }

/// bf16 by stochastic rounding: up with the probability of what lies above the kept bits, by 16 random bits; without bias, so that updates far below a bf16
/// step add up to what they should.
ATTUNE_HOST_DEVICE uint16_t round_stochastic(uint32_t bits, uint32_t random) {
  return (bits & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fff) : uint16_t((bits + (random & 0xffffu)) >> 16);
}
/// The 16 bits of element i (counted over the tensor) of its Philox block, which eight elements share.
ATTUNE_HOST_DEVICE uint32_t half_word(const philox::Lanes& words, int i) { return (words.x[i / 2] >> (16 * (i % 2))) & 0xffffu; }

}  // namespace dynamic_code
}  // namespace attune
