// Tiles of maps [B, P, C] (P pixels, channels last): a block takes some rows (pixels) of a run of channels, made of vectors of N lanes. Threads keep to one
// vector of channels each, so that what belongs to a channel stays in registers while they go down the rows; consecutive threads are on consecutive vectors.
#pragma once
#include "async_copy.cuh"
#include "block.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

/// body(v) for each vector that this thread takes of `vectors`, with its rows: the first one and the step between them.
template <typename Body>
ATTUNE_DEVICE void for_own_vectors(int vectors, Body&& body) {
  const int columns = vectors < int(blockDim.x) ? vectors : int(blockDim.x), step = int(blockDim.x) / columns, first = int(threadIdx.x) / columns;
  if (first >= step) return;  // threads that no whole row is left for
  ATTUNE_ROLLED
  for (int v = int(threadIdx.x) - first * columns; v < vectors; v += columns) body(v, first, step);
}

/// Rows in shared memory start an odd number of vectors apart, so that eight lanes on consecutive rows of a column meet eight different groups of banks.
ATTUNE_BOTH int tile_pitch(int width, int lanes) { return (width / lanes | 1) * lanes; }

/// Starts copying rows of x, `stride` elements apart, to a tile in shared memory. Wait with copy_wait and a barrier.
template <int N, typename T>
ATTUNE_DEVICE void load_tile(T* tile, const T* x, int64_t stride, int rows, int width) {
  const int pitch = tile_pitch(width, N);
  for_own_vectors(width / N, [&](int v, int first, int step) {
    for (int row = first; row < rows; row += step) {
      if constexpr (N == 1) store(tile + row * pitch + v, load(x + row * stride + v));
      else copy_async16(tile + row * pitch + v * N, x + row * stride + v * N, 16);
    }
  });
  copy_commit();
}

/// sums[column] = sum over the rows of a tile of f(values, v, acc), which adds K numbers per lane to acc: [K][width] numbers of shared memory, complete for
/// every thread on return. `partial`: K * width numbers for each of tile_chunks(vectors). A warp takes a column of vectors, its lanes rows: a fixed order.
ATTUNE_DEVICE int tile_chunks(int vectors) {
  const int warps = int(blockDim.x) / 32;
  return warps > vectors ? warps / vectors : 1;
}
template <int K, int N, typename F>
ATTUNE_DEVICE void column_sums(int width, float* partial, F&& f) {
  const int vectors = width / N, chunks = tile_chunks(vectors), warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  ATTUNE_ROLLED
  for (int pair = warp; pair < vectors * chunks; pair += int(blockDim.x) / 32) {
    const int chunk = pair / vectors, v = pair - chunk * vectors;
    float acc[K][N] = {};
    f(v, chunk * 32 + lane, chunks * 32, acc);
    ATTUNE_UNROLL
    for (int k = 0; k < K; k++) {
      ATTUNE_UNROLL
      for (int i = 0; i < N; i++) acc[k][i] = warp_sum(acc[k][i]);
      if (lane == 0) store_floats(partial + (chunk * K + k) * width + v * N, acc[k]);
    }
  }
  __syncthreads();
}

}  // namespace cuda
}  // namespace attune
