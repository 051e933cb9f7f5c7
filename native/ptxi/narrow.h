// Numbers of 16 bits: f16 and bf16, and rounding to so few digits without rounding twice.
#pragma once
#include <cmath>

#include "floats.h"

namespace attune {
namespace ptxi {

enum class Narrowing : uint8_t { nearest, zero, down, up, away };  // away: to nearest, halves away from zero

/// v with `digits` significant bits, the exponent of its last one not below `lowest`; overflow is the caller's.
inline double round_digits(double v, int digits, int lowest, Narrowing how) {
  if (v == 0 || !std::isfinite(v)) return v;
  const int last = std::max(std::ilogb(v) - digits + 1, lowest);
  const double scaled = std::ldexp(v, -last);
  switch (how) {
    case Narrowing::nearest: return std::ldexp(std::nearbyint(scaled), last);
    case Narrowing::zero: return std::ldexp(std::trunc(scaled), last);
    case Narrowing::down: return std::ldexp(std::floor(scaled), last);
    case Narrowing::up: return std::ldexp(std::ceil(scaled), last);
    default: return std::ldexp(std::round(scaled), last);
  }
}

/// a + b with its last bit odd if the sum is inexact: may be rounded to half the digits as if it were exact.
inline double odd_sum(double a, double b) {
  const double s = a + b, part = s - a, error = (a - (s - part)) + (b - part);
  if (error == 0 || !std::isfinite(s)) return s;
  const uint64_t u = bits<uint64_t>(s);
  if (u & 1) return s;
  return bits<double>((error > 0) == (s > 0) ? u + 1 : u - 1);
}

struct Bf16 {
  static constexpr uint16_t kNan = 0x7fff;
  static float wide(uint16_t v) { return bits<float>(uint32_t(v) << 16); }
  static uint16_t nearest(float v) {
    const uint32_t u = bits<uint32_t>(v);
    if ((u & 0x7fffffffu) > 0x7f800000u) return kNan;
    return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  static uint16_t narrow(double v, Narrowing how) {
    if (v != v) return kNan;
    double r = round_digits(v, 8, -133, how);
    const double most = std::ldexp(255.0, 120);
    if (std::fabs(r) > most && std::isfinite(v))
      r = std::copysign(how == Narrowing::zero || (how == Narrowing::down && v > 0) || (how == Narrowing::up && v < 0) ? most : INFINITY, v);
    return uint16_t(bits<uint32_t>(float(r)) >> 16);
  }
};

struct F16 {
  static constexpr uint16_t kNan = 0x7fff;
  static float wide(uint16_t v) {
    const uint32_t sign = uint32_t(v & 0x8000u) << 16, exponent = v >> 10 & 31, fraction = v & 1023;
    if (exponent == 31) return bits<float>(sign | 0x7f800000u | fraction << 13);
    const float magnitude = exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25) : std::ldexp(float(fraction), -24);
    return sign ? -magnitude : magnitude;
  }
  static uint16_t narrow(double v, Narrowing how) {
    if (v != v) return kNan;
    const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
    const double r = std::fabs(round_digits(v, 11, -24, how));
    const bool stays = how == Narrowing::zero || (how == Narrowing::down && v > 0) || (how == Narrowing::up && v < 0);
    if (r > 65504) return uint16_t(sign | (stays && std::isfinite(v) ? 0x7bff : 0x7c00));
    if (r < std::ldexp(1.0, -14)) return uint16_t(sign | uint16_t(std::ldexp(r, 24)));
    const int e = std::ilogb(r);
    return uint16_t(sign | (e + 15) << 10 | (int(std::ldexp(r, 10 - e)) - 1024));
  }
  static uint16_t nearest(float v) { return narrow(v, Narrowing::nearest); }
};

}  // namespace ptxi
}  // namespace attune
