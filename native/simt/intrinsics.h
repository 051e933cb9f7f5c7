// CUDA's arithmetic functions that g++ does not have. Exact ones give the device's bits; approximations (__expf, rsqrtf ...) are rounded correctly or nearly so
// here and off by an ulp or two on a GPU: no test may ask for their bits.
#pragma once
#include <math.h>  // not <cmath>: exp(float) must be the float function, as in device code

#include <cfenv>
#include <cstdint>
#include <cstring>

namespace attune {
namespace simt {
template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
/// A rounded float as an integer the way cvt does it: out of range goes to the nearest end, NaN to zero.
template <typename I, typename F>
I saturate(F rounded) {
  constexpr I low = I(I(-1) < I(0) ? I(1) << (sizeof(I) * 8 - 1) : I(0)), high = I(~low);
  if (rounded != rounded) return 0;
  if (rounded <= F(low)) return low;
  return rounded >= F(high) ? high : I(rounded);
}
}  // namespace simt
}  // namespace attune

inline unsigned __float_as_uint(float v) { return attune::simt::bits_as<unsigned>(v); }
inline int __float_as_int(float v) { return attune::simt::bits_as<int>(v); }
inline float __uint_as_float(unsigned v) { return attune::simt::bits_as<float>(v); }
inline float __int_as_float(int v) { return attune::simt::bits_as<float>(v); }
inline long long __double_as_longlong(double v) { return attune::simt::bits_as<long long>(v); }
inline double __longlong_as_double(long long v) { return attune::simt::bits_as<double>(v); }

// Rounded to nearest even (rn), towards zero (rz), down (rd), up (ru).
#define ATTUNE_SIMT_ROUND(name, F, I)                                             \
  inline I __##name##_rn(F v) { return attune::simt::saturate<I>(nearbyint(v)); } \
  inline I __##name##_rz(F v) { return attune::simt::saturate<I>(trunc(v)); }     \
  inline I __##name##_rd(F v) { return attune::simt::saturate<I>(floor(v)); }     \
  inline I __##name##_ru(F v) { return attune::simt::saturate<I>(ceil(v)); }
ATTUNE_SIMT_ROUND(float2int, float, int)
ATTUNE_SIMT_ROUND(float2uint, float, unsigned)
ATTUNE_SIMT_ROUND(float2ll, float, long long)
ATTUNE_SIMT_ROUND(float2ull, float, unsigned long long)
ATTUNE_SIMT_ROUND(double2int, double, int)
ATTUNE_SIMT_ROUND(double2uint, double, unsigned)
ATTUNE_SIMT_ROUND(double2ll, double, long long)
#undef ATTUNE_SIMT_ROUND
inline float __int2float_rn(int v) { return float(v); }
inline float __uint2float_rn(unsigned v) { return float(v); }
inline float __ll2float_rn(long long v) { return float(v); }
inline float __double2float_rn(double v) { return float(v); }
inline double __int2double_rn(int v) { return double(v); }
inline double __ll2double_rn(long long v) { return double(v); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;  // never contracted into a multiply-add
  return product;
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1.f / a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) {
  volatile double product = a * b;
  return product;
}
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float a) { return a > 0.f ? (a < 1.f ? a : 1.f) : 0.f; }  // NaN: 0

// Approximations on a GPU.
inline float __expf(float a) { return expf(a); }
inline float __exp10f(float a) { return float(pow(10.0, double(a))); }
inline float __logf(float a) { return logf(a); }
inline float __log2f(float a) { return log2f(a); }
inline float __log10f(float a) { return log10f(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __sinf(float a) { return sinf(a); }
inline float __cosf(float a) { return cosf(a); }
inline float __tanf(float a) { return tanf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frsqrt_rn(float a) { return float(1.0 / ::sqrt(double(a))); }
inline float rsqrtf(float a) { return float(1.0 / ::sqrt(double(a))); }
inline double rsqrt(double a) { return 1.0 / ::sqrt(a); }
inline float rsqrt(float a) { return rsqrtf(a); }
inline float rcbrtf(float a) { return 1.f / cbrtf(a); }
inline float normcdff(float a) { return 0.5f * erfcf(-a * 0.70710678f); }
inline double normcdf(double a) { return 0.5 * ::erfc(-a * 0.70710678118654752440); }
inline float sinpif(float a) { return float(::sin(3.14159265358979323846 * double(a))); }
inline float cospif(float a) { return float(::cos(3.14159265358979323846 * double(a))); }

// Integers.
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((static_cast<unsigned __int128>(a) * b) >> 64); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline unsigned __brev(unsigned v) {
  v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
  v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
  v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(v);
}
inline unsigned long long __brevll(unsigned long long v) { return (unsigned long long)(__brev(unsigned(v))) << 32 | __brev(unsigned(v >> 32)); }
/// Four bytes of the eight of b:a, chosen by the nibbles of `selector`; bit 3 of a nibble spreads the byte's sign instead.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t all = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned nibble = selector >> (4 * i) & 15u;
    unsigned byte = unsigned(all >> (8 * (nibble & 7u))) & 0xffu;
    if (nibble & 8u) byte = byte & 0x80u ? 0xffu : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) { return unsigned((uint64_t(high) << 32 | low) << (shift & 31u) >> 32); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) { return unsigned((uint64_t(high) << 32 | low) >> (shift & 31u)); }

// CUDA has min and max at global scope for every pair of number types; where the two differ they meet as in a + b.
#define ATTUNE_SIMT_MIN_MAX(T)                     \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
ATTUNE_SIMT_MIN_MAX(int)
ATTUNE_SIMT_MIN_MAX(unsigned)
ATTUNE_SIMT_MIN_MAX(long)
ATTUNE_SIMT_MIN_MAX(unsigned long)
ATTUNE_SIMT_MIN_MAX(long long)
ATTUNE_SIMT_MIN_MAX(unsigned long long)
#undef ATTUNE_SIMT_MIN_MAX
inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(double(a), b); }
inline double min(double a, float b) { return fmin(a, double(b)); }
inline double max(float a, double b) { return fmax(double(a), b); }
inline double max(double a, float b) { return fmax(a, double(b)); }
