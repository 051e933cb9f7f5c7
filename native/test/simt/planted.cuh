// Small kernels, each right or with one mistake planted: what the host machines must let pass, and what they must find. Blocks of 64 threads unless it says so.
#pragma once
#include "../../cuda/block.cuh"

namespace attune {
namespace cuda {

// ---- shared memory

/// y is x reversed, through shared memory. Mistake: no barrier between writing and reading.
template <bool kMistake>
__global__ void simt_test_reverse(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  store(row + threadIdx.x, load(x + threadIdx.x));
  if (!kMistake) __syncthreads();
  store(y + threadIdx.x, load(row + (blockDim.x - 1 - threadIdx.x)));
}

/// y[i] is the sum of i, rotated round by round. Mistake: a thread writes the next round's number while its neighbour may still read this round's.
template <bool kMistake>
__global__ void simt_test_rotate(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  float v = load(x + threadIdx.x);
  for (int round = 0; round < 3; round++) {
    store(row + threadIdx.x, v);
    __syncthreads();
    v = load(row + (threadIdx.x + 1) % blockDim.x);
    if (!kMistake) __syncthreads();
  }
  store(y + threadIdx.x, v);
}

/// Pairs of lanes swap numbers through shared memory. Mistake: no __syncwarp.
template <bool kMistake>
__global__ void simt_test_swap_lanes(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  store(row + threadIdx.x, load(x + threadIdx.x));
  if (!kMistake) __syncwarp();
  store(y + threadIdx.x, load(row + (threadIdx.x ^ 1)));
}

/// The same between the lanes of each half of a warp, which synchronise on their own. Mistake: they read the other half's numbers.
template <bool kMistake>
__global__ void simt_test_swap_in_halves(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  store(row + threadIdx.x, load(x + threadIdx.x));
  __syncwarp(threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
  store(y + threadIdx.x, load(row + (threadIdx.x ^ (kMistake ? 16 : 15))));
}

/// Mistake: the last thread's number is never written, yet read.
template <bool kMistake>
__global__ void simt_test_fill(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  if (!kMistake || threadIdx.x + 1 < blockDim.x) store(row + threadIdx.x, load(x + threadIdx.x));
  __syncthreads();
  store(y + threadIdx.x, load(row + (threadIdx.x + 1) % blockDim.x));
}

/// Mistake: one float past the shared memory that the launch asks for.
template <bool kMistake>
__global__ void simt_test_shared_end(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory) + (kMistake ? 1 : 0);
  store(row + threadIdx.x, load(x + threadIdx.x));
  store(y + threadIdx.x, load(row + threadIdx.x));
}

/// Counts numbers above zero in shared memory. Mistake: += instead of an atomic.
template <bool kMistake>
__global__ void simt_test_count(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  int* count = reinterpret_cast<int*>(memory);
  if (threadIdx.x == 0) store(count, 0);
  __syncthreads();
  if (load(x + threadIdx.x) > 0) {
    if (kMistake) store(count, load(count) + 1);
    else atomicAdd(count, 1);
  }
  __syncthreads();
  store(y + threadIdx.x, float(load(count)));
}

// ---- global memory

/// y = x, four numbers at a time. Mistake: from an address that is no multiple of 16.
template <bool kMistake>
__global__ void simt_test_vectors(const float* x, float* y) {
  if (threadIdx.x * 4 + 4 + (kMistake ? 1 : 0) > blockDim.x) return;
  const float4 v = load(reinterpret_cast<const float4*>(x + threadIdx.x * 4 + (kMistake ? 1 : 0)));
  store(reinterpret_cast<float4*>(y + threadIdx.x * 4), v);
}

/// Mistake: the number behind the last.
template <bool kMistake>
__global__ void simt_test_global_end(const float* x, float* y) {
  store(y + threadIdx.x, load(x + threadIdx.x + (kMistake ? 1 : 0)));
}

/// Blocks count into one number. Mistake: += instead of an atomic.
template <bool kMistake>
__global__ void simt_test_count_blocks(const float*, float* y) {
  if (threadIdx.x != 0) return;
  if (kMistake) store(y, load(y) + 1);
  else atomicAdd(y, 1.f);
}

/// Each block writes its own part of y. Mistake: the parts overlap by one number.
template <bool kMistake>
__global__ void simt_test_parts(const float* x, float* y) {
  const unsigned part = blockDim.x - (kMistake ? 1 : 0);
  store(y + blockIdx.x * part + threadIdx.x, load(x + threadIdx.x));
}

/// The block that comes last adds up what all have written. Mistake: no fence before the ticket is drawn.
template <bool kMistake>
__global__ void simt_test_last_block(const float* x, float* y, float* partial, unsigned* ticket) {
  ATTUNE_SHARED(memory);
  float* sums = reinterpret_cast<float*>(memory);
  unsigned* last = reinterpret_cast<unsigned*>(memory + block_bytes<float>());
  const float sum = block_sum(load(x + threadIdx.x), sums);
  if (threadIdx.x == 0) {
    store(partial + blockIdx.x, sum);
    if (!kMistake) __threadfence();
    store(last, atomicAdd(ticket, 1u));
  }
  __syncthreads();
  if (load(last) + 1 != gridDim.x) return;
  if (threadIdx.x < gridDim.x) store(y + threadIdx.x, load(partial + threadIdx.x));
  if (threadIdx.x == 0) store(ticket, 0u);
}

/// y reversed in place, within a block. Mistake: no barrier between reading and writing.
template <bool kMistake>
__global__ void simt_test_reverse_in_place(const float*, float* y) {
  const float v = load(y + (blockDim.x - 1 - threadIdx.x));
  if (!kMistake) __syncthreads();
  store(y + threadIdx.x, v);
}

/// Mistake: scratch memory is read that the kernel has not written.
template <bool kMistake>
__global__ void simt_test_scratch(const float* x, float* y, float* scratch) {
  if (!kMistake || threadIdx.x != 7) store(scratch + threadIdx.x, load(x + threadIdx.x));
  store(y + threadIdx.x, load(scratch + threadIdx.x));
}

// ---- threads that should come together

/// Mistake: half of the warp shuffles at another line.
template <bool kMistake>
__global__ void simt_test_diverge(const float* x, float* y) {
  float v = load(x + threadIdx.x);
  if (kMistake && threadIdx.x % 2) v = __shfl_xor_sync(0xffffffffu, v, 1);
  else v = __shfl_xor_sync(0xffffffffu, v, 1);
  store(y + threadIdx.x, v);
}

/// The lower half of each warp sums up. Mistake: its mask is the upper half's.
template <bool kMistake>
__global__ void simt_test_mask(const float* x, float* y) {
  float v = load(x + threadIdx.x);
  if (threadIdx.x % 32 < 16)
    for (int step = 8; step > 0; step /= 2) v += __shfl_xor_sync(kMistake ? 0xffff0000u : 0x0000ffffu, v, step);
  store(y + threadIdx.x, v);
}

/// Mistake: a shuffle reads a lane that does not take part.
template <bool kMistake>
__global__ void simt_test_absent_lane(const float* x, float* y) {
  float v = load(x + threadIdx.x);
  if (threadIdx.x % 32 < 16) v = __shfl_sync(0x0000ffffu, v, kMistake ? 16 : 15);
  store(y + threadIdx.x, v);
}

/// Mistake: a lane returns before the warp's vote.
template <bool kMistake>
__global__ void simt_test_lane_leaves(const float* x, float* y) {
  if (kMistake && threadIdx.x == 5) return;
  const unsigned positive = __ballot_sync(0xffffffffu, load(x + threadIdx.x) > 0);
  store(y + threadIdx.x, float(__popc(positive)));
}

/// Mistake: a thread returns before the barrier.
template <bool kMistake>
__global__ void simt_test_thread_leaves(const float* x, float* y) {
  if (kMistake && threadIdx.x == 40) return;
  __syncthreads();
  store(y + threadIdx.x, load(x + threadIdx.x));
}

/// Mistake: half of the block waits at another barrier.
template <bool kMistake>
__global__ void simt_test_two_barriers(const float* x, float* y) {
  if (kMistake && threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  store(y + threadIdx.x, load(x + threadIdx.x));
}

}  // namespace cuda
}  // namespace attune
