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

}  // namespace cuda
}  // namespace attune
