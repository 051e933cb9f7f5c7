// Sums and maxima over a warp and over a block, in a fixed order: the same bits on every run. All threads of the block take part, and all receive the result.
#pragma once
#include <cmath>

#include "kernel.h"

namespace attune {
namespace cuda {

template <typename C>
ATTUNE_DEVICE C max_of(C a, C b) {
  return a > b ? a : b;
}

template <typename C>
ATTUNE_DEVICE C warp_sum(C v) {
  ATTUNE_UNROLL
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}
template <typename C>
ATTUNE_DEVICE C warp_max(C v) {
  ATTUNE_UNROLL
  for (int step = 16; step > 0; step >>= 1) v = max_of(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

/// Bytes of shared memory that block_sum and block_max use.
template <typename C>
constexpr int block_bytes() {
  return 32 * int(sizeof(C));
}

/// `partial`: 32 numbers of shared memory. Whole warps only. Safe to call again at once: it begins with a barrier.
template <typename C>
ATTUNE_DEVICE C block_sum(C v, C* partial) {
  v = warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) store(partial + threadIdx.x / 32, v);
  __syncthreads();
  C sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; w++) sum += load(partial + w);
  return sum;
}
template <typename C>
ATTUNE_DEVICE C block_max(C v, C* partial) {
  v = warp_max(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) store(partial + threadIdx.x / 32, v);
  __syncthreads();
  C high = load(partial);
  for (unsigned w = 1; w < blockDim.x / 32; w++) high = max_of(high, load(partial + w));
  return high;
}

}  // namespace cuda
}  // namespace attune
