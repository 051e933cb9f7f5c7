// How a block of the product engine brings tiles of a matrix into shared memory: 64 bytes of k (32 bf16, 16 f32) by R rows, in copies of 16 bytes that each
// thread issues for the same places of every tile. What lies outside the operand arrives as zero and adds nothing.
//
// Two forms, after what is contiguous in memory. By depth: [row][64 bytes of k], the four 16-byte chunks of a row permuted by (row / 2) % 4. By rows:
// [k][R elements], each k padded by 16 bytes. Either way eight neighbouring rows (or k) of one chunk lie in different banks, as ldmatrix wants them.
// A chunk is copied whole where the operand begins and ends at whole chunks, in two halves where its sizes are multiples of 8 bytes (a convolution of four
// channels, a LoRA of rank four), and else gathered element by element.
#pragma once
#include "async_copy.cuh"
#include "gemm_plan.h"

namespace attune {
namespace cuda {

template <typename T>
constexpr int kChunk = 16 / int(sizeof(T));  // elements of a copy
template <typename T>
constexpr int kDepth = 64 / int(sizeof(T));  // k of a tile

/// Bytes into a tile by depth.
ATTUNE_DEVICE int depth_offset(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4); }
/// Bytes from one k to the next of a tile by rows.
template <typename T, int R>
constexpr int kPitch = R * int(sizeof(T)) + 16;

/// Along one axis of a window's grid: how many pixels there are, the taps that they see, the first of these, and what tap 0 of pixel 0 sees.
struct Axis {
  int size, taps, first, source;
};
ATTUNE_BOTH Axis axis_of(int grid, int taps, int stride, int padding, int phase, bool gradient) {
  if (!gradient) return {grid, taps, 0, -padding};
  const int first = (phase + padding) % stride;  // the lowest tap with phase + padding - tap divisible by the stride
  return {(grid - phase + stride - 1) / stride, first < taps ? (taps - 1 - first) / stride + 1 : 0, first, (phase + padding - first) / stride};
}

/// One block's part of a problem.
struct Work {
  int m, n, k;        // rows, columns and depth of the matrix, or of the phase; n counts the columns of B's tiles
  int m0, n0, k0;     // where the block begins
  int steps;          // its tiles along k
  int z, split;       // matrix of the batch, or phase of the gradient; part of k
  Axis down, across;  // of a window
  bool gradient;      // z is a phase
};

/// A position in k = (tap_y, tap_x, channel), or a distance along k.
struct Walk {
  int y, x, channel;
  ATTUNE_DEVICE void set(int k, int across, int channels) {
    const int tap = k / channels;
    channel = k - tap * channels, y = tap / (across > 0 ? across : 1), x = tap - y * across;  // a phase may see no taps at all
  }
  ATTUNE_DEVICE void advance(const Walk& by, int across, int channels) {
    channel += by.channel, x += by.x, y += by.y;
    if (channel >= channels) channel -= channels, x++;
    if (x >= across) x -= across, y++;
  }
};

/// Where a piece of a chunk comes from; a piece outside of the operand is zero and not read.
template <typename T>
struct Piece {
  const T* from;
  bool inside;
};
/// Elements of a piece: kCopy is 16 or 8 bytes by cp.async, or 0 for single elements.
template <typename T, int kCopy>
constexpr int kPiece = kCopy == 0 ? 1 : kCopy / int(sizeof(T));

/// Brings a chunk of 16 bytes; place(e) is the piece that begins at its element e, asked for in order.
template <typename T, int kCopy, typename Place>
ATTUNE_DEVICE void bring_chunk(unsigned char* to, Place&& place) {
  if constexpr (kCopy == 16) {
    const Piece<T> piece = place(0);
    copy_async16(to, piece.from, piece.inside ? 16 : 0);
  } else if constexpr (kCopy == 8) {
    ATTUNE_UNROLL
    for (int half = 0; half < 2; half++) {
      const Piece<T> piece = place(half * kPiece<T, 8>);
      copy_async8(to + half * 8, piece.from, piece.inside);
    }
  } else {
    uint32_t word[4] = {};
    ATTUNE_UNROLL
    for (int e = 0; e < kChunk<T>; e++) {
      const Piece<T> piece = place(e);
      const T v = piece.inside ? load(piece.from) : T{};
      if constexpr (std::is_same_v<T, bf16>) word[e / 2] |= uint32_t(v.bits) << (e % 2 * 16);
      else word[e] = float_to_bits(v);
    }
    store(reinterpret_cast<uint4*>(to), make_uint4(word[0], word[1], word[2], word[3]));
  }
}

/// Layout::rows, a tile by depth. As B of a geglu its rows alternate: eight values, then their eight gates.
template <typename T, int R, int kThreads, int kCopy, bool kIsA>
struct RowsTile {
  static constexpr bool kByDepth = true;
  static constexpr int kBytes = R * 64, kApart = kThreads / 4, kCopies = (R + kApart - 1) / kApart;
  const T* at;     // this thread's first chunk of the next tile
  int step;        // elements from one of its rows to the next: gemm_plan() sees to it that this fits
  int left, slot;  // k that lie ahead of the chunk, and its place in a tile
  unsigned rows;   // a bit for each row that exists

  ATTUNE_DEVICE void start(const GemmProblem& p, const GemmPlan&, const Work& w) {
    const int row = threadIdx.x / 4, chunk = threadIdx.x % 4 * kChunk<T>;
    const int64_t ld = kIsA ? p.lda : p.ldb;
    int first = (kIsA ? w.m0 : w.n0) + row, apart = kApart, limit = kIsA ? w.m : w.n;
    int64_t place = first;
    if (!kIsA && p.epilogue.activation == Activation::geglu) {
      first = first / 16 * 8 + first % 8, apart /= 2, limit = int(p.n);
      place = first + (row & 8 ? p.n : 0);
    }
    at = static_cast<const T*>(kIsA ? p.a : p.b) + w.z * (kIsA ? p.a_step : p.b_step) + place * ld + w.k0 + chunk;
    step = apart * int(ld), left = w.k - w.k0 - chunk, slot = depth_offset(row, threadIdx.x % 4);
    rows = 0;
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) rows |= unsigned(first + i * apart < limit) << i;
  }

  ATTUNE_DEVICE void load_to(unsigned char* tile, const GemmProblem&, const GemmPlan&, const Work&) {
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      if (R % kApart != 0 && threadIdx.x / 4 + i * kApart >= R) break;
      unsigned char* to = tile + slot + i * kApart * 64;
      const T* from = at + int64_t(step) * i;
      const bool inside = rows >> i & 1;
      bring_chunk<T, kCopy>(to, [&](int e) { return Piece<T>{from + e, inside && e < left}; });
    }
    at += kDepth<T>, left -= kDepth<T>;
  }
};

/// Layout::columns, a tile by rows: a thread copies chunks of one k. kTaps: B of a conv2d_dx, the weight as it lies: [channel][tap][row].
template <typename T, int R, int kThreads, int kCopy, bool kIsA, bool kTaps>
struct ColumnsTile {
  static constexpr bool kByDepth = false;
  static constexpr int kAcross = kThreads / kDepth<T>, kCopies = (R / kChunk<T> + kAcross - 1) / kAcross, kBytes = kDepth<T> * kPitch<T, R>;
  const T* at;     // this thread's first chunk of the next tile; with taps, of channel 0 of the first tap
  int rows, left;  // rows and k that lie ahead of it
  int slot;
  Walk k;

  ATTUNE_DEVICE void start(const GemmProblem& p, const GemmPlan&, const Work& w) {
    const int row = threadIdx.x / kAcross, column = threadIdx.x % kAcross * kChunk<T>, first = (kIsA ? w.m0 : w.n0) + column;
    slot = row * kPitch<T, R> + column * int(sizeof(T)), rows = (kIsA ? w.m : w.n) - first, left = w.k - w.k0 - row;
    at = static_cast<const T*>(kIsA ? p.a : p.b) + first;
    if constexpr (kTaps) {
      k.set(w.k0 + row, w.across.taps, p.window.channels);
      at += (int64_t(w.down.first) * p.window.kw + w.across.first) * p.n;  // the phase's first tap
    } else at += w.z * (kIsA ? p.a_step : p.b_step) + int64_t(w.k0 + row) * (kIsA ? p.lda : p.ldb);
  }

  ATTUNE_DEVICE void load_to(unsigned char* tile, const GemmProblem& p, const GemmPlan&, const Work& w) {
    const int64_t ld = kIsA ? p.lda : p.ldb;
    const T* from = at;
    if constexpr (kTaps) { from += k.channel * ld + int64_t((k.y * p.window.kw + k.x) * p.window.stride) * p.n; }
    ATTUNE_UNROLL
    for (int i = 0; i < kCopies; i++) {
      constexpr int kApart = kAcross * kChunk<T>;
      if (R % kApart != 0 && int(threadIdx.x) % kAcross * kChunk<T> + i * kApart >= R) break;
      unsigned char* to = tile + slot + i * kApart * int(sizeof(T));
      bring_chunk<T, kCopy>(to, [&](int e) { return Piece<T>{from + i * kApart + e, left > 0 && i * kApart + e < rows}; });
    }
    left -= kDepth<T>;
    if constexpr (kTaps) {
      Walk depth;
      depth.set(kDepth<T>, w.across.taps, p.window.channels);
      k.advance(depth, w.across.taps, p.window.channels);
    } else at += kDepth<T> * ld;
  }
};

}  // namespace cuda
}  // namespace attune
