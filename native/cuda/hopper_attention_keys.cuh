// dk and dv on sm_90a: a warpgroup owns 64 keys and values and walks over queries. Its scores stand transposed, so that p^T and ds^T are A operands in the
// registers that made them; statistics of the queries come with their tile.
#pragma once
#include "hopper_attention_backward.cuh"

namespace attune {
namespace cuda {

template <int kDim>
ATTUNE_DEVICE void hopper_keys_consume(const AttentionShape& s, int items, int splits, unsigned char* memory, bf16* dk, bf16* dv, float* parts) {
  using H = HopperBackward<kDim, HopperPass::keys>;
  constexpr int kWalk = H::kWalk;
  auto* barriers = reinterpret_cast<HopperBackwardBarriers<H>*>(memory + H::kBarriers);
  const int warpgroup = int(threadIdx.x) / 128 - 1, warp = int(threadIdx.x) / 32 % 4;
  const bool speaks = threadIdx.x % 32 == 0;  // for its warp
  HopperRing<H::kOwnedSlots> owned;
  HopperRing<H::kSlots> ring;
  for (int item = int(blockIdx.x); item < items; item += int(gridDim.x)) {
    const HopperBackwardItem at = hopper_backward_item<H>(s, item, splits);
    const int first = at.first + warpgroup * 64 + warp * 16;  // this warp's first key
    float dk_rows[H::kColumns / 2], dv_rows[H::kColumns / 2], p[kWalk / 2], ds[kWalk / 2];
    uint32_t p_packed[kWalk / 16][4], ds_packed[kWalk / 16][4];
    hopper_clear(dk_rows), hopper_clear(dv_rows), hopper_clear(p), hopper_clear(ds);
    if (at.steps > 0) barrier_wait(barriers->owned_full + owned.slot, owned.parity);
    const unsigned char *keys = memory + owned.slot * 2 * H::kOwnedBytes, *values = keys + H::kOwnedBytes;
    const auto release = [&](int slot) {
      __syncwarp();  // its lanes have read the statistics
      if (speaks) barrier_arrive(barriers->empty + slot);
    };
    int last_slot = 0;
    for (int step = 0; step < at.steps; step++, ring.next()) {
      const unsigned char *queries = memory + H::kWalked + ring.slot * 2 * H::kWalkedBytes, *gradients = queries + H::kWalkedBytes;
      const QueryStatistics* const statistics =
          reinterpret_cast<const QueryStatistics*>(memory + H::kStatistics + ring.slot * H::kStatisticsBytes) + own_column();
      barrier_wait(barriers->full + ring.slot, ring.parity);
      pin_registers(p), pin_registers(ds);
      wgmma_fence();
      hopper_over_channels<H>(p, keys, warpgroup, queries);
      wgmma_commit();
      hopper_over_channels<H>(ds, values, warpgroup, gradients);
      wgmma_commit();
      wgmma_wait<1>();  // for the scores, and for all that the last slot was read for
      pin_registers(p), pin_registers(dk_rows);
      if (step > 0) release(last_slot);
      last_slot = ring.slot;

      float (&logits)[kWalk / 8][1][4] = reinterpret_cast<float (&)[kWalk / 8][1][4]>(p);
      const int query = (at.begin + step) * kWalk;
      float factor = s.scale * kLog2E;
      if (s.mask || (s.causal && query < first + 15)) {  // a mask, or the diagonal
        make_logits_across(logits, first, query, at.sample, s);
        factor = 1.f;
      }
      ATTUNE_UNROLL
      for (int n = 0; n < kWalk / 8; n++) {
        const float4 of = load(reinterpret_cast<const float4*>(statistics + n * 8));  // {lse, dot} of two columns
        ATTUNE_UNROLL
        for (int i = 0; i < 4; i++) p[n * 4 + i] = exp2_approx(p[n * 4 + i] * factor - (i % 2 ? of.z : of.x));
      }
      wgmma_wait<0>();
      pin_registers(ds);
      if (speaks && step + 1 == at.steps) barrier_arrive(barriers->owned_empty + owned.slot);
      ATTUNE_UNROLL
      for (int n = 0; n < kWalk / 8; n++) {
        const float4 of = load(reinterpret_cast<const float4*>(statistics + n * 8));
        ATTUNE_UNROLL
        for (int i = 0; i < 4; i++) ds[n * 4 + i] = p[n * 4 + i] * (ds[n * 4 + i] - (i % 2 ? of.w : of.y));
      }
      hopper_pack<kWalk>(p_packed, p);
      hopper_pack<kWalk>(ds_packed, ds);
      pin_registers(p_packed), pin_registers(ds_packed), pin_registers(dk_rows), pin_registers(dv_rows);
      wgmma_fence();
      hopper_over_tokens<H>(dv_rows, p_packed, gradients);
      wgmma_commit();
      hopper_over_tokens<H>(dk_rows, ds_packed, queries);
      wgmma_commit();
      wgmma_wait<H::kColumns + kWalk * 5 / 4 <= 208 ? 1 : 0>();  // for dv: p_packed's registers are wanted
      pin_registers(dv_rows);
    }
    wgmma_wait<0>();
    pin_registers(dk_rows);
    if (at.steps > 0) release(last_slot), owned.next();

    const auto rows = [](float (&sums)[H::kColumns / 2]) -> const float (&)[kDim / 8][1][4] { return reinterpret_cast<const float (&)[kDim / 8][1][4]>(sums); };
    const SameFactor<2> scale(s.scale), one(1.f);
    const int64_t to = s.at(at.sample, at.head, s.keys), count = int64_t(s.batch) * s.keys * s.width;
    if (parts) {
      store_rows<kDim, 1>(parts + at.split * count + to, rows(dk_rows), scale.of, first, s.keys, s.width, s.dim);
      store_rows<kDim, 1>(parts + (splits + at.split) * count + to, rows(dv_rows), one.of, first, s.keys, s.width, s.dim);
    } else {
      store_rows<kDim, 1>(dk + to, rows(dk_rows), scale.of, first, s.keys, s.width, s.dim);
      store_rows<kDim, 1>(dv + to, rows(dv_rows), one.of, first, s.keys, s.width, s.dim);
    }
  }
}

/// `parts` null: writes dk and dv. Else each item sees one of `splits` runs of queries and writes f32 to parts [2 (dk, dv), splits, B, M, heads * d].
template <int kDim>
__global__ void __launch_bounds__(384, 1)
    hopper_attention_keys_kernel(const __grid_constant__ HopperBackwardMaps maps, bf16* __restrict__ dk, bf16* __restrict__ dv, float* __restrict__ parts,
                                 AttentionShape s, int items, int splits) {
  if constexpr (kHopper) {
    using H = HopperBackward<kDim, HopperPass::keys>;
    ATTUNE_SHARED(memory);
    hopper_backward_barriers<H>(memory);
    if (threadIdx.x < 128) {
      shrink_registers<24>();
      if (threadIdx.x == 0) hopper_backward_produce<H>(maps, s, items, splits, memory);
    } else {
      grow_registers<240>();
      hopper_keys_consume<kDim>(s, items, splits, memory, dk, dv, parts);
    }
  }
}

}  // namespace cuda
}  // namespace attune
