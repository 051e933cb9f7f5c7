// Attention backward on sm_90a, bf16, in the two passes of attention_backward.cuh: one for dk and dv, which walks over queries, and one for dq, which walks
// over keys. Seven products in place of five, and every probability twice; in return every sum is made by one warp in a fixed order, and dq needs no memory
// that blocks share.
//
// A thread block is one thread that fetches tiles with the copy engine and two warpgroups of 64 owned tokens each: keys and values, or queries and dy. Scores
// stand with owned tokens down and walked ones across in both passes, so that probabilities and ds become A registers where they were made, and a tile in
// shared memory is read both ways: K-major over channels, and N-major over tokens. Hence a tile is boxes of one swizzle span, the widest that divides the head.
//
// A warpgroup turns scores into probabilities while dp is multiplied, and starts the next tile's scores while the last one's gradients are; the other
// warpgroup's products run beside its exponentials. Blocks are persistent: the next owned tiles arrive while the last gradients are stored.
//
// What could go wrong: a slot is read until the second product over tokens has ended, one tile later than it seems; registers that wgmma reads or writes must
// stay as they are until the wait; and walked rows past the end are zeros, so their statistics must make their probabilities zero.
#pragma once
#include "attention_backward.cuh"
#include "hopper.cuh"

namespace attune {
namespace cuda {

/// Which pass, and over how many walked tokens per tile. Registers bound them: a thread holds a column of accumulators per 2 channels of each gradient, of
/// scores and of dp per 2 walked tokens, and packs p or ds into a fourth of that. Few keys (a prompt's 77) are one walked tile.
enum class HopperPass { keys, queries, queries_short };
constexpr int kHopperShort = 80;
constexpr int hopper_walk(int dim, HopperPass pass) {
  return pass == HopperPass::queries_short ? kHopperShort : dim <= 80 ? 128 : dim <= 128 ? 64 : pass == HopperPass::keys ? 32 : 64;
}

template <int kDim, HopperPass kPass>
struct HopperBackward {
  static constexpr bool kKeys = kPass == HopperPass::keys;
  static constexpr int kOwned = 128, kWalk = hopper_walk(kDim, kPass);
  static constexpr int kColumns = (kDim + 15) / 16 * 16;
  static constexpr Swizzle kSwizzle = kColumns % 64 == 0 ? Swizzle::span128 : kColumns % 32 == 0 ? Swizzle::span64 : Swizzle::span32;
  static constexpr int kSpan = swizzle_span(kSwizzle), kBoxes = kColumns * 2 / kSpan;
  static constexpr int kOwnedBytes = kOwned * kColumns * 2, kWalkedBytes = kWalk * kColumns * 2;  // of a tile
  static constexpr int kStatisticsBytes = kKeys ? kWalk * int(sizeof(QueryStatistics)) : 0, kSlotBytes = 2 * kWalkedBytes + kStatisticsBytes;
  // Slots of two owned tiles, slots of two walked tiles, statistics of each of the latter, barriers.
  static constexpr int kRoom = 227 * 1024 - 128, kOwnedSlots = kRoom - 4 * kOwnedBytes >= 2 * kSlotBytes ? 2 : 1;
  static constexpr int kFit = (kRoom - kOwnedSlots * 2 * kOwnedBytes) / kSlotBytes, kSlots = kFit < 4 ? kFit : 4;
  static constexpr int kWalked = kOwnedSlots * 2 * kOwnedBytes, kStatistics = kWalked + kSlots * 2 * kWalkedBytes;
  static constexpr int kBarriers = kStatistics + kSlots * kStatisticsBytes, kShared = kBarriers + 2 * (kOwnedSlots + kSlots) * int(sizeof(uint64_t));
  static_assert(kOwnedBytes % 1024 == 0 && kWalkedBytes % (8 * kSpan) == 0 && kStatisticsBytes % 128 == 0, "tiles keep the swizzle's alignment");
  static_assert(kSlots >= 2 && kShared <= 227 * 1024 && (!kKeys || kStatisticsUnit % kWalk == 0), "tiles fit, and have all their statistics");
};

struct HopperBackwardMaps {
  TensorMap owned[2], walked[2];  // k, v and q, dy; or q, dy and k, v: extents (dim, heads, tokens, batch)
  TensorMap statistics;           // as rows of 256 halves of a float: 64 queries
};

template <typename H>
struct HopperBackwardBarriers {
  uint64_t owned_full[H::kOwnedSlots], owned_empty[H::kOwnedSlots], full[H::kSlots], empty[H::kSlots];
};

/// The work of a block, one owned tile after another, each over a run of walked tiles. Causal: the longest of a head first.
struct HopperBackwardItem {
  int first, head, sample, split, begin, steps;
};
template <typename H>
ATTUNE_DEVICE HopperBackwardItem hopper_backward_item(const AttentionShape& s, int item, int splits) {
  const int tiles = ((H::kKeys ? s.keys : s.queries) + H::kOwned - 1) / H::kOwned;
  HopperBackwardItem at;
  at.split = item % splits, item /= splits;
  const int tile = item % tiles, pair = item / tiles;
  at.head = pair % s.heads, at.sample = pair / s.heads;
  if (H::kKeys) {
    const int all = (s.queries + H::kWalk - 1) / H::kWalk;
    at.first = tile * H::kOwned;
    const int seen = s.causal ? (at.first / H::kWalk < all ? at.first / H::kWalk : all) : 0;  // earlier queries see none of these keys
    at.begin = seen + int(int64_t(all - seen) * at.split / splits);
    at.steps = seen + int(int64_t(all - seen) * (at.split + 1) / splits) - at.begin;
  } else {
    at.first = (s.causal ? tiles - 1 - tile : tile) * H::kOwned;
    at.begin = 0, at.steps = (s.visible_before(at.first + H::kOwned) + H::kWalk - 1) / H::kWalk;
  }
  return at;
}

/// A tile of kRows tokens.
template <typename H, int kRows>
ATTUNE_DEVICE void hopper_backward_fetch(unsigned char* to, const TensorMap* map, uint64_t* barrier, int head, int token, int sample) {
  ATTUNE_UNROLL
  for (int i = 0; i < H::kBoxes; i++) load_box(to + i * kRows * H::kSpan, map, barrier, i * (H::kSpan / 2), head, token, sample);
}

template <typename H>
ATTUNE_DEVICE void hopper_backward_produce(const HopperBackwardMaps& maps, const AttentionShape& s, int items, int splits, unsigned char* memory) {
  auto* barriers = reinterpret_cast<HopperBackwardBarriers<H>*>(memory + H::kBarriers);
  HopperRing<H::kOwnedSlots> owned;
  HopperRing<H::kSlots> ring;
  for (int i = 0; i < 2; i++) prefetch_map(maps.owned + i), prefetch_map(maps.walked + i);
  if (H::kKeys) prefetch_map(&maps.statistics);
  for (int item = int(blockIdx.x); item < items; item += int(gridDim.x)) {
    const HopperBackwardItem at = hopper_backward_item<H>(s, item, splits);
    if (at.steps == 0) continue;
    uint64_t* const owned_full = barriers->owned_full + owned.slot;
    barrier_wait(barriers->owned_empty + owned.slot, owned.parity ^ 1);
    barrier_expect(owned_full, 2 * H::kOwnedBytes);
    ATTUNE_UNROLL
    for (int i = 0; i < 2; i++)
      hopper_backward_fetch<H, H::kOwned>(memory + (owned.slot * 2 + i) * H::kOwnedBytes, maps.owned + i, owned_full, at.head, at.first, at.sample);
    owned.next();
    for (int step = 0; step < at.steps; step++, ring.next()) {
      const int token = (at.begin + step) * H::kWalk;
      uint64_t* const full = barriers->full + ring.slot;
      barrier_wait(barriers->empty + ring.slot, ring.parity ^ 1);
      barrier_expect(full, H::kSlotBytes);
      ATTUNE_UNROLL
      for (int i = 0; i < 2; i++)
        hopper_backward_fetch<H, H::kWalk>(memory + H::kWalked + (ring.slot * 2 + i) * H::kWalkedBytes, maps.walked + i, full, at.head, token, at.sample);
      if (H::kKeys) {
        const int row = ((at.sample * s.heads + at.head) * s.padded_queries() + token) / 64;
        load_box(memory + H::kStatistics + ring.slot * H::kStatisticsBytes, &maps.statistics, full, token % 64 * 4, row);
      }
    }
  }
}

/// scores [64, kWalk] = a warpgroup's half of an owned tile times a walked one, over channels.
template <typename H>
ATTUNE_DEVICE void hopper_over_channels(float (&scores)[H::kWalk / 2], const unsigned char* owned, int half, const unsigned char* walked) {
  ATTUNE_UNROLL
  for (int step = 0; step < H::kColumns / 16; step++) {
    const int box = step * 32 / H::kSpan, offset = step * 32 % H::kSpan;
    Wgmma<H::kWalk>::template shared<false, false>(scores, descriptor_step(k_major<H::kSwizzle>(owned + (box * H::kOwned + half * 64) * H::kSpan), offset),
                                                   descriptor_step(k_major<H::kSwizzle>(walked + box * H::kWalk * H::kSpan), offset), step > 0);
  }
}
/// gradients [64, kColumns] += weights [64, kWalk] times a walked tile, over tokens.
template <typename H>
ATTUNE_DEVICE void hopper_over_tokens(float (&gradients)[H::kColumns / 2], const uint32_t (&weights)[H::kWalk / 16][4], const unsigned char* walked) {
  const uint64_t b = mn_major<H::kSwizzle>(walked, H::kWalk * H::kSpan);
  ATTUNE_UNROLL
  for (int step = 0; step < H::kWalk / 16; step++)
    Wgmma<H::kColumns>::template registers<true>(gradients, weights[step], descriptor_step(b, step * 16 * H::kSpan), 1);
}

template <int kN>
ATTUNE_DEVICE void hopper_pack(uint32_t (&packed)[kN / 16][4], const float (&weights)[kN / 2]) {
  ATTUNE_UNROLL
  for (int i = 0; i < kN / 4; i++) packed[i / 4][i % 4] = pack_bf16(weights[2 * i], weights[2 * i + 1]);
}

template <int kN>
ATTUNE_DEVICE void hopper_clear(float (&sums)[kN]) {
  ATTUNE_UNROLL
  for (int i = 0; i < kN; i++) sums[i] = 0.f;
}

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

template <typename H>
ATTUNE_DEVICE void hopper_backward_barriers(unsigned char* memory) {
  auto* barriers = reinterpret_cast<HopperBackwardBarriers<H>*>(memory + H::kBarriers);
  if (threadIdx.x == 0) {
    for (int i = 0; i < H::kOwnedSlots; i++) barrier_init(barriers->owned_full + i, 1), barrier_init(barriers->owned_empty + i, 8);
    for (int i = 0; i < H::kSlots; i++) barrier_init(barriers->full + i, 1), barrier_init(barriers->empty + i, 8);
    barrier_init_fence();
  }
  __syncthreads();
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

template <int kDim, HopperPass kPass>
__global__ void __launch_bounds__(384, 1)
    hopper_attention_queries_kernel(const __grid_constant__ HopperBackwardMaps maps, const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dq,
                                    AttentionShape s, int items) {
  if constexpr (kHopper) {
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
