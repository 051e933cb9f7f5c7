// Division of element indices by numbers that the host knows: one wide multiplication instead of a loop of 64-bit division.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

ATTUNE_DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) {
#ifdef __CUDACC__
  return __umul64hi(a, b);
#else
  return uint64_t((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

/// q = floor(i / divisor) for 0 <= i < 2^63. With 2^s < divisor <= 2^(s+1) and magic = ceil(2^(64+s) / divisor) < 2^64, magic * divisor exceeds 2^(64+s) by
/// less than 2^(s+1), so that i * magic is off by less than 2^(64+s) / divisor: Granlund & Montgomery 1994, "Division by invariant integers using
/// multiplication".
struct Divider {
  int64_t divisor = 1;
  uint64_t magic = 0;
  int shift = 0;

  Divider() = default;
  explicit Divider(int64_t by) : divisor(by) {
    if (by <= 1) return;
    while (int64_t(2) << shift < by) shift++;
    const auto numerator = static_cast<unsigned __int128>(1) << (64 + shift);
    magic = uint64_t((numerator + static_cast<unsigned __int128>(by) - 1) / static_cast<unsigned __int128>(by));
  }
  ATTUNE_DEVICE int64_t quotient(int64_t i) const { return divisor == 1 ? i : int64_t(multiply_high(uint64_t(i), magic) >> shift); }
};

}  // namespace cuda
}  // namespace attune
