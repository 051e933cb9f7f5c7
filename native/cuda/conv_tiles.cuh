// Tiles of a channels-last map under the window of a convolution (im2col that is never made): as A of a convolution and of its dx, by depth, a row being a
// pixel of the grid; as B of its dw, by rows, k being the pixel. A chunk of 16 bytes is channels of one tap of one pixel, so any kernel size, stride and
// padding is a matter of addresses: the second map of a concat and the pixels of an enlarged map are chosen here too, and padding arrives as zero.
#pragma once
#include "gemm_tiles.cuh"

namespace attune {
namespace cuda {

/// Row of a pixel that lies outside of every map, however the window moves. Sides of a map are below 2^15.
constexpr int kNowhere = -(1 << 15);

/// The channels from `channel` on, of the map that holds them. Only a forward window reads joined or enlarged maps.
template <typename T>
struct Source {
  const T* data;
  int channels;  // of the map that holds them
  ATTUNE_DEVICE Source(const Window& window, int channel, bool joined) {
    const bool second = joined && channel >= window.channels;
    data = static_cast<const T*>(second ? window.x2 : window.x) + (second ? channel - window.channels : channel);
    channels = second ? window.channels2 : window.channels;
  }
  ATTUNE_DEVICE const T* at(int pixel) const { return data + int64_t(pixel) * channels; }
};

/// Whether a pixel of the map exists as the window sees it, and its place in the map of memory, whose first pixel is `base`.
struct Pixel {
  bool inside;
  int place;
  ATTUNE_DEVICE Pixel(const GemmProblem& p, const GemmPlan& plan, int base, int y, int x, bool enlarged) {
    const int fold = enlarged ? plan.fold : 0;
    inside = unsigned(y) < unsigned(plan.height) && unsigned(x) < unsigned(plan.width);
    place = base + (y >> fold) * p.window.width + (x >> fold);
  }
};

template <typename T, int R, int kThreads, int kCopy, bool kGradient>
struct ImageTile {
  static constexpr bool kByDepth = true;
  static constexpr int kBytes = R * 64, kApart = kThreads / 4, kCopies = (R + kApart - 1) / kApart;
  int base[kCopies], corner[kCopies];  // per row: its sample's first pixel in the map; row (high half) and column of what tap 0 sees
  Walk k;
  int slot;

  ATTUNE_DEVICE void start(const GemmProblem& p, const GemmPlan& plan, const Work& w) {
    const int row = threadIdx.x / 4, every = kGradient ? 1 : p.window.stride;
    slot = depth_offset(row, threadIdx.x % 4);
    k.set(w.k0 + threadIdx.x % 4 * kChunk<T>, w.across.taps, plan.channels);
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      const int m = w.m0 + row + i * kApart, line = m / w.across.size, sample = line / w.down.size;
      base[i] = sample * p.window.height * p.window.width;
      const int y = (line - sample * w.down.size) * every + w.down.source, x = (m - line * w.across.size) * every + w.across.source;
      corner[i] = (m < w.m ? y : kNowhere) * 65536 + (x & 0xffff);
    }
  }

  ATTUNE_DEVICE void load_to(unsigned char* tile, const GemmProblem& p, const GemmPlan& plan, const Work& w) {
    constexpr int direction = kGradient ? -1 : 1;
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      if (R % kApart != 0 && int(threadIdx.x) / 4 + i * kApart >= R) break;
      unsigned char* to = tile + slot + i * kApart * 64;
      Walk each = k;
      bring_chunk<T, kCopy>(to, [&](int) {
        const Pixel pixel(p, plan, base[i], (corner[i] >> 16) + direction * each.y, int16_t(corner[i]) + direction * each.x, !kGradient);
        const Piece<T> piece{Source<T>(p.window, each.channel, !kGradient).at(pixel.place), pixel.inside && each.y < w.down.taps};
        each.advance(Walk{0, 0, kPiece<T, kCopy>}, w.across.taps, plan.channels);
        return piece;
      });
    }
    Walk depth;
    depth.set(kDepth<T>, w.across.taps, plan.channels);
    k.advance(depth, w.across.taps, plan.channels);
  }
};

template <typename T, int R, int kThreads, int kCopy>
struct PatchesTile {
  static constexpr bool kByDepth = false;
  static constexpr int kAcross = kThreads / kDepth<T>, kCopies = (R / kChunk<T> + kAcross - 1) / kAcross, kBytes = kDepth<T> * kPitch<T, R>;
  static constexpr int kApart = kAcross * kChunk<T>;
  Walk tap[kCopies];  // of this thread's chunks
  int sample, y, x;   // its pixel of the grid
  int left, slot;

  ATTUNE_DEVICE void start(const GemmProblem&, const GemmPlan& plan, const Work& w) {
    const int row = threadIdx.x / kAcross, column = threadIdx.x % kAcross * kChunk<T>, line = (w.k0 + row) / w.across.size;
    slot = row * kPitch<T, R> + column * int(sizeof(T)), left = w.k - w.k0 - row;
    sample = line / w.down.size, y = line - sample * w.down.size, x = w.k0 + row - line * w.across.size;
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      const int n = w.n0 + column + i * kApart;
      tap[i].set(n, w.across.taps, plan.channels);
      if (n >= w.n) tap[i].y = kNowhere;
    }
  }

  ATTUNE_DEVICE void load_to(unsigned char* tile, const GemmProblem& p, const GemmPlan& plan, const Work& w) {
    const int base = sample * p.window.height * p.window.width, top = y * p.window.stride + w.down.source, first = x * p.window.stride + w.across.source;
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      if (R % kApart != 0 && int(threadIdx.x) % kAcross * kChunk<T> + i * kApart >= R) break;
      unsigned char* to = tile + slot + i * kApart * int(sizeof(T));
      Walk each = tap[i];
      bring_chunk<T, kCopy>(to, [&](int) {
        const Pixel pixel(p, plan, base, top + each.y, first + each.x, true);
        const Piece<T> piece{Source<T>(p.window, each.channel, true).at(pixel.place), pixel.inside && left > 0 && each.y < w.down.taps};
        each.advance(Walk{0, 0, kPiece<T, kCopy>}, w.across.taps, plan.channels);
        return piece;
      });
    }
    // The same thread's pixel of the next tile.
    left -= kDepth<T>, x += kDepth<T> % w.across.size, y += kDepth<T> / w.across.size % w.down.size, sample += kDepth<T> / w.across.size / w.down.size;
    if (x >= w.across.size) x -= w.across.size, y++;
    if (y >= w.down.size) y -= w.down.size, sample++;
  }
};

}  // namespace cuda
}  // namespace attune
