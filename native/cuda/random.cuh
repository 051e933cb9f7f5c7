// Draws on the device: element i of the draw (seed, step, stream) is lane i % 4 of Philox block i / 4 (native/core/philox.h), so a value depends on nothing but
// its index, and every kernel that needs a noise again makes it again. Normals are computed in f64 by our own polynomials: the same bits as on the host.
#pragma once
#include "../core/philox.h"
#include "kernel.h"

namespace attune {
namespace cuda {

/// A draw as the host knows it: the slots of seed, step and sample offset, and how many elements a sample has.
struct DrawSlots {
  int seed, step, offset;
  uint32_t stream;
  int64_t sample;

  explicit DrawSlots(const Attrs& a, int64_t sample)
      : seed(int(a.integer("seed"))), step(int(a.integer("step"))), offset(int(a.integer("offset"))), stream(uint32_t(a.integer("stream"))), sample(sample) {}
  DrawSlots() = default;
};

/// The same with this step's numbers.
struct Draw {
  philox::Key key;
  uint32_t stream, step;
  int64_t first;  // index of the tensor's first element

  ATTUNE_DEVICE Draw(const DrawSlots& slots, const double* scalars) {
    const uint64_t seed = uint64_t(load(scalars + slots.seed));
    key = {uint32_t(seed), uint32_t(seed >> 32)};
    step = uint32_t(load(scalars + slots.step)), stream = slots.stream;
    first = int64_t(load(scalars + slots.offset)) * slots.sample;
  }

  /// The four words of elements 4 block .. 4 block + 3, counted from the start of the draw.
  ATTUNE_DEVICE philox::Lanes words(int64_t block) const { return philox::block(uint32_t(block), uint32_t(uint64_t(block) >> 32), stream, step, key); }
  ATTUNE_DEVICE void normals(int64_t block, double (&z)[4]) const {
    const philox::Lanes x = words(block);
    philox::box_muller(x.x[0], x.x[1], &z[0], &z[1]);
    philox::box_muller(x.x[2], x.x[3], &z[2], &z[3]);
  }
};

/// The Philox block of this thread, and the place of its first element in the tensor: up to 3 before it, where the draw begins inside a block.
struct DrawPlace {
  int64_t block, at;
  ATTUNE_DEVICE explicit DrawPlace(const Draw& draw) {
    const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    block = draw.first / 4 + index, at = index * 4 - draw.first % 4;
  }
};

/// Threads for n elements wherever in a block the draw begins.
inline dim3 draw_grid(int64_t n) { return dim3(unsigned(ceil_div(ceil_div(n + 3, 4), 256))); }

/// Four elements as they lie in memory, moved at once.
template <typename T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T v[4];
};

/// Whether elements [at, at + 4) lie in [0, n) and can be moved at once.
template <typename T>
ATTUNE_DEVICE bool whole_four(const T* p, int64_t at, int64_t n) {
  return sizeof(T) <= 4 && at >= 0 && at + 4 <= n && reinterpret_cast<uintptr_t>(p + at) % alignof(Four<T>) == 0;
}

/// y[at .. at + 4) = v, as far as it lies in [0, n).
template <typename T>
ATTUNE_DEVICE void store_four(T* y, int64_t at, int64_t n, const T (&v)[4]) {
  if (whole_four(y, at, n)) {
    if constexpr (sizeof(T) <= 4) store(reinterpret_cast<Four<T>*>(y + at), Four<T>{{v[0], v[1], v[2], v[3]}});
    return;
  }
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++)
    if (at + i >= 0 && at + i < n) store(y + at + i, v[i]);
}

/// The same elements read; 0 outside of [0, n).
template <typename T>
ATTUNE_DEVICE void load_four(const T* x, int64_t at, int64_t n, compute_t<T> (&v)[4]) {
  if (whole_four(x, at, n)) {
    if constexpr (sizeof(T) <= 4) {
      const Four<T> four = load(reinterpret_cast<const Four<T>*>(x + at));
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) v[i] = to_float(four.v[i]);
    }
    return;
  }
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[i] = at + i >= 0 && at + i < n ? to_float(load(x + at + i)) : compute_t<T>(0);
}

}  // namespace cuda
}  // namespace attune
