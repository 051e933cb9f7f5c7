// Attention forward in bf16 on tensor cores (Dao et al. 2022, arXiv:2205.14135; 2023, arXiv:2307.08691): y = softmax(scale q k^T + mask) v and lse, one block
// per tile of queries of a head. Keys and values come through a ring of tiles in shared memory, filled by asynchronous copies, with one barrier a tile: a slot
// is filled again only after the barrier that follows its last reader. Up to 80 keys (a prompt of 77) need no running maximum: see attention_short_kernel.
//
// Logits are kept in units of log 2, so that probabilities are powers of 2. A query whose keys are all masked with -infinity gets y = 0 and lse = -infinity; a
// mask below -2^127 / log2(e) counts as that.
#pragma once
#include "attention.cuh"

namespace attune {
namespace cuda {

struct ForwardTiles {
  int m;       // a warp owns m * 16 queries
  int keys;    // of a tile
  int slots;   // of the ring, K and V in turn
  bool kept;   // queries stay in registers
  int blocks;  // at least, of a multiprocessor: bounds the registers
  int short_blocks;
};
/// By registers (255 a thread, nothing spilled) and so that two blocks fit the shared memory of sm_80. Two tiles of 16 queries a warp where registers allow:
/// each fragment of keys or values that is read then serves two products. With 40 channels exponentials weigh as much as products: room for three blocks.
constexpr ForwardTiles forward_tiles(int dim) {
  return dim == 40    ? ForwardTiles{2, 64, 4, false, 3, 4}
         : dim == 64  ? ForwardTiles{2, 64, 3, true, 2, 3}
         : dim == 80  ? ForwardTiles{2, 64, 2, true, 2, 3}
         : dim == 128 ? ForwardTiles{2, 48, 2, false, 2, 2}
                      : ForwardTiles{1, 64, 2, true, 2, 2};
}
constexpr int kShortKeys = 80;

template <int kDim>
struct Forward {
  static constexpr ForwardTiles kTiles = forward_tiles(kDim);
  static constexpr int kM = kTiles.m, kQueries = kM * 16 * kAttentionThreads / 32, kKeys = kTiles.keys;
  static constexpr int kSlot = kKeys * kPitch<kDim>, kBytes = (kQueries * kPitch<kDim> + kTiles.slots * kSlot) * 2;
  static constexpr int kShortQueries = 16 * kAttentionThreads / 32;
  static constexpr int kShortBytes = (kShortQueries + 2 * kShortKeys) * kPitch<kDim> * 2;
  static_assert(kTiles.slots >= 2 && kBytes <= kAttentionShared && kShortBytes <= kAttentionShared, "a block fits every architecture");
};

/// Largest of a row's numbers, which lie in four neighbouring lanes.
ATTUNE_DEVICE float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
ATTUNE_DEVICE float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

template <int kM, int kN>
ATTUNE_DEVICE float row_max(const float (&scores)[kN][kM][4], int r) {
  float high = -INFINITY;
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) high = fmaxf(high, fmaxf(scores[n][r / 2][r % 2 * 2], scores[n][r / 2][r % 2 * 2 + 1]));
  return quad_max(high);
}
/// score = 2^(factor * score - shift) along row r. Returns this lane's part of the sum.
template <int kM, int kN>
ATTUNE_DEVICE float row_powers(float (&scores)[kN][kM][4], int r, float factor, float shift) {
  float sum = 0.f;
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int c = 0; c < 2; c++) {
      float& score = scores[n][r / 2][r % 2 * 2 + c];
      score = exp2_approx(score * factor - shift);
      sum += score;
    }
  }
  return sum;
}

/// Scores of the next keys become powers under the running maximum `top`; what was summed under a lower one fades.
template <int kM, int kN, int kO>
ATTUNE_DEVICE void next_powers(float (&scores)[kN][kM][4], float factor, float (&top)[kM * 2], float (&sum)[kM * 2], float (&o)[kO][kM][4]) {
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) {
    const float high = fmaxf(top[r], row_max(scores, r) * factor), shift = high == -INFINITY ? 0.f : high, fade = exp2_approx(top[r] - shift);
    top[r] = high;
    sum[r] = sum[r] * fade + row_powers(scores, r, factor, shift);
    ATTUNE_UNROLL
    for (int n = 0; n < kO; n++) o[n][r / 2][r % 2 * 2] *= fade, o[n][r / 2][r % 2 * 2 + 1] *= fade;
  }
}

/// y = o / sum and lse = log(2^top * sum) of the warp's queries from `first` on; `sum` still lies apart in four lanes. `y` is the head's first token. A panel
/// of a wide head begins at `channel`: the first one stores lse.
template <int kDim, int kM>
ATTUNE_DEVICE void finish_rows(const float (&o)[kDim / 8][kM][4], const float (&top)[kM * 2], const float (&sum)[kM * 2], int first, bf16* y, float* lse,
                               const AttentionShape& s, int channel = 0) {
  float inverse[kM * 2];
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) {
    const float total = quad_sum(sum[r]);
    inverse[r] = total == 0.f ? 0.f : 1.f / total;
    const int query = first + r * 8 + own_row();
    if (channel == 0 && query < s.queries && own_column() == 0) store(lse + query, total == 0.f ? -INFINITY : top[r] * kLn2 + logf(total));
  }
  store_rows<kDim, kM>(y + channel, o, inverse, first, s.queries, s.width, s.dim - channel);
}

template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads, forward_tiles(kDim).blocks)
    attention_forward_kernel(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, bf16* __restrict__ y, float* __restrict__ lse,
                             AttentionShape s) {
  using F = Forward<kDim>;
  constexpr int kM = F::kM, kN = F::kKeys / 8, kSlots = F::kTiles.slots;
  ATTUNE_SHARED(memory);
  bf16 *const query_tile = reinterpret_cast<bf16*>(memory), *const ring = query_tile + F::kQueries * kPitch<kDim>;
  const int h = int(blockIdx.y), b = int(blockIdx.z);
  const int q0 = int(s.causal ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * F::kQueries;  // causal: the longest rows start first
  const int first = q0 + int(threadIdx.x / 32) * kM * 16;                                // this warp's first query
  const bf16 *const keys = k + s.at(b, h, s.keys), *const values = v + s.at(b, h, s.keys);
  const int steps = (s.visible_before(q0 + F::kQueries) + F::kKeys - 1) / F::kKeys;

  const auto fetch = [&](int i) {  // tile i of K0 V0 K1 V1 ...: each a group of copies, the late ones empty
    if (i < 2 * steps) copy_tile<kDim, F::kKeys>(ring + i % kSlots * F::kSlot, i % 2 ? values : keys, i / 2 * F::kKeys, s.keys, s.width, s.dim);
    copy_commit();
  };
  const auto arrived = [&](int i) {
    copy_wait<kSlots - 2>();
    __syncthreads();  // tile i is there for all, and all are done with tile i - 1
    fetch(i + kSlots - 1);
    return ring + i % kSlots * F::kSlot;
  };
  copy_tile<kDim, F::kQueries>(query_tile, q + s.at(b, h, s.queries), q0, s.queries, s.width, s.dim);
  ATTUNE_UNROLL
  for (int i = 0; i < kSlots - 1; i++) fetch(i);

  RowFragments<kDim, kM, F::kTiles.kept> queries;
  queries.rows = query_tile + (first - q0) * kPitch<kDim>;
  float o[kDim / 8][kM][4], top[kM * 2], sum[kM * 2];
  clear(o);
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) top[r] = -INFINITY, sum[r] = 0.f;

  for (int step = 0; step < steps; step++) {
    const bf16* const key_tile = arrived(2 * step);
    if (step == 0) queries.keep();
    float p[kN][kM][4];
    clear(p);
    multiply_channels(p, queries, key_tile);
    float factor = s.scale * kLog2E;
    if (s.mask || !(s.scale > 0.f) || (step + 1) * F::kKeys > s.visible(first)) {  // else scaling keeps the order, and is one multiply-add with the shift
      make_logits(p, first, step * F::kKeys, b, s);
      factor = 1.f;
    }
    next_powers(p, factor, top, sum, o);
    multiply_tokens<kDim>(o, p, arrived(2 * step + 1));
  }
  finish_rows<kDim, kM>(o, top, sum, first, y + s.at(b, h, s.queries), lse + (int64_t(b) * s.heads + h) * s.queries, s);
}

/// Up to 80 keys: all of them stay in shared memory while the block walks over `tiles` tiles of queries, the next one on its way while one is computed.
template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads, forward_tiles(kDim).short_blocks)
    attention_short_kernel(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v, bf16* __restrict__ y, float* __restrict__ lse,
                           AttentionShape s, int tiles) {
  using F = Forward<kDim>;
  constexpr int kM = 1, kN = kShortKeys / 8;
  ATTUNE_SHARED(memory);
  bf16 *const key_tile = reinterpret_cast<bf16*>(memory), *const value_tile = key_tile + kShortKeys * kPitch<kDim>;
  bf16* const query_tile = value_tile + kShortKeys * kPitch<kDim>;
  const int h = int(blockIdx.y), b = int(blockIdx.z), begin = int(blockIdx.x) * tiles * F::kShortQueries;
  const int end = begin + tiles * F::kShortQueries < s.queries ? begin + tiles * F::kShortQueries : s.queries;
  const bf16* const all_queries = q + s.at(b, h, s.queries);
  const int warp_row = int(threadIdx.x / 32) * kM * 16;

  copy_tile<kDim, kShortKeys>(key_tile, k + s.at(b, h, s.keys), 0, s.keys, s.width, s.dim);
  copy_tile<kDim, kShortKeys>(value_tile, v + s.at(b, h, s.keys), 0, s.keys, s.width, s.dim);
  copy_tile<kDim, F::kShortQueries>(query_tile, all_queries, begin, s.queries, s.width, s.dim);
  copy_commit();
  for (int q0 = begin; q0 < end; q0 += F::kShortQueries) {
    RowFragments<kDim, kM, true> queries;
    queries.rows = query_tile + warp_row * kPitch<kDim>;
    copy_wait<0>();
    __syncthreads();
    queries.keep();
    __syncthreads();  // the tile is in registers of all: its place is free
    if (q0 + F::kShortQueries < end) copy_tile<kDim, F::kShortQueries>(query_tile, all_queries, q0 + F::kShortQueries, s.queries, s.width, s.dim);
    copy_commit();

    const int first = q0 + warp_row;
    float p[kN][kM][4], o[kDim / 8][kM][4], top[kM * 2], sum[kM * 2];
    clear(p);
    multiply_channels(p, queries, key_tile);
    make_logits(p, first, 0, b, s);
    ATTUNE_UNROLL
    for (int r = 0; r < kM * 2; r++) {
      top[r] = row_max(p, r);
      sum[r] = row_powers(p, r, 1.f, top[r] == -INFINITY ? 0.f : top[r]);
    }
    clear(o);
    multiply_tokens<kDim>(o, p, value_tile);
    finish_rows<kDim, kM>(o, top, sum, first, y + s.at(b, h, s.queries), lse + (int64_t(b) * s.heads + h) * s.queries, s);
  }
}

template <int kDim>
void start_attention_forward(const OpArgs& args, const AttentionShape& s) {
  using F = Forward<kDim>;
  const bf16 *q = args.in[0].as<const bf16>(), *k = args.in[1].as<const bf16>(), *v = args.in[2].as<const bf16>();
  bf16* const y = args.out[0].as<bf16>();
  float* const lse = args.out[1].as<float>();
  if (s.keys > kShortKeys) {
    const dim3 grid(unsigned(ceil_div(s.queries, F::kQueries)), unsigned(s.heads), unsigned(s.batch));
    return launch(args, attention_forward_kernel<kDim>, grid, dim3(kAttentionThreads), F::kBytes, q, k, v, y, lse, s);
  }
  // A block takes as many tiles as leave six blocks for every multiprocessor, eight at most.
  const int64_t tiles = ceil_div(s.queries, F::kShortQueries), spare = tiles * s.heads * s.batch / (6 * args.caps().multiprocessors);
  const int each = int(spare < 1 ? 1 : spare > 8 ? 8 : spare);
  const dim3 grid(unsigned(ceil_div(tiles, each)), unsigned(s.heads), unsigned(s.batch));
  launch(args, attention_short_kernel<kDim>, grid, dim3(kAttentionThreads), F::kShortBytes, q, k, v, y, lse, s, each);
}

}  // namespace cuda
}  // namespace attune
