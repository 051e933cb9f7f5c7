// The twins of sm_90a's asynchronous instructions (native/cuda/hopper.cuh): boxes arrive, and warpgroup multiplies read their operands and write their
// accumulators, at any time between issue and wait that ATTUNE_SIMT's copies=late|early|random names. Each warp multiplies its own 16 rows when its turn comes,
// so that warps of a warpgroup drift apart as far as the hardware allows.
#pragma once
#include <initializer_list>

#include "../cuda/tensor_map.h"
#include "simt.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // maps are parameters aligned to 64 bytes: g++ before 4.6 passed them differently

namespace attune {
namespace simt {

/// Reports multiplies that the running thread, which ends, has not waited for.
void end_multiplies();
/// After a block was given up: it may have left multiplies behind, which its successor must not find.
void forget_multiplies();

void load_box(void* to, const cuda::TensorMap* map, uint64_t* barrier, std::initializer_list<int> coordinates, const char* file, int line);

/// One wgmma.mma_async of a thread.
struct Multiply {
  float* d;
  int n;
  uint64_t a, b;                // descriptors
  const uint32_t* a_registers;  // instead of a; the array must stay as it is until the wait
  bool a_mn_major, b_mn_major, accumulate;
};
void issue_multiply(const Multiply& multiply, const char* file, int line);
void commit_multiplies(const char* file, int line);
/// Until at most `left` groups are in flight.
void wait_multiplies(int left, const char* file, int line);

}  // namespace simt
}  // namespace attune
