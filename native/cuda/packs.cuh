// Eight consecutive elements a thread, moved by 16-byte accesses: how kernels go over flat arenas and over maps whose shape does not matter to them.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

constexpr int kPack = 8, kPackThreads = 256;

struct alignas(16) double_pair {
  double x, y;
};

/// Whether all of a pack can be moved by 16-byte accesses: `count` elements of it lie inside the tensor. A view may begin anywhere.
template <typename T>
ATTUNE_DEVICE bool whole_pack(const T* p, int count) {
  return count == kPack && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

/// v = p[0 .. count), zeros after.
template <typename T>
ATTUNE_DEVICE void load_pack(const T* p, int count, compute_t<T> (&v)[kPack]) {
  if (!whole_pack(p, count)) {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) v[i] = i < count ? to_float(load(p + i)) : compute_t<T>(0);
  } else if constexpr (std::is_same_v<T, bf16>) {
    const uint4 w = load(reinterpret_cast<const uint4*>(p));
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) v[2 * i] = bits_to_float(words[i] << 16), v[2 * i + 1] = bits_to_float(words[i] & 0xffff0000u);
  } else if constexpr (std::is_same_v<T, float>) {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i += 4) {
      const float4 f = load(reinterpret_cast<const float4*>(p + i));
      v[i] = f.x, v[i + 1] = f.y, v[i + 2] = f.z, v[i + 3] = f.w;
    }
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i += 2) {
      const double_pair d = load(reinterpret_cast<const double_pair*>(p + i));
      v[i] = d.x, v[i + 1] = d.y;
    }
  }
}

/// p[0 .. count) = v.
template <typename T>
ATTUNE_DEVICE void store_pack(T* p, int count, const compute_t<T> (&v)[kPack]) {
  if (!whole_pack(p, count)) {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++)
      if (i < count) store(p + i, from_float<T>(v[i]));
  } else if constexpr (std::is_same_v<T, bf16>) {
    store(reinterpret_cast<uint4*>(p), uint4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])});
  } else if constexpr (std::is_same_v<T, float>) {
    store(reinterpret_cast<float4*>(p), float4{v[0], v[1], v[2], v[3]});
    store(reinterpret_cast<float4*>(p + 4), float4{v[4], v[5], v[6], v[7]});
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i += 2) store(reinterpret_cast<double_pair*>(p + i), double_pair{v[i], v[i + 1]});
  }
}

/// A map that is bf16 or f32 as it comes, or f64 where the kernel computes in f64; null: not given.
struct Map {
  const void* data = nullptr;
  bool narrow = false;  // bf16

  Map() = default;
  explicit Map(const TensorRef& t) : data(t.data), narrow(t.dtype == DType::bf16) {}
  ATTUNE_DEVICE explicit operator bool() const { return data != nullptr; }

  template <typename C>
  ATTUNE_DEVICE void pack(int64_t at, int count, C (&v)[kPack]) const {
    if constexpr (std::is_same_v<C, double>) load_pack(static_cast<const double*>(data) + at, count, v);
    else if (narrow) load_pack(static_cast<const bf16*>(data) + at, count, v);
    else load_pack(static_cast<const float*>(data) + at, count, v);
  }
};

/// The pack of this thread in an arena of n elements; a count of 0 or less: none.
struct PackPlace {
  int64_t at;
  int count;
  ATTUNE_DEVICE explicit PackPlace(int64_t n) : at((int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * kPack) { count = int(n - at < kPack ? n - at : kPack); }
};

/// Starts a kernel with one thread a pack.
template <typename... P, typename... A>
void launch_packs(const OpArgs& args, void (*kernel)(P...), int64_t n, A&&... values) {
  launch(args, kernel, dim3(unsigned(ceil_div(n, int64_t(kPack) * kPackThreads))), dim3(kPackThreads), 0, std::forward<A>(values)...);
}

}  // namespace cuda
}  // namespace attune
