// Attention backward in bf16 on tensor cores, without atomics: every gradient is summed by one warp in a fixed order. Probabilities come again from lse,
// p = exp(scale q k^T + mask - lse), and with dp = dy v^T and dot = sum dy * y:
//   dv = p^T dy,  ds = p * (dp - dot),  dk = scale ds^T q,  dq = scale ds k.
// Two kernels. attention_keys_kernel holds a tile of keys and values and walks over queries, for dk and dv; its scores stand transposed, keys down and queries
// across, so that p^T and ds^T are left operands where they were made. attention_queries_kernel holds a tile of queries and walks over keys, for dq. What is
// walked over comes through two slots of shared memory, filled by asynchronous copies; the barrier that says a slot is there also says that the other one is
// free.
//
// Where keys are few, queries are split over blocks: each writes its part of dk and dv in f32 and attention_reduce_kernel adds the parts in order.
#pragma once
#include "attention.cuh"

namespace attune {
namespace cuda {

struct BackwardTiles {
  int keys_m, keys_walk;        // dk, dv: a warp owns keys_m * 16 keys and walks over keys_walk queries at a time
  bool keys_kept;               // its keys and values stay in registers
  int queries_m, queries_walk;  // dq: likewise
  bool queries_kept;
};
/// As forward_tiles; with 160 channels walks are of 16 tokens, so that two blocks fit.
constexpr BackwardTiles backward_tiles(int dim) {
  return dim == 40    ? BackwardTiles{2, 32, true, 2, 32, false}
         : dim == 64  ? BackwardTiles{2, 32, false, 2, 32, true}
         : dim == 80  ? BackwardTiles{1, 32, true, 2, 32, false}
         : dim == 128 ? BackwardTiles{1, 32, false, 1, 32, true}
                      : BackwardTiles{1, 16, false, 1, 16, false};
}

template <int kDim>
struct Backward {
  static constexpr BackwardTiles kTiles = backward_tiles(kDim);
  static constexpr int kWarps = kAttentionThreads / 32;
  // dk, dv: keys and values, then two slots of queries, dy and statistics
  static constexpr int kKeys = kTiles.keys_m * 16 * kWarps, kWalkedQueries = kTiles.keys_walk;
  static constexpr int kQuerySlot = 2 * kWalkedQueries * kPitch<kDim> * 2 + kWalkedQueries * int(sizeof(QueryStatistics));
  static constexpr int kKeysBytes = 2 * kKeys * kPitch<kDim> * 2 + 2 * kQuerySlot;
  // dq: queries and dy, then two slots of keys and values
  static constexpr int kQueries = kTiles.queries_m * 16 * kWarps, kWalkedKeys = kTiles.queries_walk;
  static constexpr int kKeySlot = 2 * kWalkedKeys * kPitch<kDim> * 2;
  static constexpr int kQueriesBytes = 2 * kQueries * kPitch<kDim> * 2 + 2 * kKeySlot;
  static_assert(kStatisticsUnit % kWalkedQueries == 0, "a walked tile has all its statistics");
  static_assert(kKeysBytes <= kAttentionShared && kQueriesBytes <= kAttentionShared, "a block fits every architecture");
};

/// Products of keys (rows from first_key on) and queries (columns from first_query on) become logits in units of log 2, -infinity where the key is not visible.
template <int kM, int kN>
ATTUNE_DEVICE void make_logits_across(float (&scores)[kN][kM][4], int first_key, int first_query, int b, const AttentionShape& s) {
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) {
    const int key = first_key + r * 8 + own_row();
    const float added = s.mask && key < s.keys ? s.mask.at(b * s.mask_stride + key) * kLog2E : 0.f;
    ATTUNE_UNROLL
    for (int n = 0; n < kN; n++) {
      ATTUNE_UNROLL
      for (int column = 0; column < 2; column++) {
        float& score = scores[n][r / 2][r % 2 * 2 + column];
        score = key < s.visible(first_query + n * 8 + own_column() + column) ? score * (s.scale * kLog2E) + added : -INFINITY;
      }
    }
  }
}

/// Logits, keys down and queries across, become p, and dp becomes ds; `statistics` are those of this lane's first column.
template <int kM, int kN>
ATTUNE_DEVICE void make_gradients_across(float (&p)[kN][kM][4], float (&ds)[kN][kM][4], float factor, const QueryStatistics* statistics) {
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    const float4 of = load(reinterpret_cast<const float4*>(statistics + n * 8));  // {lse, dot} of two columns
    ATTUNE_UNROLL
    for (int r = 0; r < kM * 2; r++) {
      ATTUNE_UNROLL
      for (int column = 0; column < 2; column++) {
        const int i = r % 2 * 2 + column;
        p[n][r / 2][i] = exp2_approx(p[n][r / 2][i] * factor - (column ? of.z : of.x));
        ds[n][r / 2][i] = p[n][r / 2][i] * (ds[n][r / 2][i] - (column ? of.w : of.y));
      }
    }
  }
}
/// Likewise, queries down and keys across: dp becomes ds.
template <int kM, int kN>
ATTUNE_DEVICE void make_gradients(const float (&p)[kN][kM][4], float (&ds)[kN][kM][4], float factor, const QueryStatistics (&statistics)[kM * 2]) {
  ATTUNE_UNROLL
  for (int n = 0; n < kN; n++) {
    ATTUNE_UNROLL
    for (int r = 0; r < kM * 2; r++) {
      ATTUNE_UNROLL
      for (int i = r % 2 * 2; i < r % 2 * 2 + 2; i++)
        ds[n][r / 2][i] = exp2_approx(p[n][r / 2][i] * factor - statistics[r].lse) * (ds[n][r / 2][i] - statistics[r].dot);
    }
  }
}
/// Of the warp's queries from `first` on; `statistics` is the head's first.
template <int kM>
ATTUNE_DEVICE void load_statistics(QueryStatistics (&own)[kM * 2], const QueryStatistics* statistics, int first, int queries) {
  ATTUNE_UNROLL
  for (int r = 0; r < kM * 2; r++) {
    const int query = first + r * 8 + own_row();
    own[r] = {INFINITY, 0.f};
    if (query >= queries) continue;
    const float2 of = load(reinterpret_cast<const float2*>(statistics + query));
    own[r] = {of.x, of.y};
  }
}
/// One factor for all rows of store_rows.
template <int kRows>
struct SameFactor {
  float of[kRows];
  ATTUNE_DEVICE explicit SameFactor(float factor) {
    ATTUNE_UNROLL
    for (int r = 0; r < kRows; r++) of[r] = factor;
  }
};

/// `parts` null: writes dk and dv. Else the block sees one of `splits` runs of queries and writes f32 to parts [2 (dk, dv), splits, B, M, heads * d].
template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_keys_kernel(const bf16* __restrict__ dy, const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                          const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dk, bf16* __restrict__ dv, float* __restrict__ parts,
                          AttentionShape s, int splits) {
  using B = Backward<kDim>;
  constexpr int kM = B::kTiles.keys_m, kN = B::kWalkedQueries / 8;
  ATTUNE_SHARED(memory);
  bf16 *const key_tile = reinterpret_cast<bf16*>(memory), *const value_tile = key_tile + B::kKeys * kPitch<kDim>;
  unsigned char* const slots = memory + 2 * B::kKeys * kPitch<kDim> * 2;
  const int h = int(blockIdx.y), b = int(blockIdx.z), split = int(blockIdx.x) % splits, k0 = int(blockIdx.x) / splits * B::kKeys;
  const int first = k0 + int(threadIdx.x / 32) * kM * 16;  // this warp's first key
  const bf16 *const queries = q + s.at(b, h, s.queries), *const gradients = dy + s.at(b, h, s.queries);
  const QueryStatistics* const rows = statistics + (int64_t(b) * s.heads + h) * s.padded_queries();

  const auto tile_of = [&](int slot) { return reinterpret_cast<bf16*>(slots + slot * B::kQuerySlot); };
  const auto gradients_of = [&](int slot) { return tile_of(slot) + B::kWalkedQueries * kPitch<kDim>; };
  const auto statistics_of = [&](int slot) { return reinterpret_cast<QueryStatistics*>(gradients_of(slot) + B::kWalkedQueries * kPitch<kDim>); };
  const auto fetch = [&](int tile, int slot) {
    copy_tile<kDim, B::kWalkedQueries>(tile_of(slot), queries, tile * B::kWalkedQueries, s.queries, s.width, s.dim);
    copy_tile<kDim, B::kWalkedQueries>(gradients_of(slot), gradients, tile * B::kWalkedQueries, s.queries, s.width, s.dim);
    const int pair = int(threadIdx.x) * 2;
    if (pair < B::kWalkedQueries) copy_async16(statistics_of(slot) + pair, rows + tile * B::kWalkedQueries + pair, 16);
    copy_commit();
  };
  const int all = (s.queries + B::kWalkedQueries - 1) / B::kWalkedQueries;
  const int seen = s.causal ? (k0 / B::kWalkedQueries < all ? k0 / B::kWalkedQueries : all) : 0;  // earlier queries see none of these keys
  const int begin = seen + int(int64_t(all - seen) * split / splits), end = seen + int(int64_t(all - seen) * (split + 1) / splits);

  copy_tile<kDim, B::kKeys>(key_tile, k + s.at(b, h, s.keys), k0, s.keys, s.width, s.dim);
  copy_tile<kDim, B::kKeys>(value_tile, v + s.at(b, h, s.keys), k0, s.keys, s.width, s.dim);
  copy_commit();
  if (begin < end) fetch(begin, 0);
  RowFragments<kDim, kM, B::kTiles.keys_kept> key_rows, value_rows;
  key_rows.rows = key_tile + (first - k0) * kPitch<kDim>, value_rows.rows = value_tile + (first - k0) * kPitch<kDim>;
  float dk_rows[kDim / 8][kM][4], dv_rows[kDim / 8][kM][4];
  clear(dk_rows);
  clear(dv_rows);

  for (int tile = begin; tile < end; tile++) {
    const int slot = (tile - begin) % 2;
    copy_wait<0>();
    __syncthreads();
    if (tile + 1 < end) fetch(tile + 1, 1 - slot);
    if (tile == begin) key_rows.keep(), value_rows.keep();

    float p[kN][kM][4], ds[kN][kM][4];
    clear(p);
    multiply_channels(p, key_rows, tile_of(slot));
    float factor = s.scale * kLog2E;
    if (s.mask || (s.causal && tile * B::kWalkedQueries < first + kM * 16 - 1)) {  // a mask, or the diagonal
      make_logits_across(p, first, tile * B::kWalkedQueries, b, s);
      factor = 1.f;
    }
    clear(ds);
    multiply_channels(ds, value_rows, gradients_of(slot));
    make_gradients_across(p, ds, factor, statistics_of(slot) + own_column());
    multiply_tokens<kDim>(dv_rows, p, gradients_of(slot));
    multiply_tokens<kDim>(dk_rows, ds, tile_of(slot));
  }
  copy_wait<0>();  // where there was no query
  const SameFactor<kM * 2> scale(s.scale), one(1.f);
  const int64_t at = s.at(b, h, s.keys), count = int64_t(s.batch) * s.keys * s.width;
  if (parts) {
    store_rows<kDim, kM>(parts + split * count + at, dk_rows, scale.of, first, s.keys, s.width, s.dim);
    store_rows<kDim, kM>(parts + (splits + split) * count + at, dv_rows, one.of, first, s.keys, s.width, s.dim);
  } else {
    store_rows<kDim, kM>(dk + at, dk_rows, scale.of, first, s.keys, s.width, s.dim);
    store_rows<kDim, kM>(dv + at, dv_rows, one.of, first, s.keys, s.width, s.dim);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_queries_kernel(const bf16* __restrict__ dy, const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
                             const QueryStatistics* __restrict__ statistics, bf16* __restrict__ dq, AttentionShape s) {
  using B = Backward<kDim>;
  constexpr int kM = B::kTiles.queries_m, kN = B::kWalkedKeys / 8;
  ATTUNE_SHARED(memory);
  bf16 *const query_tile = reinterpret_cast<bf16*>(memory), *const gradient_tile = query_tile + B::kQueries * kPitch<kDim>;
  bf16* const slots = gradient_tile + B::kQueries * kPitch<kDim>;
  const int h = int(blockIdx.y), b = int(blockIdx.z);
  const int q0 = int(s.causal ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * B::kQueries, first = q0 + int(threadIdx.x / 32) * kM * 16;
  const bf16 *const keys = k + s.at(b, h, s.keys), *const values = v + s.at(b, h, s.keys);

  const auto keys_of = [&](int slot) { return slots + slot * (B::kKeySlot / 2); };
  const auto values_of = [&](int slot) { return keys_of(slot) + B::kWalkedKeys * kPitch<kDim>; };
  const auto fetch = [&](int tile, int slot) {
    copy_tile<kDim, B::kWalkedKeys>(keys_of(slot), keys, tile * B::kWalkedKeys, s.keys, s.width, s.dim);
    copy_tile<kDim, B::kWalkedKeys>(values_of(slot), values, tile * B::kWalkedKeys, s.keys, s.width, s.dim);
    copy_commit();
  };
  copy_tile<kDim, B::kQueries>(query_tile, q + s.at(b, h, s.queries), q0, s.queries, s.width, s.dim);
  copy_tile<kDim, B::kQueries>(gradient_tile, dy + s.at(b, h, s.queries), q0, s.queries, s.width, s.dim);
  fetch(0, 0);
  RowFragments<kDim, kM, B::kTiles.queries_kept> query_rows, gradient_rows;
  query_rows.rows = query_tile + (first - q0) * kPitch<kDim>, gradient_rows.rows = gradient_tile + (first - q0) * kPitch<kDim>;
  float dq_rows[kDim / 8][kM][4];
  clear(dq_rows);
  QueryStatistics own[kM * 2];
  load_statistics<kM>(own, statistics + (int64_t(b) * s.heads + h) * s.padded_queries(), first, s.queries);

  const int steps = (s.visible_before(q0 + B::kQueries) + B::kWalkedKeys - 1) / B::kWalkedKeys;
  for (int step = 0; step < steps; step++) {
    const int slot = step % 2;
    copy_wait<0>();
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1, 1 - slot);
    if (step == 0) query_rows.keep(), gradient_rows.keep();

    float p[kN][kM][4], ds[kN][kM][4], factor = s.scale * kLog2E;
    clear(p);
    multiply_channels(p, query_rows, keys_of(slot));
    if (s.mask || (step + 1) * B::kWalkedKeys > s.visible(first)) {
      make_logits(p, first, step * B::kWalkedKeys, b, s);
      factor = 1.f;
    }
    clear(ds);
    multiply_channels(ds, gradient_rows, values_of(slot));
    make_gradients(p, ds, factor, own);
    multiply_tokens<kDim>(dq_rows, ds, keys_of(slot));
  }
  store_rows<kDim, kM>(dq + s.at(b, h, s.queries), dq_rows, SameFactor<kM * 2>(s.scale).of, first, s.queries, s.width, s.dim);
}

/// Splits of the queries such that the blocks of dk and dv fill a device twice over, of eight walked tiles each at least.
inline int attention_splits(const OpArgs& args, int64_t blocks, int64_t walked_tiles) {
  const int64_t wanted = ceil_div(2 * args.caps().multiprocessors, blocks), most = walked_tiles / 8;
  return int(wanted < most ? wanted : most > 1 ? most : 1);
}

template <int kDim>
void start_attention_backward(const OpArgs& args, const AttentionShape& s) {
  using B = Backward<kDim>;
  const bf16 *dy = args.in[0].as<const bf16>(), *q = args.in[1].as<const bf16>(), *k = args.in[2].as<const bf16>(), *v = args.in[3].as<const bf16>();
  const QueryStatistics* const statistics = start_attention_statistics(args, s, kLog2E);
  const int64_t key_tiles = ceil_div(s.keys, B::kKeys);
  const int splits = attention_splits(args, key_tiles * s.heads * s.batch, ceil_div(s.queries, B::kWalkedQueries));
  const dim3 grid(unsigned(key_tiles * splits), unsigned(s.heads), unsigned(s.batch));
  float* const parts = splits > 1 ? args.scratch<float>(2 * splits * args.out[1].numel()) : nullptr;
  launch(args, attention_keys_kernel<kDim>, grid, dim3(kAttentionThreads), B::kKeysBytes, dy, q, k, v, statistics, args.out[1].as<bf16>(),
         args.out[2].as<bf16>(), parts, s, splits);
  if (splits > 1) start_attention_reduce(args, parts, splits);
  const dim3 query_grid(unsigned(ceil_div(s.queries, B::kQueries)), unsigned(s.heads), unsigned(s.batch));
  launch(args, attention_queries_kernel<kDim>, query_grid, dim3(kAttentionThreads), B::kQueriesBytes, dy, q, k, v, statistics, args.out[0].as<bf16>(), s);
}

}  // namespace cuda
}  // namespace attune
