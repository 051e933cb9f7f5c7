// Vectors of the machine's width, as GCC/Clang vector extensions: Vec<float> has 16 lanes under avx512, 8 under avx2, 4 in generic code.
// Arithmetic is written with plain operators; only partial loads and stores need the instruction set's own words.
#pragma once
#include <utility>

#include "cpu.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

ATTUNE_CPU_BEGIN

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

typedef float VecF __attribute__((vector_size(kVectorBytes)));
typedef double VecD __attribute__((vector_size(kVectorBytes)));
typedef int32_t VecI __attribute__((vector_size(kVectorBytes)));

template <typename T>
struct VecOf;
template <>
struct VecOf<float> {
  using type = VecF;
};
template <>
struct VecOf<double> {
  using type = VecD;
};
template <typename T>
using Vec = typename VecOf<T>::type;

/// Lanes of Vec<T>.
template <typename T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <typename T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <typename T>
inline void store(T* p, const Vec<T>& v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <typename T>
inline Vec<T> splat(T x) {
  return x - Vec<T>{};  // x - 0 is x for every x, -0 included
}

/// The first `count` lanes from p, zero in the others; touches no memory past p + count.
template <typename T>
inline Vec<T> load_part(const T* p, int64_t count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_ps(__mmask16(mask), p);
  else return (Vec<T>)_mm512_maskz_loadu_pd(__mmask8(mask), p);
#else
  T lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < count; i++) lanes[i] = p[i];
  return load<T>(lanes);
#endif
}
/// Writes the first `count` lanes to p and nothing past them.
template <typename T>
inline void store_part(T* p, const Vec<T>& v, int64_t count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, __mmask16(mask), (__m512)v);
  else _mm512_mask_storeu_pd(p, __mmask8(mask), (__m512d)v);
#else
  T lanes[kLanes<T>];
  store<T>(lanes, v);
  for (int64_t i = 0; i < count; i++) p[i] = lanes[i];
#endif
}

/// v with `fill` in all lanes from `count` on.
template <typename T>
inline Vec<T> keep_lanes(const Vec<T>& v, int64_t count, T fill) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1u;
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_mov_ps(_mm512_set1_ps(fill), __mmask16(mask), (__m512)v);
  else return (Vec<T>)_mm512_mask_mov_pd(_mm512_set1_pd(fill), __mmask8(mask), (__m512d)v);
#else
  Vec<T> kept = v;
  for (int64_t i = count; i < kLanes<T>; i++) kept[i] = fill;
  return kept;
#endif
}

/// to[0 .. count) = from[0 .. count), and nothing past it.
template <typename T>
inline void copy_values(T* to, const T* from, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) store<T>(to + i, load<T>(from + i));
  if (i < count) store_part<T>(to + i, load_part<T>(from + i, count - i), count - i);
}
template <typename T>
inline void zero_values(T* to, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) store<T>(to + i, Vec<T>{});
  if (i < count) store_part<T>(to + i, Vec<T>{}, count - i);
}

template <typename T>
inline Vec<T> vec_max(const Vec<T>& a, const Vec<T>& b) {
  return a > b ? a : b;
}

/// Lanes of a and b chosen by function F(lane), where lanes of b count from kLanes.
template <typename T, int (*F)(int), int... I>
inline Vec<T> choose_lanes(const Vec<T>& a, const Vec<T>& b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, F(I)...);
}
template <typename T>
using Lanes = std::make_integer_sequence<int, kLanes<T>>;

template <typename T, int H>
struct Exchange {  // the 2x2 step of a transpose: blocks of H lanes of two rows
  static constexpr int low(int i) { return i & H ? kLanes<T> + i - H : i; }
  static constexpr int high(int i) { return i & H ? kLanes<T> + i : i + H; }
  static constexpr int other(int i) { return i ^ H; }
};
/// Transposes the kLanes x kLanes matrix whose rows are r[0], r[1], ..
template <typename T, int H = kLanes<T> / 2>
inline void transpose_lanes(Vec<T>* r) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; i++)
    if (!(i & H)) {
      const Vec<T> a = r[i], b = r[i + H];
      r[i] = choose_lanes<T, Exchange<T, H>::low>(a, b, Lanes<T>{});
      r[i + H] = choose_lanes<T, Exchange<T, H>::high>(a, b, Lanes<T>{});
    }
  if constexpr (H > 1) transpose_lanes<T, H / 2>(r);
}

template <typename T, int H = kLanes<T> / 2>
inline T lane_sum(const Vec<T>& v) {
  const Vec<T> folded = v + choose_lanes<T, Exchange<T, H>::other>(v, v, Lanes<T>{});
  if constexpr (H > 1) return lane_sum<T, H / 2>(folded);
  else return folded[0];
}
template <typename T, int H = kLanes<T> / 2>
inline T lane_max(const Vec<T>& v) {
  const Vec<T> folded = vec_max<T>(v, choose_lanes<T, Exchange<T, H>::other>(v, v, Lanes<T>{}));
  if constexpr (H > 1) return lane_max<T, H / 2>(folded);
  else return folded[0];
}

/// e^x for x <= 88, within 1 ulp of float; 0 below -87.3 (results that would be denormal, which are slow), so that e^-inf = 0. NaN gives NaN.
/// x = n ln 2 + r, abs(r) <= ln 2 / 2; ln 2 is split in two so that n ln 2 loses nothing; 1 + r + r^2 q(r) with q of degree 4 by minimax fit (3e-9).
inline VecF vec_exp(VecF x) {
  const VecF shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer that then sits in the low mantissa bits
  const VecF t = x * 1.44269504088896341f + shifter;
  const VecF n = t - shifter;
  VecF r = x - n * 0.693145751953125f;
  r = r - n * 1.42860682030941723e-6f;
  VecF p = r * 1.3814539e-3f + 8.368745e-3f;
  p = p * r + 4.166839e-2f;
  p = p * r + 1.6666521e-1f;
  p = p * r + 4.9999994e-1f;
  p = p * (r * r) + r + 1.0f;
  const VecI power = ((VecI)t << 23) + (127 << 23);  // n + 127 as an exponent; the shifter's own bits fall off the top
  const VecF y = p * (VecF)power;
  return x < -87.3f ? VecF{} : y;
}
inline VecD vec_exp(VecD x) {
  for (int i = 0; i < kLanes<double>; i++) x[i] = std::exp(x[i]);
  return x;
}

ATTUNE_CPU_END
