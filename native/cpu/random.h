// Draws: element i of the draw (seed, step, stream) is lane i % 4 of Philox block i / 4, so a value depends on nothing but its index.
// `offset` samples are skipped: micro-batches draw the noise of the batch that they are parts of.
#pragma once
#include "../core/philox.h"
#include "parallel.h"
#include "simd.h"

ATTUNE_CPU_BEGIN

/// Philox blocks made at a time; four elements each.
constexpr int64_t kBlocks = 64;

struct Draw {
  philox::Key key;
  uint32_t stream, step;
  uint64_t first;  // index of the tensor's first element

  /// Of a tensor whose samples have `sample` elements, by the slots seed, step and offset.
  Draw(const OpArgs& args, int64_t sample) {
    const auto slot = [&](const char* name) { return uint64_t(args.scalars[args.attrs.integer(name)]); };
    const uint64_t seed = slot("seed");
    key = {uint32_t(seed), uint32_t(seed >> 32)};
    step = uint32_t(slot("step")), stream = uint32_t(args.attrs.integer("stream"));
    first = slot("offset") * uint64_t(sample);
  }

  /// Lanes of blocks [block, block + kBlocks), lane by lane.
  void lanes(uint64_t block, uint32_t (*to)[kBlocks]) const {
    const Draw d = *this;
#pragma omp simd
    for (int64_t i = 0; i < kBlocks; i++) {
      const uint64_t index = block + uint64_t(i);
      const philox::Lanes x = philox::block(uint32_t(index), uint32_t(index >> 32), d.stream, d.step, d.key);
      to[0][i] = x.x[0], to[1][i] = x.x[1], to[2][i] = x.x[2], to[3][i] = x.x[3];
    }
  }

  /// use(at, count, values) for all of [0, n), from make(lanes, values): 4 kBlocks values in element order out of kBlocks blocks.
  template <typename T, typename Make, typename Use>
  void elements(ThreadPool& pool, int64_t n, Make&& make, Use&& use) const {
    const int64_t skip = int64_t(first % 4);
    parallel_ranges(pool, ceil_div(skip + n, 4 * kBlocks), kMathGrain / (4 * kBlocks), [&](int64_t begin, int64_t end) {
      uint32_t lanes_of_part[4][kBlocks];
      T values[4 * kBlocks];
      for (int64_t part = begin; part < end; part++) {
        lanes(first / 4 + uint64_t(part * kBlocks), lanes_of_part);
        make(lanes_of_part, values);
        const int64_t at = part * 4 * kBlocks - skip, from = max_of(0, -at), to = min_of(4 * kBlocks, n - at);
        use(at + from, to - from, values + from);
      }
    });
  }

  /// Standard normals, computed in double and rounded once.
  template <typename T, typename Use>
  void normals(ThreadPool& pool, int64_t n, Use&& use) const {
    const auto make = [](const uint32_t (*x)[kBlocks], T* values) {
#pragma omp simd
      for (int64_t i = 0; i < kBlocks; i++) {
        double z[4];
        philox::box_muller(x[0][i], x[1][i], &z[0], &z[1]);
        philox::box_muller(x[2][i], x[3][i], &z[2], &z[3]);
        values[4 * i] = T(z[0]), values[4 * i + 1] = T(z[1]), values[4 * i + 2] = T(z[2]), values[4 * i + 3] = T(z[3]);
      }
    };
    elements<T>(pool, n, make, use);
  }
};

ATTUNE_CPU_END
