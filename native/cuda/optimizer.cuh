// What kernels over flat arenas share: packs of eight elements moved by 16-byte accesses, and the numbers of an AdamW step. Between its loads and its stores a
// thread waits for nothing, so such a kernel is as fast as memory.
#pragma once
#include <cmath>

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

/// Attributes of an AdamW step: numbers, and the slots of those that change.
struct AdamwAttrs {
  double beta1, beta2, eps, weight_decay;
  int rate, correction1, correction2;

  explicit AdamwAttrs(const Attrs& a)
      : beta1(a.number("beta1")),
        beta2(a.number("beta2")),
        eps(a.number("eps")),
        weight_decay(a.number("weightDecay")),
        rate(int(a.integer("lr"))),
        correction1(int(a.integer("correction1"))),
        correction2(int(a.integer("correction2"))) {}
};

/// The same, ready for use. Quotients are formed in f64: 1 - beta2 would keep 14 bits of f32's 24.
template <typename C>
struct AdamwStep {
  C beta1, rest1, beta2, rest2, eps, keep, step, root, scale;
  bool finite;

  ATTUNE_DEVICE AdamwStep(const AdamwAttrs& a, const double* scalars, const double* grad_scale) {
    const double rate = load(scalars + a.rate);
    beta1 = C(a.beta1), rest1 = C(1.0 - a.beta1), beta2 = C(a.beta2), rest2 = C(1.0 - a.beta2), eps = C(a.eps);
    keep = C(1.0 - rate * a.weight_decay), step = C(rate / load(scalars + a.correction1)), root = C(1.0 / sqrt(load(scalars + a.correction2)));
    scale = grad_scale ? C(load(grad_scale)) : C(1);
    finite = scale - scale == C(0);
  }

  /// torch.optim.AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): the decay multiplies the parameter before the step, eps is added to the corrected root.
  /// Every product that meets a sum does so in an explicit fma, so that all machines agree on the bits.
  ATTUNE_DEVICE void update(C& param, C grad, C& m, C& v) const {
    const C g = grad * scale;
    m = fma(rest1, g, beta1 * m);
    v = fma(rest2 * g, g, beta2 * v);
    param = fma(param, keep, -(step * m / fma(C(sqrt(v)), root, eps)));
  }
};

}  // namespace cuda
}  // namespace attune
