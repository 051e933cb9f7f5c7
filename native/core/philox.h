// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and Box-Muller normals with the same bits on every machine:
// logarithm, sine and cosine are polynomials whose products feed sums only inside an explicit fma, so no compiler can contract them another way.
#pragma once
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define ATTUNE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ATTUNE_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace attune {
namespace philox {

struct Key {
  uint32_t low, high;
};
struct Lanes {
  uint32_t x[4];
};

ATTUNE_HOST_DEVICE Lanes block(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, Key key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c0, b = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(b >> 32) ^ c1 ^ key.low, c1 = uint32_t(b);
    c2 = uint32_t(a >> 32) ^ c3 ^ key.high, c3 = uint32_t(a);
    key.low += 0x9E3779B9u, key.high += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// -2 ln u for u = (a + 1) 2^-32 in (0, 1]. a + 1 = 2^e m with m in [sqrt(1/2), sqrt 2), ln m = 2 artanh s, s = (m - 1) / (m + 1); the series in s^2 is
/// fdlibm's.
ATTUNE_HOST_DEVICE double minus_two_log(uint32_t a) {
  const double n = double(a) + 1.0;
#ifdef __CUDA_ARCH__
  const uint64_t bits = uint64_t(__double_as_longlong(n));
#else
  const uint64_t bits = __builtin_bit_cast(uint64_t, n);
#endif
  const uint64_t mantissa = bits & 0xfffffffffffffu, halve = mantissa > 0x6a09e667f3bcdu ? 1u : 0u;  // m > sqrt 2
  const double e = double(int32_t(uint32_t(bits >> 52) + uint32_t(halve)) - 1055);                   // 1023, and 32 for the scale
#ifdef __CUDA_ARCH__
  const double m = __longlong_as_double((long long)(mantissa | ((1023u - halve) << 52)));
#else
  const double m = __builtin_bit_cast(double, mantissa | ((1023u - halve) << 52));
#endif
  const double f = m - 1.0, s = f / (m + 1.0), z = s * s;
  double p = 1.479819860511658591e-01;
  p = fma(p, z, 1.531383769920937332e-01);
  p = fma(p, z, 1.818357216161805012e-01);
  p = fma(p, z, 2.222219843214978396e-01);
  p = fma(p, z, 2.857142874366239149e-01);
  p = fma(p, z, 3.999999999940941908e-01);
  p = fma(p, z, 6.666666666666735130e-01);
  const double half_log = fma(s * z, 0.5 * p, s);
  return -2.0 * fma(e, 0.69314718055994530942, 2.0 * half_log);
}

/// cos and sin of 2 pi b 2^-32. The nearest quarter turn is split off in integers, exactly; the rest is at most pi / 4, where fdlibm's kernels apply.
ATTUNE_HOST_DEVICE void turn(uint32_t b, double* cosine, double* sine) {
  const uint32_t quarter = (b + 0x20000000u) >> 30;
  const double x = double(int32_t(b - (quarter << 30))) * 1.4629180792671596e-9;  // 2 pi 2^-32
  const double z = x * x;
  double s = 1.58969099521155010221e-10;
  s = fma(s, z, -2.50507602534068634195e-08);
  s = fma(s, z, 2.75573137070700676789e-06);
  s = fma(s, z, -1.98412698298579493134e-04);
  s = fma(s, z, 8.33333333332248946124e-03);
  s = fma(s, z, -1.66666666666666324348e-01);
  s = fma(s, x * z, x);
  double c = -1.13596475577881948265e-11;
  c = fma(c, z, 2.08757232129817482790e-09);
  c = fma(c, z, -2.75573143513906633035e-07);
  c = fma(c, z, 2.48015872894767294178e-05);
  c = fma(c, z, -1.38888888888741095749e-03);
  c = fma(c, z, 4.16666666666666019037e-02);
  c = fma(c, z * z, fma(-0.5, z, 1.0));
  const bool swap = quarter & 1u, negative_sine = quarter & 2u, negative_cosine = (quarter + 1u) & 2u;
  const double sin_like = swap ? c : s, cos_like = swap ? s : c;
  *sine = negative_sine ? -sin_like : sin_like;
  *cosine = negative_cosine ? -cos_like : cos_like;
}

/// Two independent normals from two lanes.
ATTUNE_HOST_DEVICE void box_muller(uint32_t a, uint32_t b, double* z0, double* z1) {
  const double radius = sqrt(minus_two_log(a));
  double cosine, sine;
  turn(b, &cosine, &sine);
  *z0 = radius * cosine;
  *z1 = radius * sine;
}

}  // namespace philox
}  // namespace attune
