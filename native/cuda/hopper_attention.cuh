// Attention forward on sm_90a, bf16: y = softmax(scale q k^T + mask) v per head with a running maximum and sum per query, and lse (see attention.cuh).
//
// A thread block is one thread that fetches tiles with the copy engine and two warpgroups of 64 queries each. A warpgroup starts the scores of its next 128
// keys together with the outputs of the last 128, then waits for the scores alone and turns them into probabilities while the outputs are still being
// multiplied; and the two take turns in starting multiplies, so that one's exponentials run beside the other's products. Probabilities go into the second
// product as registers.
//
// Tiles: queries and keys are K-major, channels in boxes of 64 and a tail of 16 or 32 (heads of 40 are rounded up to 48 in a box of 64: the copy engine fills
// in zeros); values are N-major, as boxes of the widest swizzle span that divides the head. Blocks are persistent: tiles of queries of one head follow each
// other.
#pragma once
#include "attention_forward.cuh"
#include "hopper.cuh"

namespace attune {
namespace cuda {

template <int kDim>
struct HopperHead {
  static constexpr int kQueries = 128, kKeys = 128;
  static constexpr int kBoxes = kDim < 64 ? 1 : kDim / 64, kTail = kDim < 64 ? 0 : kDim % 64;  // of a K-major tile: boxes of 64 channels, and what is left
  static constexpr int kSteps = (kDim + 15) / 16;                                              // of 16 channels
  static constexpr Swizzle kTailSwizzle = kTail == 16 ? Swizzle::span32 : Swizzle::span64;
  static constexpr int kTileBytes = 128 * (kBoxes * 128 + kTail * 2);
  static constexpr int kColumns = kSteps * 16;  // of v
  static constexpr Swizzle kValueSwizzle = kColumns % 64 == 0 ? Swizzle::span128 : kColumns % 32 == 0 ? Swizzle::span64 : Swizzle::span32;
  static constexpr int kValueSpan = swizzle_span(kValueSwizzle), kValueBoxes = kColumns * 2 / kValueSpan, kValueBytes = kKeys * kColumns * 2;
  static constexpr int kSlots = kDim <= 80 ? 4 : 2;  // of keys, and of values
  static constexpr int kBarriers = 2 + 4 * kSlots + 2;
  static constexpr int kShared = kTileBytes + kSlots * (kTileBytes + kValueBytes) + kBarriers * int(sizeof(uint64_t));
  static_assert(kTail == 0 || kTail == 16 || kTail == 32, "tails are one swizzle span");
  static_assert(kTileBytes % 1024 == 0 && kValueBytes % 1024 == 0 && kShared <= 227 * 1024, "tiles keep the swizzle's alignment");
};

struct HopperAttentionMaps {
  TensorMap q, q_tail, k, k_tail, v;  // extents (dim, heads, tokens, batch)
};

/// The work of a block, one tile of queries after another. Causal: the longest rows of a head first.
struct HopperQueries {
  int first, head, sample, steps;  // steps of 128 keys
};
ATTUNE_DEVICE HopperQueries hopper_queries(const AttentionShape& s, int item) {
  const int tiles = (s.queries + 127) / 128, tile = item % tiles, pair = item / tiles;
  HopperQueries at;
  at.first = (s.causal ? tiles - 1 - tile : tile) * 128, at.head = pair % s.heads, at.sample = pair / s.heads;
  at.steps = (s.visible_before(at.first + 128) + 127) / 128;
  return at;
}

/// Barriers of a block, in shared memory.
template <int kSlots>
struct HopperAttentionBarriers {
  uint64_t queries_full, queries_empty, keys_full[kSlots], keys_empty[kSlots], values_full[kSlots], values_empty[kSlots], turn[2];
};

/// A K-major tile of 128 tokens.
template <int kDim>
ATTUNE_DEVICE void hopper_fetch(unsigned char* to, const TensorMap* map, const TensorMap* tail, uint64_t* barrier, int head, int token, int sample) {
  using H = HopperHead<kDim>;
  ATTUNE_UNROLL
  for (int i = 0; i < H::kBoxes; i++) load_box(to + i * 16384, map, barrier, i * 64, head, token, sample);
  if (H::kTail) load_box(to + H::kBoxes * 16384, tail, barrier, H::kBoxes * 64, head, token, sample);
}

template <int kDim>
ATTUNE_DEVICE void hopper_attention_produce(const HopperAttentionMaps& maps, const AttentionShape& s, int items, unsigned char* query_tile,
                                            unsigned char* key_tiles, unsigned char* value_tiles, HopperAttentionBarriers<HopperHead<kDim>::kSlots>* barriers) {
  using H = HopperHead<kDim>;
  HopperRing<H::kSlots> ring;
  uint32_t free_parity = 1;
  prefetch_map(&maps.q), prefetch_map(&maps.k), prefetch_map(&maps.v);
  for (int item = int(blockIdx.x); item < items; item += int(gridDim.x), free_parity ^= 1) {
    const HopperQueries at = hopper_queries(s, item);
    barrier_wait(&barriers->queries_empty, free_parity);
    barrier_expect(&barriers->queries_full, H::kTileBytes);
    hopper_fetch<kDim>(query_tile, &maps.q, &maps.q_tail, &barriers->queries_full, at.head, at.first, at.sample);
    for (int step = 0; step < at.steps; step++, ring.next()) {
      uint64_t *keys = barriers->keys_full + ring.slot, *values = barriers->values_full + ring.slot;
      barrier_wait(barriers->keys_empty + ring.slot, ring.parity ^ 1);
      barrier_expect(keys, H::kTileBytes);
      hopper_fetch<kDim>(key_tiles + ring.slot * H::kTileBytes, &maps.k, &maps.k_tail, keys, at.head, step * 128, at.sample);
      barrier_wait(barriers->values_empty + ring.slot, ring.parity ^ 1);
      barrier_expect(values, H::kValueBytes);
      ATTUNE_UNROLL
      for (int i = 0; i < H::kValueBoxes; i++)
        load_box(value_tiles + ring.slot * H::kValueBytes + i * H::kKeys * H::kValueSpan, &maps.v, values, i * (H::kValueSpan / 2), at.head, step * 128,
                 at.sample);
    }
  }
}

/// scores [64, 128] = a warpgroup's half of the queries times a tile's keys.
template <int kDim>
ATTUNE_DEVICE void hopper_scores(float (&scores)[64], const unsigned char* queries, int half, const unsigned char* keys) {
  using H = HopperHead<kDim>;
  ATTUNE_UNROLL
  for (int step = 0; step < H::kSteps; step++) {
    const int box = step / 4;
    if (box < H::kBoxes)
      Wgmma<128>::template shared<false, false>(scores, descriptor_step(k_major(queries + box * 16384 + half * 8192), step % 4 * 32),
                                                descriptor_step(k_major(keys + box * 16384), step % 4 * 32), step > 0);
    else
      Wgmma<128>::template shared<false, false>(
          scores, descriptor_step(k_major<H::kTailSwizzle>(queries + H::kBoxes * 16384 + half * 64 * H::kTail * 2), step % 4 * 32),
          descriptor_step(k_major<H::kTailSwizzle>(keys + H::kBoxes * 16384), step % 4 * 32), step > 0);
  }
}

/// o [64, kColumns] += probabilities [64, 128] times a tile's values.
template <int kDim>
ATTUNE_DEVICE void hopper_outputs(float (&o)[HopperHead<kDim>::kColumns / 2], const uint32_t (&p)[8][4], const unsigned char* values) {
  using H = HopperHead<kDim>;
  const uint64_t b = mn_major<H::kValueSwizzle>(values, H::kKeys * H::kValueSpan);
  ATTUNE_UNROLL
  for (int step = 0; step < 8; step++) Wgmma<H::kColumns>::template registers<true>(o, p[step], descriptor_step(b, step * 16 * H::kValueSpan), 1);
}

template <int kDim>
ATTUNE_DEVICE void hopper_attention_consume(const AttentionShape& s, int items, const unsigned char* query_tile, const unsigned char* key_tiles,
                                            const unsigned char* value_tiles, HopperAttentionBarriers<HopperHead<kDim>::kSlots>* barriers, bf16* y,
                                            float* lse) {
  using H = HopperHead<kDim>;
  const int warpgroup = int(threadIdx.x) / 128 - 1, warp = int(threadIdx.x) / 32 % 4;
  const bool speaks = threadIdx.x % 32 == 0;  // for its warp
  HopperRing<H::kSlots> keys, values;
  uint32_t query_parity = 0, turn = 0;
  if (warpgroup == 1 && speaks) barrier_arrive(barriers->turn + 0);
  for (int item = int(blockIdx.x); item < items; item += int(gridDim.x), query_parity ^= 1) {
    const HopperQueries at = hopper_queries(s, item);
    const int first = at.first + warpgroup * 64 + warp * 16;  // this warp's first query
    float scores[64], o[H::kColumns / 2], top[2], sum[2], fade[2];
    uint32_t p[8][4];
    ATTUNE_UNROLL
    for (int i = 0; i < H::kColumns / 2; i++) o[i] = 0.f;
    ATTUNE_UNROLL
    for (int i = 0; i < 64; i++) scores[i] = 0.f;
    ATTUNE_UNROLL
    for (int r = 0; r < 2; r++) top[r] = -INFINITY, sum[r] = 0.f;

    const auto take_turn = [&] { barrier_wait(barriers->turn + warpgroup, turn), turn ^= 1; };
    const auto give_turn = [&] {
      if (speaks) barrier_arrive(barriers->turn + 1 - warpgroup);
    };
    const auto release_keys = [&](int step) {
      if (speaks) barrier_arrive(barriers->keys_empty + keys.slot);
      if (speaks && step + 1 == at.steps) barrier_arrive(&barriers->queries_empty);
      keys.next();
    };
    const auto release_values = [&] {
      if (speaks) barrier_arrive(barriers->values_empty + values.slot);
      values.next();
    };
    /// Scores become probabilities (of this step's maximum); o must fade by `fade`.
    const auto exponentials = [&](int step) {
      float (&logits)[16][1][4] = reinterpret_cast<float (&)[16][1][4]>(scores);
      float factor = s.scale * kLog2E;
      if (s.mask || !(s.scale > 0.f) || (step + 1) * H::kKeys > s.visible(first)) {
        make_logits(logits, first, step * H::kKeys, at.sample, s);
        factor = 1.f;
      }
      ATTUNE_UNROLL
      for (int r = 0; r < 2; r++) {
        const float high = fmaxf(top[r], row_max(logits, r) * factor), shift = high == -INFINITY ? 0.f : high;
        fade[r] = exp2_approx(top[r] - shift), top[r] = high;
        sum[r] = sum[r] * fade[r] + row_powers(logits, r, factor, shift);
      }
    };
    const auto pack = [&] {
      ATTUNE_UNROLL
      for (int i = 0; i < 32; i++) p[i / 4][i % 4] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
    };

    barrier_wait(&barriers->queries_full, query_parity);
    barrier_wait(barriers->keys_full + keys.slot, keys.parity);
    take_turn();
    pin_registers(scores);
    wgmma_fence();
    hopper_scores<kDim>(scores, query_tile, warpgroup, key_tiles + keys.slot * H::kTileBytes);
    wgmma_commit();
    give_turn();
    wgmma_wait<0>();
    pin_registers(scores);
    release_keys(0);
    exponentials(0);
    pack();
    for (int step = 1; step < at.steps; step++) {
      barrier_wait(barriers->keys_full + keys.slot, keys.parity);
      barrier_wait(barriers->values_full + values.slot, values.parity);
      take_turn();
      pin_registers(scores), pin_registers(o), pin_registers(p);
      wgmma_fence();
      hopper_scores<kDim>(scores, query_tile, warpgroup, key_tiles + keys.slot * H::kTileBytes);
      wgmma_commit();
      hopper_outputs<kDim>(o, p, value_tiles + values.slot * H::kValueBytes);
      wgmma_commit();
      give_turn();
      wgmma_wait<1>();
      pin_registers(scores);
      release_keys(step);
      exponentials(step);
      wgmma_wait<0>();
      pin_registers(o);
      release_values();
      ATTUNE_UNROLL
      for (int i = 0; i < H::kColumns / 2; i++) o[i] *= fade[i % 4 / 2];
      pack();
    }
    barrier_wait(barriers->values_full + values.slot, values.parity);
    pin_registers(o), pin_registers(p);
    wgmma_fence();
    hopper_outputs<kDim>(o, p, value_tiles + values.slot * H::kValueBytes);
    wgmma_commit();
    wgmma_wait<0>();
    pin_registers(o);
    release_values();
    finish_rows<kDim, 1>(reinterpret_cast<const float (&)[kDim / 8][1][4]>(o), top, sum, first, y + s.at(at.sample, at.head, s.queries),
                         lse + (int64_t(at.sample) * s.heads + at.head) * s.queries, s);
  }
}

template <int kDim>
__global__ void __launch_bounds__(384, 1)
    hopper_attention_kernel(const __grid_constant__ HopperAttentionMaps maps, bf16* __restrict__ y, float* __restrict__ lse, AttentionShape s, int items) {
  if constexpr (kHopper) {
    using H = HopperHead<kDim>;
    ATTUNE_SHARED(memory);
    unsigned char *key_tiles = memory + H::kTileBytes, *value_tiles = key_tiles + H::kSlots * H::kTileBytes;
    auto* barriers = reinterpret_cast<HopperAttentionBarriers<H::kSlots>*>(value_tiles + H::kSlots * H::kValueBytes);
    if (threadIdx.x == 0) {
      barrier_init(&barriers->queries_full, 1), barrier_init(&barriers->queries_empty, 8);
      for (int i = 0; i < H::kSlots; i++) {
        barrier_init(barriers->keys_full + i, 1), barrier_init(barriers->keys_empty + i, 8);
        barrier_init(barriers->values_full + i, 1), barrier_init(barriers->values_empty + i, 8);
      }
      for (int i = 0; i < 2; i++) barrier_init(barriers->turn + i, 4);
      barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
      shrink_registers<24>();
      if (threadIdx.x == 0) hopper_attention_produce<kDim>(maps, s, items, memory, key_tiles, value_tiles, barriers);
    } else {
      grow_registers<240>();
      hopper_attention_consume<kDim>(s, items, memory, key_tiles, value_tiles, barriers, y, lse);
    }
  }
}

}  // namespace cuda
}  // namespace attune
