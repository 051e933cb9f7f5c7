// dq on sm_90a: a warpgroup owns 64 queries and walks over keys; one product over tokens, ds k, and its queries' statistics in registers.
#pragma once
#include "hopper_attention_backward.cuh"

namespace attune {
namespace cuda {

template <int kDim, HopperPass kPass>
ATTUNE_DEVICE void hopper_queries_consume(const AttentionShape& s, int items, const QueryStatistics* statistics, unsigned char* memory, bf16* dq) {
  using H = HopperBackward<kDim, kPass>;
  constexpr int kWalk = H::kWalk;
  auto* barriers = reinterpret_cast<HopperBackwardBarriers<H>*>(memory + H::kBarriers);
  const int warpgroup = int(threadIdx.x) / 128 - 1, warp = int(threadIdx.x) / 32 % 4;
  const bool speaks = threadIdx.x % 32 == 0;
  HopperRing<H::kOwnedSlots> owned;
  HopperRing<H::kSlots> ring;
  for (int item = int(blockIdx.x); item < items; item += int(gridDim.x), owned.next()) {
    const HopperBackwardItem at = hopper_backward_item<H>(s, item, 1);
    const int first = at.first + warpgroup * 64 + warp * 16;  // this warp's first query
    float dq_rows[H::kColumns / 2], p[kWalk / 2], ds[kWalk / 2];
    uint32_t ds_packed[kWalk / 16][4];
    hopper_clear(dq_rows), hopper_clear(p), hopper_clear(ds);
    QueryStatistics own[2];
    load_statistics<1>(own, statistics + (int64_t(at.sample) * s.heads + at.head) * s.padded_queries(), first, s.queries);
    barrier_wait(barriers->owned_full + owned.slot, owned.parity);
    const unsigned char *queries = memory + owned.slot * 2 * H::kOwnedBytes, *gradients = queries + H::kOwnedBytes;
    int last_slot = 0;
    for (int step = 0; step < at.steps; step++, ring.next()) {
      const unsigned char *keys = memory + H::kWalked + ring.slot * 2 * H::kWalkedBytes, *values = keys + H::kWalkedBytes;
      barrier_wait(barriers->full + ring.slot, ring.parity);
      pin_registers(p), pin_registers(ds);
      wgmma_fence();
      hopper_over_channels<H>(p, queries, warpgroup, keys);
      wgmma_commit();
      hopper_over_channels<H>(ds, gradients, warpgroup, values);
      wgmma_commit();
      wgmma_wait<1>();  // for the scores, and for all that the last slot was read for
      pin_registers(p), pin_registers(dq_rows);
      if (speaks && step > 0) barrier_arrive(barriers->empty + last_slot);
      last_slot = ring.slot;

      float (&logits)[kWalk / 8][1][4] = reinterpret_cast<float (&)[kWalk / 8][1][4]>(p);
      float factor = s.scale * kLog2E;
      if (s.mask || (step + 1) * kWalk > s.visible(first)) {
        make_logits(logits, first, step * kWalk, at.sample, s);
        factor = 1.f;
      }
      ATTUNE_UNROLL
      for (int i = 0; i < kWalk / 2; i++) p[i] = exp2_approx(p[i] * factor - own[i % 4 / 2].lse);
      wgmma_wait<0>();
      pin_registers(ds);
      if (speaks && step + 1 == at.steps) barrier_arrive(barriers->owned_empty + owned.slot);
      ATTUNE_UNROLL
      for (int i = 0; i < kWalk / 2; i++) ds[i] = p[i] * (ds[i] - own[i % 4 / 2].dot);
      hopper_pack<kWalk>(ds_packed, ds);
      pin_registers(ds_packed), pin_registers(dq_rows);
      wgmma_fence();
      hopper_over_tokens<H>(dq_rows, ds_packed, keys);
      wgmma_commit();
    }
    wgmma_wait<0>();
    pin_registers(dq_rows);
    if (speaks) barrier_arrive(barriers->empty + last_slot);
    store_rows<kDim, 1>(dq + s.at(at.sample, at.head, s.queries), reinterpret_cast<const float (&)[kDim / 8][1][4]>(dq_rows), SameFactor<2>(s.scale).of, first,
                        s.queries, s.width, s.dim);
  }
}

/// `kShort`: all keys are one tile.
template <int kDim, bool kShort>
__global__ void __launch_bounds__(384, 1)
    hopper_attention_queries_kernel(const __grid_constant__ HopperBackwardMaps maps, const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dq,
                                    AttentionShape s, int items) {
  if constexpr (kHopper) {
    constexpr HopperPass kPass = kShort ? HopperPass::queries_short : HopperPass::queries;
    using H = HopperBackward<kDim, kPass>;
    ATTUNE_SHARED(memory);
    hopper_backward_barriers<H>(memory);
    if (threadIdx.x < 128) {
      shrink_registers<24>();
      if (threadIdx.x == 0) hopper_backward_produce<H>(maps, s, items, 1, memory);
    } else {
      grow_registers<240>();
      hopper_queries_consume<kDim, kPass>(s, items, statistics, memory, dq);
    }
  }
}

}  // namespace cuda
}  // namespace attune
