// Sixteen bytes at a time: what a thread of a memory-bound kernel moves at once, as numbers to compute with. Addresses are multiples of 16 bytes, which each
// kernel makes sure of (aligned), with a path of single elements beside it: N lanes are a vector of 16 bytes, or 1.
#pragma once
#include "kernel.h"

// A loop that stays one: short, and of a length that only the host knows.
#ifdef __CUDACC__
#define ATTUNE_ROLLED _Pragma("unroll 1")
#else
#define ATTUNE_ROLLED
#endif

namespace attune {
namespace cuda {

/// Elements of 16 bytes.
template <typename T>
constexpr int lanes_of = 16 / int(sizeof(T));

ATTUNE_DEVICE double words_to_double(uint32_t low, uint32_t high) {
#ifdef __CUDACC__
  return __hiloint2double(int(high), int(low));
#else
  return __builtin_bit_cast(double, uint64_t(high) << 32 | low);
#endif
}
ATTUNE_DEVICE uint2 double_to_words(double v) {
#ifdef __CUDACC__
  return make_uint2(uint32_t(__double2loint(v)), uint32_t(__double2hiint(v)));
#else
  const uint64_t bits = __builtin_bit_cast(uint64_t, v);
  return make_uint2(uint32_t(bits), uint32_t(bits >> 32));
#endif
}

ATTUNE_DEVICE void unpack(bf16, uint4 w, float (&v)[8]) {
  const uint32_t words[4] = {w.x, w.y, w.z, w.w};
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[2 * i] = bits_to_float(words[i] << 16), v[2 * i + 1] = bits_to_float(words[i] & 0xffff0000u);
}
ATTUNE_DEVICE void unpack(float, uint4 w, float (&v)[4]) {
  v[0] = bits_to_float(w.x), v[1] = bits_to_float(w.y), v[2] = bits_to_float(w.z), v[3] = bits_to_float(w.w);
}
ATTUNE_DEVICE void unpack(double, uint4 w, double (&v)[2]) { v[0] = words_to_double(w.x, w.y), v[1] = words_to_double(w.z, w.w); }

/// Rounds to the element type: pack(T{}, v).
ATTUNE_DEVICE uint4 pack(bf16, const float (&v)[8]) {
  return make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}
ATTUNE_DEVICE uint4 pack(float, const float (&v)[4]) { return make_uint4(float_to_bits(v[0]), float_to_bits(v[1]), float_to_bits(v[2]), float_to_bits(v[3])); }
ATTUNE_DEVICE uint4 pack(double, const double (&v)[2]) {
  const uint2 a = double_to_words(v[0]), b = double_to_words(v[1]);
  return make_uint4(a.x, a.y, b.x, b.y);
}

/// N elements as they lie in memory: 16 bytes, or one.
template <typename T, int N>
struct Raw {
  static_assert(N == lanes_of<T> || N == 1, "16 bytes, or one element");
  using type = std::conditional_t<N == 1, T, uint4>;
};
template <typename T, int N>
using raw_t = typename Raw<T, N>::type;

template <int N, typename T>
ATTUNE_DEVICE raw_t<T, N> load_raw(const T* p ATTUNE_HERE) {
  return load(reinterpret_cast<const raw_t<T, N>*>(p) ATTUNE_HERE_ARGS);
}
template <typename T, int N>
ATTUNE_DEVICE void widen(raw_t<T, N> raw, compute_t<T> (&v)[N]) {
  if constexpr (N == 1) v[0] = to_float(raw);
  else unpack(T{}, raw, v);
}

/// v = p[0 .. N): one access of 16 bytes, or of one element.
template <int N, typename T>
ATTUNE_DEVICE void load_lanes(const T* p, compute_t<T> (&v)[N] ATTUNE_HERE) {
  widen<T, N>(load_raw<N>(p ATTUNE_HERE_ARGS), v);
}
template <int N, typename T>
ATTUNE_DEVICE void store_lanes(T* p, const compute_t<T> (&v)[N] ATTUNE_HERE) {
  if constexpr (N == 1) store(p, from_float<T>(v[0]) ATTUNE_HERE_ARGS);
  else store(reinterpret_cast<raw_t<T, N>*>(p), pack(T{}, v) ATTUNE_HERE_ARGS);
}

/// N numbers of f32, and of a [C] parameter from channel c on, a multiple of N.
template <int N>
ATTUNE_DEVICE void load_floats(const float* p, float (&v)[N] ATTUNE_HERE) {
  if constexpr (N % 4 != 0) {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) v[i] = load(p + i ATTUNE_HERE_ARGS);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i += 4) {
      const float4 w = load(reinterpret_cast<const float4*>(p + i) ATTUNE_HERE_ARGS);
      v[i] = w.x, v[i + 1] = w.y, v[i + 2] = w.z, v[i + 3] = w.w;
    }
  }
}
template <int N>
ATTUNE_DEVICE void store_floats(float* p, const float (&v)[N] ATTUNE_HERE) {
  if constexpr (N % 4 != 0) {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) store(p + i, v[i] ATTUNE_HERE_ARGS);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i += 4) store(reinterpret_cast<float4*>(p + i), float4{v[i], v[i + 1], v[i + 2], v[i + 3]} ATTUNE_HERE_ARGS);
  }
}
template <int N>
ATTUNE_DEVICE void parameter_lanes(const Parameter& p, int64_t c, float (&v)[N] ATTUNE_HERE) {
  if (!p.narrow) {
    load_floats(static_cast<const float*>(p.data) + c, v ATTUNE_HERE_ARGS);
  } else if constexpr (N == 8) {
    load_lanes<8>(static_cast<const bf16*>(p.data) + c, v ATTUNE_HERE_ARGS);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) v[i] = to_float(load(static_cast<const bf16*>(p.data) + c + i ATTUNE_HERE_ARGS));
  }
}

ATTUNE_DEVICE bool aligned(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15u) == 0; }

/// Blocks for a grid-stride loop: what the work asks for, but no more than fill the device.
inline dim3 grid_of(const OpArgs& args, int64_t blocks, int per_multiprocessor = 8) {
  const int64_t most = int64_t(args.caps().multiprocessors) * per_multiprocessor;
  return dim3(unsigned(blocks < 1 ? 1 : blocks < most ? blocks : most));
}

}  // namespace cuda
}  // namespace attune
