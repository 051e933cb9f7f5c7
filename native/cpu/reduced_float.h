// bf16 and f16 as bits, branch-free, rounded to nearest even. Each type here says what is stored and the wide type it is loaded to:
// double where float could not hold the value. double goes to 16 bits through a float rounded to odd, so that it is rounded once.
#pragma once
#include "simd.h"

ATTUNE_CPU_BEGIN

/// The float next to x towards zero with its last bit set if anything was lost: rounding that to 16 bits equals rounding x to 16 bits.
ATTUNE_INLINE float round_to_odd(double x) {
  const float near = float(x);
  const double back = double(near);
  const bool away = std::fabs(back) > std::fabs(x), inexact = (back != x) & (x == x);
  const uint32_t bits = math::bits_of(near) - (away ? 1u : 0u);
  return math::float_of(bits | (inexact ? 1u : 0u));
}

struct F32 {
  using Stored = float;
  ATTUNE_INLINE static float load(float x) { return x; }
  ATTUNE_INLINE static float store(float x) { return x; }
  ATTUNE_INLINE static float store(double x) { return float(x); }
};

struct F64 {
  using Stored = double;
  ATTUNE_INLINE static double load(double x) { return x; }
  ATTUNE_INLINE static double store(double x) { return x; }
};

struct I32 {
  using Stored = int32_t;
  ATTUNE_INLINE static double load(int32_t x) { return double(x); }
  /// Saturates; NaN gives 0.
  ATTUNE_INLINE static int32_t store(double x) {
    constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
    double c = x < -2147483648.0 ? -2147483648.0 : x;
    c = c > 2147483647.0 ? 2147483647.0 : c;
    c = c == c ? c : 0.0;
    return int32_t((c + kRound) - kRound);
  }
};

struct BF16 {
  using Stored = uint16_t;
  ATTUNE_INLINE static float load(uint16_t x) { return math::float_of(uint32_t(x) << 16); }
  ATTUNE_INLINE static uint16_t store(float x) {
    const uint32_t b = math::bits_of(x);
    const uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
    return uint16_t(x == x ? rounded : ((b >> 16) | 0x40u));  // a NaN stays one, quiet
  }
  ATTUNE_INLINE static uint16_t store(double x) { return store(round_to_odd(x)); }
};

struct F16 {
  using Stored = uint16_t;
  ATTUNE_INLINE static float load(uint16_t x) {
    const uint32_t magnitude = uint32_t(x & 0x7fffu) << 13;
    const float scaled = math::float_of(magnitude) * 5.192296858534828e33f;  // 2^112: moves the exponent bias, denormals included
    const uint32_t special = math::bits_of(scaled) | (magnitude >= 0x0f800000u ? 0x7f800000u : 0u);
    return math::float_of((uint32_t(x & 0x8000u) << 16) | special);
  }
  ATTUNE_INLINE static uint16_t store(float x) {
    const uint32_t b = math::bits_of(x), sign = (b >> 16) & 0x8000u, magnitude = b & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t denormal = math::bits_of(math::float_of(magnitude) + 0.5f) - 0x3f000000u;  // the addition rounds to multiples of 2^-24
    uint32_t y = magnitude < 0x38800000u ? denormal : normal;
    y = magnitude >= 0x47800000u ? 0x7c00u : y;  // 65520 and more round up to this by themselves
    y = magnitude > 0x7f800000u ? 0x7e00u : y;
    return uint16_t(sign | y);
  }
  ATTUNE_INLINE static uint16_t store(double x) { return store(round_to_odd(x)); }
};

ATTUNE_CPU_END
