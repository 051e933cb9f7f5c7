// Starts attention's backward pass on sm_90a: maps of q, dy, k and v as [B, tokens, heads, dim], statistics of queries, then dk and dv, then dq.
#include "hopper_attention_backward.cuh"

#include <algorithm>

#include "hopper_attention.h"

namespace attune {
namespace cuda {

namespace {

/// Boxes of one swizzle span of channels x one head x `rows` tokens x one sample.
template <typename H>
TensorMap map_of_rows(const TensorRef& x, const AttentionShape& s, int64_t tokens, int rows) {
  const int64_t extent[] = {s.dim, s.heads, tokens, s.batch}, stride[] = {int64_t(s.dim) * 2, s.width * 2, tokens * s.width * 2};
  const int box[] = {H::kSpan / 2, 1, rows, 1};
  return tensor_map(x.data, 4, extent, stride, box, H::kSwizzle);
}

/// Rows of 64 queries, as numbers of two bytes: all that a map can be made of.
TensorMap map_of_statistics(const QueryStatistics* statistics, const AttentionShape& s, int walk) {
  const int64_t extent[] = {256, int64_t(s.batch) * s.heads * s.padded_queries() / 64}, stride[] = {512};
  const int box[] = {std::min(walk, 64) * 4, std::max(walk / 64, 1)};
  return tensor_map(statistics, 2, extent, stride, box, Swizzle::none);
}

template <int kDim>
void start(const OpArgs& args, const AttentionShape& s) {
  using K = HopperBackward<kDim, true>;
  using Q = HopperBackward<kDim, false>;
  const TensorRef &dy = args.in[0], &q = args.in[1], &k = args.in[2], &v = args.in[3];
  const QueryStatistics* const statistics = start_attention_statistics(args, s, kLog2E);
  const int blocks = args.caps().multiprocessors;

  const int key_tiles = int(ceil_div(s.keys, K::kOwned)) * s.heads * s.batch;
  const int splits = attention_splits(args, key_tiles, ceil_div(s.queries, K::kWalk));
  float* const parts = splits > 1 ? args.scratch<float>(2 * splits * args.out[1].numel()) : nullptr;
  HopperBackwardMaps maps{};
  if (!args.dry) {
    maps.owned[0] = map_of_rows<K>(k, s, s.keys, K::kOwned), maps.owned[1] = map_of_rows<K>(v, s, s.keys, K::kOwned);
    maps.walked[0] = map_of_rows<K>(q, s, s.queries, K::kWalk), maps.walked[1] = map_of_rows<K>(dy, s, s.queries, K::kWalk);
    maps.statistics = map_of_statistics(statistics, s, K::kWalk);
  }
  launch(args, hopper_attention_keys_kernel<kDim>, dim3(unsigned(std::min(key_tiles * splits, blocks))), dim3(384), K::kShared, maps, args.out[1].as<bf16>(),
         args.out[2].as<bf16>(), parts, s, key_tiles * splits, splits);
  if (splits > 1) start_attention_reduce(args, parts, splits);

  const int query_tiles = int(ceil_div(s.queries, Q::kOwned)) * s.heads * s.batch;
  if (!args.dry) {
    maps.owned[0] = map_of_rows<Q>(q, s, s.queries, Q::kOwned), maps.owned[1] = map_of_rows<Q>(dy, s, s.queries, Q::kOwned);
    maps.walked[0] = map_of_rows<Q>(k, s, s.keys, Q::kWalk), maps.walked[1] = map_of_rows<Q>(v, s, s.keys, Q::kWalk);
  }
  launch(args, hopper_attention_queries_kernel<kDim>, dim3(unsigned(std::min(query_tiles, blocks))), dim3(384), Q::kShared, maps, statistics,
         args.out[0].as<bf16>(), s, query_tiles);
}

}  // namespace

bool start_hopper_attention_backward(const OpArgs& args, const AttentionShape& s) {
  if (!hopper_serves(args.caps(), reinterpret_cast<const void*>(hopper_attention_keys_kernel<64>)) || args.in[0].dtype != DType::bf16 || s.dim % 8 ||
      s.dim > 160 || s.keys <= 80)
    return false;
  // Items and rows of statistics are counted in 32 bits.
  if (int64_t(s.padded_queries()) * s.heads * s.batch >= int64_t(1) << 31 || ceil_div(s.keys, 128) * s.heads * s.batch >= int64_t(1) << 24) return false;
  if (s.dim <= 40) start<40>(args, s);
  else if (s.dim <= 64) start<64>(args, s);
  else if (s.dim <= 80) start<80>(args, s);
  else if (s.dim <= 128) start<128>(args, s);
  else start<160>(args, s);
  return true;
}

}  // namespace cuda
}  // namespace attune
