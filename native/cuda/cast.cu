// cast between f64, f32, bf16, f16 and i32, rounded to nearest even once. Two kernels: between bf16, f16 and f32 a number passes through f32, which holds all
// of them; where f64 or i32 takes part it passes through f64, and goes to 16 bits through an f32 rounded to odd. The pair is switched on once per eight
// elements, the same way in every thread. Bytes moved: each element once in and once out.
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kCastThreads = 256, kCastLanes = 4;

ATTUNE_DEVICE float half_to_float(uint32_t bits) {
  const uint32_t magnitude = (bits & 0x7fffu) << 13;
  const float scaled = bits_to_float(magnitude) * 5.192296858534828e33f;  // 2^112: moves the exponent bias, denormals included
  const uint32_t special = float_to_bits(scaled) | (magnitude >= 0x0f800000u ? 0x7f800000u : 0u);
  return bits_to_float((bits & 0x8000u) << 16 | special);
}
ATTUNE_DEVICE uint32_t float_to_half(float x) {
  const uint32_t b = float_to_bits(x), sign = b >> 16 & 0x8000u, magnitude = b & 0x7fffffffu;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t denormal = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;  // the addition rounds to multiples of 2^-24
  uint32_t y = magnitude < 0x38800000u ? denormal : normal;
  y = magnitude >= 0x47800000u ? 0x7c00u : y;  // 65520 and more round up to this by themselves
  y = magnitude > 0x7f800000u ? 0x7e00u : y;
  return sign | y;
}
/// The float next to x towards zero with its last bit set if anything was lost: rounding that to 16 bits equals rounding x to 16 bits.
ATTUNE_DEVICE float to_odd(double x) {
  const float near = float(x);
  const double back = double(near);
  const bool away = fabs(back) > fabs(x), inexact = back != x && x == x;
  return bits_to_float((float_to_bits(near) - (away ? 1u : 0u)) | (inexact ? 1u : 0u));
}
ATTUNE_DEVICE float to_odd(float x) { return x; }
/// Saturates; NaN gives 0.
ATTUNE_DEVICE int32_t to_integer(double x) {
  double c = x < -2147483648.0 ? -2147483648.0 : x;
  c = c > 2147483647.0 ? 2147483647.0 : c;
  return c == c ? int32_t(rint(c)) : 0;
}

/// One element of dtype t as C.
template <typename C>
ATTUNE_DEVICE C cast_load(DType t, const void* p, int64_t i) {
  if (t == DType::bf16) return C(to_float(load(static_cast<const bf16*>(p) + i)));
  if (t == DType::f16) return C(half_to_float(load(static_cast<const f16*>(p) + i).bits));
  if constexpr (std::is_same_v<C, double>) {
    if (t == DType::f64) return load(static_cast<const double*>(p) + i);
    if (t == DType::i32) return C(load(static_cast<const int32_t*>(p) + i));
  }
  return C(load(static_cast<const float*>(p) + i));
}
template <typename C>
ATTUNE_DEVICE void cast_store(DType t, void* p, int64_t i, C v) {
  if (t == DType::bf16) return store(static_cast<bf16*>(p) + i, from_float<bf16>(to_odd(v)));
  if (t == DType::f16) return store(static_cast<f16*>(p) + i, f16{uint16_t(float_to_half(to_odd(v)))});
  if constexpr (std::is_same_v<C, double>) {
    if (t == DType::f64) return store(static_cast<double*>(p) + i, v);
    if (t == DType::i32) return store(static_cast<int32_t*>(p) + i, to_integer(v));
  }
  store(static_cast<float*>(p) + i, float(v));
}

/// Four elements from i on, a multiple of four.
template <typename C>
ATTUNE_DEVICE void cast_load_vectors(DType t, const void* p, int64_t i, C (&v)[kCastLanes]) {
  const char* at = static_cast<const char*>(p);
  if (t == DType::bf16 || t == DType::f16) {
    const uint2 w = load(reinterpret_cast<const uint2*>(at + 2 * i));
    const uint32_t words[2] = {w.x, w.y};
    ATTUNE_UNROLL
    for (int k = 0; k < kCastLanes; k++) {
      const uint32_t bits = k % 2 ? words[k / 2] >> 16 : words[k / 2] & 0xffffu;
      v[k] = C(t == DType::bf16 ? bits_to_float(bits << 16) : half_to_float(bits));
    }
    return;
  }
  if constexpr (std::is_same_v<C, double>) {
    if (t == DType::f64) {
      ATTUNE_UNROLL
      for (int k = 0; k < kCastLanes; k += 2) {
        const uint4 w = load(reinterpret_cast<const uint4*>(at + 8 * (i + k)));
        v[k] = words_to_double(w.x, w.y), v[k + 1] = words_to_double(w.z, w.w);
      }
      return;
    }
  }
  const uint4 w = load(reinterpret_cast<const uint4*>(at + 4 * i));
  const uint32_t words[4] = {w.x, w.y, w.z, w.w};
  ATTUNE_UNROLL
  for (int k = 0; k < kCastLanes; k++) v[k] = t == DType::i32 ? C(int32_t(words[k])) : C(bits_to_float(words[k]));
}
template <typename C>
ATTUNE_DEVICE void cast_store_vectors(DType t, void* p, int64_t i, const C (&v)[kCastLanes]) {
  char* at = static_cast<char*>(p);
  if (t == DType::bf16 || t == DType::f16) {
    uint32_t words[2];
    ATTUNE_UNROLL
    for (int k = 0; k < kCastLanes; k += 2) {
      const float low = to_odd(v[k]), high = to_odd(v[k + 1]);
      words[k / 2] = t == DType::bf16 ? pack_bf16(low, high) : float_to_half(low) | float_to_half(high) << 16;
    }
    return store(reinterpret_cast<uint2*>(at + 2 * i), make_uint2(words[0], words[1]));
  }
  if constexpr (std::is_same_v<C, double>) {
    if (t == DType::f64) {
      ATTUNE_UNROLL
      for (int k = 0; k < kCastLanes; k += 2) store(reinterpret_cast<uint4*>(at + 8 * (i + k)), pack(double{}, {v[k], v[k + 1]}));
      return;
    }
  }
  uint32_t words[4];
  ATTUNE_UNROLL
  for (int k = 0; k < kCastLanes; k++) words[k] = t == DType::i32 ? uint32_t(to_integer(v[k])) : float_to_bits(float(v[k]));
  store(reinterpret_cast<uint4*>(at + 4 * i), make_uint4(words[0], words[1], words[2], words[3]));
}

template <typename C>
__global__ void __launch_bounds__(kCastThreads) cast_kernel(DType from, DType to, const void* __restrict__ x, void* __restrict__ y, int64_t n) {
  const int64_t vectors = aligned(x) && aligned(y) ? n / kCastLanes : 0, threads = int64_t(gridDim.x) * kCastThreads;
  const int64_t first = int64_t(blockIdx.x) * kCastThreads + threadIdx.x;
  for (int64_t i = first; i < vectors; i += threads) {
    C v[kCastLanes];
    cast_load_vectors(from, x, i * kCastLanes, v);
    cast_store_vectors(to, y, i * kCastLanes, v);
  }
  for (int64_t i = vectors * kCastLanes + first; i < n; i += threads) cast_store(to, y, i, cast_load<C>(from, x, i));
}

void cast_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  for (const DType t : {x.dtype, y.dtype})
    if (t == DType::u8) throw Error("ERR_PROGRAM", std::string("cast: expected f64, f32, bf16, f16 or i32, received ") + dtype_name(t));
  const int64_t n = y.numel();
  const auto start = [&](auto kernel) {
    launch(args, kernel, grid_of(args, ceil_div(n, kCastThreads * kCastLanes)), dim3(kCastThreads), 0, x.dtype, y.dtype, x.data, y.data, n);
  };
  const auto narrow = [](DType t) { return t == DType::bf16 || t == DType::f16 || t == DType::f32; };
  if (narrow(x.dtype) && narrow(y.dtype)) start(cast_kernel<float>);
  else start(cast_kernel<double>);
}

REGISTER_CUDA(cast, cast_op)

}  // namespace cuda
}  // namespace attune
