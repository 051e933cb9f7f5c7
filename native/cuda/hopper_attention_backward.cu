// Starts attention's backward pass on sm_90a: statistics of queries, then dk and dv, then dq.
#include <algorithm>

#include "hopper_attention.h"
#include "hopper_attention_keys.cuh"
#include "hopper_attention_queries.cuh"

namespace attune {
namespace cuda {

namespace {

/// Of a tensor [B, tokens, heads, dim]: boxes of one swizzle span of channels x one head x `rows` tokens x one sample.
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

/// Runs of queries, of `most` at most, that an owned tile's walk is cut into: the fewest that keep multiprocessors busy for four fifths of the time, as parts
/// of dk and dv are written and read once more; else those that keep them busiest.
int64_t splits_of(int64_t tiles, int64_t most, int64_t multiprocessors) {
  const auto busy = [&](int64_t splits) { return double(tiles * splits) / double(ceil_div(tiles * splits, multiprocessors) * multiprocessors); };
  int64_t best = 1;
  for (int64_t splits = 2; splits <= most && busy(best) < 0.8; splits++)
    if (busy(splits) > busy(best)) best = splits;
  return best;
}

/// dk and dv. Where keys are few, runs of queries are items of their own.
template <int kDim>
void start_keys(const OpArgs& args, const AttentionShape& s, const QueryStatistics* statistics) {
  using H = HopperBackward<kDim, HopperPass::keys>;
  const int tiles = int(ceil_div(s.keys, H::kOwned)) * s.heads * s.batch;
  const int splits = int(splits_of(tiles, s.queries / 256, args.caps().multiprocessors)), items = tiles * splits;
  float* const parts = splits > 1 ? args.scratch<float>(2 * splits * args.out[1].numel()) : nullptr;
  HopperBackwardMaps maps{};
  if (!args.dry) {
    maps.owned[0] = map_of_rows<H>(args.in[2], s, s.keys, H::kOwned), maps.owned[1] = map_of_rows<H>(args.in[3], s, s.keys, H::kOwned);
    maps.walked[0] = map_of_rows<H>(args.in[1], s, s.queries, H::kWalk), maps.walked[1] = map_of_rows<H>(args.in[0], s, s.queries, H::kWalk);
    maps.statistics = map_of_statistics(statistics, s, H::kWalk);
  }
  launch(args, hopper_attention_keys_kernel<kDim>, dim3(unsigned(std::min(items, args.caps().multiprocessors))), dim3(384), H::kShared, maps,
         args.out[1].as<bf16>(), args.out[2].as<bf16>(), parts, s, items, splits);
  if (splits > 1) start_attention_reduce(args, parts, splits);
}

template <int kDim, bool kShort>
void start_queries(const OpArgs& args, const AttentionShape& s, const QueryStatistics* statistics) {
  using H = HopperBackward<kDim, kShort ? HopperPass::queries_short : HopperPass::queries>;
  const int items = int(ceil_div(s.queries, H::kOwned)) * s.heads * s.batch;
  HopperBackwardMaps maps{};
  if (!args.dry) {
    maps.owned[0] = map_of_rows<H>(args.in[1], s, s.queries, H::kOwned), maps.owned[1] = map_of_rows<H>(args.in[0], s, s.queries, H::kOwned);
    maps.walked[0] = map_of_rows<H>(args.in[2], s, s.keys, H::kWalk), maps.walked[1] = map_of_rows<H>(args.in[3], s, s.keys, H::kWalk);
  }
  launch(args, hopper_attention_queries_kernel<kDim, kShort>, dim3(unsigned(std::min(items, args.caps().multiprocessors))), dim3(384), H::kShared, maps,
         statistics, args.out[0].as<bf16>(), s, items);
}

template <int kDim>
void start(const OpArgs& args, const AttentionShape& s) {
  const QueryStatistics* const statistics = start_attention_statistics(args, s, kLog2E);
  start_keys<kDim>(args, s, statistics);
  if (s.keys <= kHopperShort) start_queries<kDim, true>(args, s, statistics);
  else start_queries<kDim, false>(args, s, statistics);
}

}  // namespace

bool start_hopper_attention_backward(const OpArgs& args, const AttentionShape& s) {
  if (!hopper_serves(args.caps(), reinterpret_cast<const void*>(hopper_attention_keys_kernel<64>)) || args.in[0].dtype != DType::bf16 || s.dim % 8 ||
      s.dim > 160 || std::max(s.queries, s.keys) <= 64)
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
