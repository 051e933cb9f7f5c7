// Kernels of the laws that are no planted bugs.
#pragma once
#include "../../cuda/mma.cuh"

namespace attune {
namespace cuda {

/// y[i] = x[i] * factor + y[i]
__global__ void simt_test_axpy(const float* x, float* y, float factor, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) store(y + i, load(x + i) * factor + load(y + i));
}

/// Counts, per thread, how many of CUDA's warp and block functions give something else than their definition does. 64 threads.
__global__ void simt_test_together(int* wrong) {
  ATTUNE_SHARED(memory);
  const int lane = threadIdx.x % 32, value = lane * 7 % 32;
  const auto of = [](int l) { return l * 7 % 32; };
  int bad = 0;
  for (int width : {4, 16, 32}) {
    const int first = lane / width * width, within = lane % width;
    bad += __shfl_sync(0xffffffffu, value, width + 3, width) != of(first + 3 % width);
    bad += __shfl_up_sync(0xffffffffu, value, 3, width) != (within < 3 ? value : of(lane - 3));
    bad += __shfl_down_sync(0xffffffffu, value, 3, width) != (within + 3 >= width ? value : of(lane + 3));
    bad += __shfl_xor_sync(0xffffffffu, value, 5, width) != ((lane ^ 5) >= first + width ? value : of(lane ^ 5));
  }
  bad += __shfl_sync(0xffffffffu, double(value) + 0.25, 9) != double(of(9)) + 0.25;
  bad += __shfl_sync(0xffffffffu, (long long)(value) << 40, 9) != (long long)(of(9)) << 40;
  bad += __ballot_sync(0xffffffffu, lane % 3 == 0) != 0x49249249u;
  bad += __any_sync(0xffffffffu, lane == 31) != 1;
  bad += __any_sync(0xffffffffu, 0) != 0;
  bad += __all_sync(0xffffffffu, 1) != 1;
  bad += __all_sync(0xffffffffu, lane != 4) != 0;
  bad += __reduce_add_sync(0xffffffffu, 1u << lane) != 0xffffffffu;
  bad += __reduce_min_sync(0xffffffffu, lane - 5) != -5;
  bad += __reduce_min_sync(0xffffffffu, unsigned(lane - 5)) != 0u;
  bad += __reduce_max_sync(0xffffffffu, -lane) != 0;
  bad += __reduce_xor_sync(0xffffffffu, unsigned(lane)) != 0u;
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;  // both halves of a warp apart
  bad += __reduce_add_sync(half, 1) != 16;
  bad += __syncthreads_count(threadIdx.x % 4 == 0) != 16;
  bad += (__syncthreads_and(1) != 0) != true;
  bad += (__syncthreads_and(threadIdx.x != 63) != 0) != false;
  bad += (__syncthreads_or(threadIdx.x == 63) != 0) != true;
  bad += (__syncthreads_or(0) != 0) != false;

  // 8 rows of 16 bytes per matrix; element (row, column) is 100 row + column.
  uint16_t* matrix = reinterpret_cast<uint16_t*>(memory);
  for (int i = threadIdx.x; i < 32 * 8; i += blockDim.x) store(matrix + i, uint16_t(i / 8 * 100 + i % 8));
  __syncthreads();
  uint32_t r[4], pair[2];
  ldmatrix_x4(r, matrix + lane * 8);
  const int g = lane / 4, t = lane % 4 * 2;
  for (int m = 0; m < 4; m++) bad += r[m] != uint32_t((m * 8 + g) * 100 + t) + (uint32_t((m * 8 + g) * 100 + t + 1) << 16);
  ldmatrix_x2_trans(pair, matrix + lane % 16 * 8);
  for (int m = 0; m < 2; m++) bad += pair[m] != uint32_t((m * 8 + t) * 100 + g) + (uint32_t((m * 8 + t + 1) * 100 + g) << 16);
  store(wrong + threadIdx.x, bad);
}

/// The same for atomics. cells: 0, 5, 5, 7, 0, 0, 3; one thread.
__global__ void simt_test_atomics(unsigned* cells, int* wrong) {
  int bad = 0;
  bad += atomicAdd(cells, 4u) != 0u || load(cells) != 4u;
  bad += atomicMin(cells + 1, 3u) != 5u || load(cells + 1) != 3u;
  bad += atomicMax(reinterpret_cast<int*>(cells + 2), -1) != 5 || load(cells + 2) != 5u;
  bad += atomicCAS(cells + 3, 6u, 1u) != 7u || load(cells + 3) != 7u;
  bad += atomicCAS(cells + 3, 7u, 1u) != 7u || load(cells + 3) != 1u;
  bad += atomicAdd(reinterpret_cast<float*>(cells + 4), 1.5f) != 0.f || atomicAdd(reinterpret_cast<float*>(cells + 4), 1.f) != 1.5f;
  bad += atomicExch(cells + 5, 9u) != 0u || load(cells + 5) != 9u;
  bad += atomicInc(cells + 6, 3u) != 3u || load(cells + 6) != 0u;
  store(wrong, bad);
}

/// Mistake of its own kind: more stack than a thread has.
__global__ void simt_test_overflow(float* y, int depth) {
  const auto dive = [&](const auto& self, int left) -> float {
    volatile float frame[1024];
    frame[left % 1024] = float(left);
    return left == 0 ? 0.f : self(self, left - 1) + frame[left % 1024];
  };
  store(y, dive(dive, depth));
}

/// Reads column by column what lies row by row: 32 lanes, 32 rows of 32 floats, one bank.
__global__ void simt_test_banks(float* y) {
  ATTUNE_SHARED(memory);
  float* rows = reinterpret_cast<float*>(memory);
  for (int i = threadIdx.x; i < 32 * 32; i += blockDim.x) store(rows + i, float(i));
  __syncthreads();
  store(y + threadIdx.x, load(rows + threadIdx.x * 32));
}

}  // namespace cuda
}  // namespace attune
