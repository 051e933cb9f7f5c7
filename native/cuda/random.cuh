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

}  // namespace cuda
}  // namespace attune
