// exp, log, log1p, sigmoid, softplus, tanh and the normal distribution for float as branch-free polynomials of 1 to 2 ulp, which the compiler
// vectorises inside loops; for double the library's own. Comparisons are written so that NaN goes through.
#pragma once
#include "cpu.h"

#define ATTUNE_INLINE [[gnu::always_inline]] inline

ATTUNE_CPU_BEGIN
namespace math {

ATTUNE_INLINE uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
ATTUNE_INLINE float float_of(uint32_t x) { return __builtin_bit_cast(float, x); }

/// e^r for abs(r) <= ln(2) / 2: Cephes' polynomial.
ATTUNE_INLINE float exp_near_zero(float r) {
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r + 1.f;
}

/// e^x: x = n ln 2 + r, |r| <= ln 2 / 2, Cephes' polynomial in r. 2^n is applied in two factors, so that results below 2^-126 are right too.
ATTUNE_INLINE float exp(float x) {
  x = x < -105.f ? -105.f : x;
  x = x > 90.f ? 90.f : x;
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float biased = x * 1.44269504088896341f + kRound;
  const float n = biased - kRound;
  const int32_t k = int32_t(bits_of(biased) - bits_of(kRound)), half = k >> 1;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  const float p = exp_near_zero(r);
  return p * float_of(uint32_t(half + 127) << 23) * float_of(uint32_t(k - half + 127) << 23);
}
ATTUNE_INLINE double exp(double x) { return std::exp(x); }

/// ln x: x = 2^e m, m in [sqrt(1/2), sqrt(2)), Cephes' polynomial in m - 1.
ATTUNE_INLINE float log(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = tiny ? x * 8388608.f : x;
  const uint32_t shifted = bits_of(scaled) - 0x3f3504f3u;  // bits of sqrt(1/2)
  const float e = float(int32_t(shifted) >> 23) - (tiny ? 23.f : 0.f);
  const float f = float_of((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.f;
  const float z = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * z + e * -2.12194440e-4f - 0.5f * z;
  float y = f + p + e * 0.693359375f;
  y = x < float_of(0x7f800000u) ? y : x;  // +inf, NaN
  y = x == 0.f ? float_of(0xff800000u) : y;
  return x < 0.f ? float_of(0x7fc00000u) : y;
}
ATTUNE_INLINE double log(double x) { return std::log(x); }

/// ln(1 + x) for finite x > -1: ln u for the rounded u = 1 + x, plus the first-order effect of what the rounding lost.
ATTUNE_INLINE float log1p_finite(float x) {
  const float u = 1.f + x;
  return math::log(u) + (x - (u - 1.f)) / u;
}
ATTUNE_INLINE double log1p_finite(double x) { return std::log1p(x); }

ATTUNE_INLINE float log1p(float x) {
  const float y = log1p_finite(x), special = math::log(1.f + x);
  return (x < float_of(0x7f800000u)) & (x > -1.f) ? y : special;
}
ATTUNE_INLINE double log1p(double x) { return std::log1p(x); }

/// e^-abs(x), 0 below 2^-125: shorter than exp, as it neither overflows nor becomes subnormal. The activations and their gradients spend their time here.
ATTUNE_INLINE float exp_minus_abs(float x) {
  const float a = std::fabs(x);
  constexpr float kRound = 12582912.f;
  const float biased = a * -1.44269504088896341f + kRound;
  const float n = biased - kRound;
  const float r = (n * -0.693359375f - a) + n * 2.12194440e-4f;
  const float p = exp_near_zero(r);
  const float e = p * float_of((bits_of(biased) + 127u) << 23);  // the low bits of biased are n's: those of kRound are zero
  return a > 86.f ? 0.f : e;
}
ATTUNE_INLINE double exp_minus_abs(double x) { return std::exp(-std::fabs(x)); }

template <typename T>
ATTUNE_INLINE T sigmoid(T x) {
  const T e = exp_minus_abs(x);
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

template <typename T>
ATTUNE_INLINE T softplus(T x) {
  return (x < T(0) ? T(0) : x) + log1p_finite(exp_minus_abs(x));
}

ATTUNE_INLINE float tanh(float x) {
  const float a = x < 0.f ? -x : x, z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float small = p * z * x + x;
  const float large = 1.f - 2.f / (math::exp(2.f * a) + 1.f);
  return a < 0.625f ? small : x < 0.f ? -large : large;
}
ATTUNE_INLINE double tanh(double x) { return std::tanh(x); }

/// P(X <= x) of a standard normal X: (1 + erf(x / sqrt 2)) / 2, with erfc where that cancels. Polynomials of N. Juffa's erff.
ATTUNE_INLINE float normal_cdf(float x) {
  const float a = x * 0.70710678118654752f, s = a * a;
  float t = a < 0.f ? -a : a;
  float r = -5.96761703e-4f;
  r = r * s + 4.99119423e-3f;
  r = r * s - 2.67681349e-2f;
  r = r * s + 1.12819925e-1f;
  r = r * s - 3.76125336e-1f;
  r = r * s + 1.28379166e-1f;
  const float near = 0.5f + 0.5f * (r * a + a);
  t = t > 12.f ? 12.f : t;
  float q = -1.72853470e-5f * t + 3.83197126e-4f;
  q = q * (t * t) + (-3.88396438e-3f * t + 2.42546219e-2f);
  q = q * t - 1.06777877e-1f;
  q = q * t - 6.34846687e-1f;
  q = q * t - 1.28717512e-1f;
  const float tail = 0.5f * math::exp(q * t - t);
  const float far = a < 0.f ? tail : 1.f - tail;
  return (t > 0.927734375f) ? far : near;
}
ATTUNE_INLINE double normal_cdf(double x) { return 0.5 * std::erfc(x * -0.70710678118654752440); }

/// Density of a standard normal.
template <typename T>
ATTUNE_INLINE T normal_pdf(T x) {
  return T(0.39894228040143267794) * math::exp(T(-0.5) * x * x);
}

}  // namespace math
ATTUNE_CPU_END
