// y [M, N] = a [M, K] b [N, K]^T in bf16 with f32 accumulators: a ring of kStages k-tiles filled by cp.async, ldmatrix, warp tiles of mma.sync. The pipeline of
// the library's own kernels at its smallest, in a correct form and with the mistakes that such pipelines invite.
#pragma once
#include "../../cuda/mma.cuh"

namespace attune {
namespace cuda {

enum class Slip {
  none,
  no_barrier_before,  // a k-tile is read before other threads' copies have been waited for
  no_barrier_after,   // a slot is filled again while other warps still read it (kRefill)
  short_wait,         // one group of copies too few is waited for
  row_too_many,       // the loader of b reads row N
};

constexpr int kTestDepth = 32;  // of a k-tile

/// Byte offset of a 16-byte chunk in a tile of 64-byte rows, swizzled so that ldmatrix meets no bank twice.
ATTUNE_DEVICE int chunk_at(int row, int chunk) { return row * kTestDepth * 2 + ((chunk ^ (row / 2 % 4)) << 4); }

/// kRefill: the slot just read is the next to be filled, which takes a second barrier; else the one read a tile ago is, and one barrier does for both.
template <Slip kSlip, bool kRefill, int kRows, int kColumns, int kWarpRows, int kWarpColumns, int kStages>
__global__ void __launch_bounds__(kRows / kWarpRows * (kColumns / kWarpColumns) * 32)
    simt_test_gemm(const bf16* __restrict__ a, const bf16* __restrict__ b, bf16* __restrict__ y, int m, int n, int k) {
  constexpr int kThreads = kRows / kWarpRows * (kColumns / kWarpColumns) * 32, kM = kWarpRows / 16, kN = kWarpColumns / 8, kChunks = kTestDepth / 8,
                kAhead = kRefill ? kStages : kStages - 1;
  constexpr int kBytesA = kRows * kTestDepth * 2, kStage = kBytesA + kColumns * kTestDepth * 2;
  ATTUNE_SHARED(memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / (kColumns / kWarpColumns) * kWarpRows, warp_column = warp % (kColumns / kWarpColumns) * kWarpColumns;
  const int row0 = blockIdx.y * kRows, column0 = blockIdx.x * kColumns, tiles = (k + kTestDepth - 1) / kTestDepth;

  const auto fetch = [&](unsigned char* to, const bf16* from, int rows, int first, int limit, int tile) {
    for (int i = thread; i < rows * kChunks; i += kThreads) {
      const int row = i / kChunks, chunk = i % kChunks, column = tile * kTestDepth + chunk * 8;
      const bool inside = first + row < limit && column < k;
      copy_async16(to + chunk_at(row, chunk), inside ? from + int64_t(first + row) * k + column : from, inside ? min(k - column, 8) * 2 : 0);
    }
  };
  const auto fetch_tile = [&](int tile) {
    unsigned char* stage = memory + tile % kStages * kStage;
    fetch(stage, a, kRows, row0, m, tile);
    fetch(stage + kBytesA, b, kColumns, column0, kSlip == Slip::row_too_many ? n + 1 : n, tile);
  };

  float sum[kM][kN][4] = {};
  for (int tile = 0; tile < kAhead; tile++) {
    if (tile < tiles) fetch_tile(tile);
    copy_commit();
  }
  for (int tile = 0; tile < tiles; tile++) {
    copy_wait<kSlip == Slip::short_wait ? kAhead : kAhead - 1>();
    if (kSlip != Slip::no_barrier_before) __syncthreads();
    const unsigned char* stage = memory + tile % kStages * kStage;
    for (int step = 0; step < kTestDepth / 16; step++) {
      uint32_t fragment_a[kM][4], fragment_b[kN][2];
      for (int i = 0; i < kM; i++) ldmatrix_x4(fragment_a[i], stage + chunk_at(warp_row + i * 16 + lane % 16, step * 2 + lane / 16));
      for (int j = 0; j < kN; j += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, stage + kBytesA + chunk_at(warp_column + j * 8 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
        fragment_b[j][0] = r[0], fragment_b[j][1] = r[1], fragment_b[j + 1][0] = r[2], fragment_b[j + 1][1] = r[3];
      }
      mma_tile(sum, fragment_a, fragment_b);
    }
    if (kRefill && kSlip != Slip::no_barrier_after) __syncthreads();
    if (tile + kAhead < tiles) fetch_tile(tile + kAhead);
    copy_commit();
  }
  copy_wait<0>();
  for (int i = 0; i < kM; i++)
    for (int j = 0; j < kN; j++)
      for (int half = 0; half < 2; half++) {
        const int row = row0 + warp_row + i * 16 + lane / 4 + half * 8, column = column0 + warp_column + j * 8 + lane % 4 * 2;
        for (int c = 0; c < 2; c++)
          if (row < m && column + c < n) store(y + int64_t(row) * n + column + c, from_float<bf16>(sum[i][j][half * 2 + c]));
      }
}

}  // namespace cuda
}  // namespace attune
