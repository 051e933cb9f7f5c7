// Statistics of an output for the group norm that follows: mean and M2 (sum of squared differences from that mean) over 128 rows and one group's channels.
// Each part shifts by one of its own values, so that squares of small numbers are summed, and parts are merged by Chan's rule in a fixed order.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

struct alignas(8) Moments {
  float mean = 0, m2 = 0;
  /// Adds a part of `count` values to one of `before`.
  ATTUNE_DEVICE void merge(const Moments& part, float before, float count) {
    const float delta = part.mean - mean, share = count / (before + count);
    mean += delta * share, m2 += part.m2 + delta * delta * before * share;
  }
};

/// From sum d and sum d^2 of d = value - shift.
ATTUNE_DEVICE Moments moments_of(float shift, float sum, float squares, float count) {
  const float m2 = squares - sum * sum / count;
  return {shift + sum / count, m2 > 0.f ? m2 : 0.f};
}

/// How the lanes of a warp share the groups of a strip of 16 rows: `lanes` to a group, each with every lanes-th row.
struct StripGroups {
  int channels, count, lanes;
  ATTUNE_DEVICE StripGroups(int width, int channels) : channels(channels), count(width / channels), lanes(1) {
    while (lanes < 16 && lanes * 2 * count <= 32) lanes *= 2;
  }
  ATTUNE_DEVICE int group() const { return threadIdx.x % 32 / lanes; }
};

/// Of a strip of 16 rows, whole groups wide, for this lane's group. All lanes take part.
ATTUNE_DEVICE Moments strip_moments(const float* strip, int pitch, const StripGroups& groups) {
  const bool active = groups.group() < groups.count;
  const float* first = strip + (active ? groups.group() * groups.channels : 0);
  const float shift = load(first);
  float sum = 0, squares = 0;
  for (int row = threadIdx.x % groups.lanes; active && row < 16; row += groups.lanes)
    for (int c = 0; c < groups.channels; c++) {
      const float d = load(first + row * pitch + c) - shift;
      sum += d, squares += d * d;
    }
  for (int step = groups.lanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  }
  return moments_of(shift, sum, squares, float(16 * groups.channels));
}

}  // namespace cuda
}  // namespace attune
