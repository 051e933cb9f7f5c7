// What group normalisation and its gradient share: how maps [B, P, C] with groups of C / groups channels are cut into tiles. A tile is whole groups and whole
// vectors of lanes, so that a block knows its groups' sums without asking another one.
#pragma once
#include <algorithm>
#include <numeric>

#include "tile.cuh"

namespace attune {
namespace cuda {

/// Pixels of a slab, over which moments are taken before they are merged; what conv2d_fused writes too.
constexpr int kSlab = 128;

struct GroupPlan {
  int64_t batch, pixels;
  int channels, groups, size;  // size: channels of a group
  int lanes;                   // elements of 16 bytes, or 1 if channels are not made of them
  int unit;                    // the least tile

  GroupPlan(const OpArgs& args, const TensorRef& x)
      : batch(x.dims[0]), channels(int(x.dim(-1))), groups(int(args.attrs.integer("groups"))), size(channels / groups), lanes(16 / int(dtype_size(x.dtype))) {
    pixels = x.numel() / (batch * channels);
    if (channels % lanes != 0) lanes = 1;
    unit = std::lcm(size, lanes);
  }
  /// The widest tile that `fits` while there are `blocks` at least; else unit.
  template <typename Fits>
  int widest(int64_t samples, int64_t blocks, Fits&& fits) const {
    int best = unit;
    for (int width = unit; width <= channels; width += unit)
      if (channels % width == 0 && fits(width) && samples * (channels / width) >= blocks) best = width;
    return best;
  }
  /// The narrowest tile of `channels_wanted` or more: rows of whole sectors.
  int narrowest(int channels_wanted) const {
    int width = unit;
    while (width < channels && (width < channels_wanted || channels % width != 0)) width += unit;
    return width;
  }
  /// Pixels that a block takes of a kernel that goes over all of them once: a multiple of `step`, such that blocks fill the device about once.
  int64_t chunk(const OpArgs& args, int64_t tiles, int step) const {
    const int64_t each = ceil_div(pixels * tiles * batch, int64_t(args.caps().multiprocessors) * 8);
    return ceil_div(each, step) * step;
  }
  int64_t slabs() const { return ceil_div(pixels, kSlab); }
};

/// Threads for `vectors` of work: four or more each.
inline int tile_threads(int64_t vectors, int most) { return int(std::min<int64_t>(most, std::max<int64_t>(64, vectors / 128 * 32))); }

/// Runs body(T{}, lanes) with lanes a constant: 16 bytes of T, or 1.
template <typename Body>
void with_lanes(DType t, int lanes, Body&& body) {
  dispatch(t, [&](auto tag) {
    if (lanes > 1) body(tag, std::integral_constant<int, lanes_of<decltype(tag)>>{});
    else body(tag, std::integral_constant<int, 1>{});
  });
}

}  // namespace cuda
}  // namespace attune
