// Producer and consumers around a ring of slots in shared memory, as Hopper kernels are built: bulk copies that complete on mbarriers, named barriers, operands
// that a warpgroup's multiplies read some time between issue and wait. Right, and with each mistake that such rings invite. For the simt machine alone: most
// instructions are its twins here, without the tensor maps of native/cuda/hopper.cuh.
#pragma once
#include "../../cuda/hopper.cuh"

namespace attune {
namespace cuda {

enum class RingSlip {
  none,
  released_early,      // the slot is handed back before it has been read
  refilled_early,      // the producer does not wait for the slot to be empty
  read_early,          // a consumer does not wait for the bytes
  one_lane_releases,   // lane 0 hands the slot back for its warp, which has not synchronised
  bytes_missing,       // more bytes are expected than are copied
  no_barrier_at_init,  // the barriers are used before everyone knows them
};

constexpr int kRingTile = 64, kRingTiles = 5, kRingSlots = 2;  // floats of a tile

struct RingCopy {
  float* to;
  const float* from;
  int count;
};
inline void land_ring_copy(const simt::BulkArg& arg) {
  RingCopy copy;
  std::memcpy(&copy, &arg, sizeof copy);
  std::memcpy(copy.to, copy.from, size_t(copy.count) * sizeof(float));
}
inline void ring_copy(float* to, const float* from, int count, uint64_t* barrier ATTUNE_HERE) {
  const RingCopy copy{to, from, count};
  simt::BulkArg arg;
  std::memcpy(&arg, &copy, sizeof copy);
  simt::bulk_issue(&land_ring_copy, arg, barrier, uint32_t(count) * 4, to ATTUNE_HERE_ARGS);
}

/// y is x, each tile of 64 reversed. 96 threads: warp 0 copies, warps 1 and 2 read.
template <RingSlip kSlip>
__global__ void simt_test_ring(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* slots = reinterpret_cast<float*>(memory);
  uint64_t* full = reinterpret_cast<uint64_t*>(slots + kRingSlots * kRingTile);
  uint64_t* empty = full + kRingSlots;
  const int thread = threadIdx.x - 32;  // of the consumers
  // Every consumer hands the slot back, but for the slip in question and its right form: there one lane of each warp does.
  const bool by_warp = kSlip == RingSlip::one_lane_releases || kSlip == RingSlip::none;
  if (threadIdx.x == 0)
    for (int s = 0; s < kRingSlots; s++) simt::mbar_init(full + s, 1), simt::mbar_init(empty + s, by_warp ? 2 : 64);
  if (kSlip != RingSlip::no_barrier_at_init) __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int tile = 0; tile < kRingTiles; tile++) {
      const int s = tile % kRingSlots;
      if (tile >= kRingSlots && kSlip != RingSlip::refilled_early) simt::mbar_wait(empty + s, uint32_t(tile / kRingSlots - 1) & 1, __LINE__);
      simt::mbar_arrive(full + s, kRingTile * 4 + (kSlip == RingSlip::bytes_missing && tile == 3 ? 16 : 0));
      ring_copy(slots + s * kRingTile, x + tile * kRingTile, kRingTile, full + s);
    }
    return;
  }
  for (int tile = 0; tile < kRingTiles; tile++) {
    const int s = tile % kRingSlots;
    if (kSlip != RingSlip::read_early || tile != 1) simt::mbar_wait(full + s, uint32_t(tile / kRingSlots) & 1, __LINE__);
    if (kSlip == RingSlip::released_early) simt::mbar_arrive(empty + s, 0);
    const float v = load(slots + s * kRingTile + (kRingTile - 1 - thread));
    if (kSlip == RingSlip::none) __syncwarp();
    if (kSlip != RingSlip::released_early && (!by_warp || thread % 32 == 0)) simt::mbar_arrive(empty + s, 0);
    store(y + tile * kRingTile + thread, v);
  }
}

/// Sums of x by tiles of 64, read as a warpgroup's multiplies read: by lane 0 of each warp at any time until the wait. 64 threads: warp 0 copies, warp 1 reads.
template <bool kMistake>
__global__ void simt_test_operands(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* slots = reinterpret_cast<float*>(memory);
  uint64_t* full = reinterpret_cast<uint64_t*>(slots + kRingSlots * kRingTile);
  uint64_t* empty = full + kRingSlots;
  if (threadIdx.x == 0)
    for (int s = 0; s < kRingSlots; s++) simt::mbar_init(full + s, 1), simt::mbar_init(empty + s, 1);
  __syncthreads();
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    if (lane == 0)
      for (int tile = 0; tile < kRingTiles; tile++) {
        const int s = tile % kRingSlots;
        if (tile >= kRingSlots) simt::mbar_wait(empty + s, uint32_t(tile / kRingSlots - 1) & 1, __LINE__);
        simt::mbar_arrive(full + s, kRingTile * 4);
        ring_copy(slots + s * kRingTile, x + tile * kRingTile, kRingTile, full + s);
      }
    return;
  }
  for (int tile = 0; tile < kRingTiles; tile++) {
    const int s = tile % kRingSlots;
    simt::mbar_wait(full + s, uint32_t(tile / kRingSlots) & 1, __LINE__);
    simt::async_read(slots + s * kRingTile, kRingTile * 4);
    simt::async_read_commit();
    if (!kMistake) simt::async_read_wait(0);  // the mistake: the slot is handed back while the multiplies may still read it
    __syncwarp();
    if (lane == 0) simt::mbar_arrive(empty + s, 0);
    if (kMistake) simt::async_read_wait(0);
    store(y + tile * 32 + lane, float(tile));
  }
}

/// One multiply of ones, 64 x 64 x 16, by a warpgroup: y is 16. The mistake: the threads end without having waited for it.
template <bool kMistake>
__global__ void simt_test_multiply(const float*, float* y) {
  ATTUNE_SHARED(memory);
  for (int i = int(threadIdx.x); i < 4096; i += 128) store(reinterpret_cast<uint32_t*>(memory) + i, 0x3f803f80u);
  async_proxy_fence();
  __syncthreads();
  float d[32] = {};
  wgmma_fence();
  Wgmma<64>::shared<false, false>(d, k_major(memory), k_major(memory + 8192), 0);
  wgmma_commit();
  if (!kMistake) wgmma_wait<0>();
  store(y + threadIdx.x, kMistake ? 16.f : d[threadIdx.x % 32]);
}

enum class NamedSlip { none, no_wait, too_many };

/// Warp 0 writes, warp 1 reads what it wrote, a round at a time: one named barrier says "written", another "read". Mistakes: warp 1 does not wait; the barrier
/// expects a warp that never comes.
template <NamedSlip kSlip>
__global__ void simt_test_named(const float* x, float* y) {
  ATTUNE_SHARED(memory);
  float* row = reinterpret_cast<float*>(memory);
  const int lane = threadIdx.x % 32, expected = kSlip == NamedSlip::too_many ? 96 : 64;
  for (int round = 0; round < 2; round++) {
    if (threadIdx.x < 32) {
      if (round > 0) simt::sync_named(2, 64, __FILE__, __LINE__);
      store(row + lane, load(x + round * 32 + lane));
      simt::arrive_named(1, expected, __FILE__, __LINE__);
    } else if (threadIdx.x < 64) {
      if (kSlip == NamedSlip::no_wait) simt::arrive_named(1, expected, __FILE__, __LINE__);
      else simt::sync_named(1, expected, __FILE__, __LINE__);
      store(y + round * 32 + lane, load(row + (31 - lane)));
      if (round == 0) simt::arrive_named(2, 64, __FILE__, __LINE__);
    }
  }
}

}  // namespace cuda
}  // namespace attune
