// Starts attention on sm_90a: maps of q, k and v as [B, tokens, heads, dim], and one block for every multiprocessor at most.
#include "hopper_attention.h"

#include <algorithm>

#include "hopper_attention.cuh"

namespace attune {
namespace cuda {

namespace {

/// Boxes of `channels` x one head x 128 tokens x one sample.
TensorMap map_of_heads(const TensorRef& x, const AttentionShape& s, int64_t tokens, int channels, Swizzle swizzle) {
  const int64_t extent[] = {s.dim, s.heads, tokens, s.batch}, stride[] = {int64_t(s.dim) * 2, s.width * 2, tokens * s.width * 2};
  const int box[] = {channels, 1, 128, 1};
  return tensor_map(x.data, 4, extent, stride, box, swizzle);
}

template <int kDim>
void start(const OpArgs& args, const AttentionShape& s) {
  using H = HopperHead<kDim>;
  HopperAttentionMaps maps{};
  if (!args.dry) {
    const TensorRef &q = args.in[0], &k = args.in[1], &v = args.in[2];
    maps.q = map_of_heads(q, s, s.queries, 64, Swizzle::span128), maps.k = map_of_heads(k, s, s.keys, 64, Swizzle::span128);
    if (H::kTail) maps.q_tail = map_of_heads(q, s, s.queries, H::kTail, H::kTailSwizzle), maps.k_tail = map_of_heads(k, s, s.keys, H::kTail, H::kTailSwizzle);
    maps.v = map_of_heads(v, s, s.keys, H::kValueSpan / 2, H::kValueSwizzle);
  }
  const int items = int(ceil_div(s.queries, H::kQueries)) * s.heads * s.batch;
  launch(args, hopper_attention_kernel<kDim>, dim3(unsigned(std::min(items, args.caps().multiprocessors))), dim3(384), H::kShared, maps, args.out[0].as<bf16>(),
         args.out[1].as<float>(), s, items);
}

}  // namespace

bool start_hopper_attention(const OpArgs& args, const AttentionShape& s) {
  if (!hopper_serves(args.caps(), reinterpret_cast<const void*>(hopper_attention_kernel<64>)) || args.in[0].dtype != DType::bf16 || s.dim % 8 || s.dim > 160 ||
      s.keys <= 80)
    return false;
  if (ceil_div(s.queries, 128) * s.heads * s.batch >= int64_t(1) << 31) return false;
  if (s.dim <= 40) start<40>(args, s);
  else if (s.dim <= 64) start<64>(args, s);
  else if (s.dim <= 80) start<80>(args, s);
  else if (s.dim <= 128) start<128>(args, s);
  else start<160>(args, s);
  return true;
}

}  // namespace cuda
}  // namespace attune
