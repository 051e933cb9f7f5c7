// attention and attention_vjp: which kernels serve a call, and the two small ones of the backward pass. bf16 heads of a multiple of 8 channels run on tensor
// cores: up to 160 channels rounded up to the next compiled size, more in panels (attention_wide.cu). Everything else, and all of f32, runs on multiply-adds of
// f32 (attention_ffma.cu).
#include "hopper_attention.h"

namespace attune {
namespace cuda {

/// dot of dy and y per query and head by four lanes, in a fixed order; one thread of them writes. Rows past the queries say "attends to nothing".
template <typename T>
__global__ void __launch_bounds__(256) attention_statistics_kernel(const T* __restrict__ dy, const T* __restrict__ y, const float* __restrict__ lse,
                                                                   QueryStatistics* __restrict__ statistics, AttentionShape s, float unit) {
  constexpr int kUnit = 16 / int(sizeof(T));
  const int64_t index = int64_t(blockIdx.x) * (blockDim.x / 4) + threadIdx.x / 4;
  const int h = int(index % s.heads), query = int(index / s.heads % s.padded_queries());
  const int64_t b = index / s.heads / s.padded_queries();
  const bool inside = b < s.batch && query < s.queries;
  float dot = 0.f;
  if (inside) {
    const int64_t at = (b * s.queries + query) * s.width + h * s.dim;
    if (s.dim % kUnit == 0) {
      for (int unit_at = int(threadIdx.x % 4); unit_at * kUnit < s.dim; unit_at += 4) {
        union {
          uint4 vector;
          T numbers[kUnit];
        } a, c;
        a.vector = load(reinterpret_cast<const uint4*>(dy + at) + unit_at), c.vector = load(reinterpret_cast<const uint4*>(y + at) + unit_at);
        ATTUNE_UNROLL
        for (int i = 0; i < kUnit; i++) dot += to_float(a.numbers[i]) * to_float(c.numbers[i]);
      }
    } else
      for (int i = int(threadIdx.x % 4); i < s.dim; i += 4) dot += to_float(load(dy + at + i)) * to_float(load(y + at + i));
  }
  dot += __shfl_xor_sync(0xffffffffu, dot, 1);
  dot += __shfl_xor_sync(0xffffffffu, dot, 2);
  if (b >= s.batch || threadIdx.x % 4 != 0) return;
  float of_row = INFINITY;
  if (inside) {
    const float natural = load(lse + (b * s.heads + h) * s.queries + query);
    if (natural != -INFINITY) of_row = natural * unit;
  }
  store(reinterpret_cast<float2*>(statistics + (b * s.heads + h) * s.padded_queries() + query), make_float2(of_row, dot));
}

const QueryStatistics* start_attention_statistics(const OpArgs& args, const AttentionShape& s, float unit) {
  const int64_t rows = int64_t(s.batch) * s.heads * s.padded_queries();
  QueryStatistics* const statistics = args.scratch<QueryStatistics>(rows);
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, attention_statistics_kernel<T>, dim3(unsigned(ceil_div(rows * 4, 256))), dim3(256), 0, args.in[0].as<const T>(), args.in[4].as<const T>(),
           args.in[5].as<const float>(), statistics, s, unit);
  });
  return statistics;
}

__global__ void __launch_bounds__(256)
    attention_reduce_kernel(const float* __restrict__ parts, bf16* __restrict__ dk, bf16* __restrict__ dv, int64_t count, int splits) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float* const mine = parts + blockIdx.y * splits * count + i;
  float sum = 0.f;
  for (int split = 0; split < splits; split++) sum += load(mine + split * count);
  store((blockIdx.y ? dv : dk) + i, from_float<bf16>(sum));
}

void start_attention_reduce(const OpArgs& args, const float* parts, int splits) {
  const int64_t count = args.out[1].numel();
  launch(args, attention_reduce_kernel, dim3(unsigned(ceil_div(count, 256)), 2), dim3(256), 0, parts, args.out[1].as<bf16>(), args.out[2].as<bf16>(), count,
         splits);
}

static AttentionShape attention_shape(const OpArgs& args, const TensorRef& q, const TensorRef& k, int mask) {
  AttentionShape s{};
  s.batch = int(q.dim(0)), s.queries = int(q.dim(1)), s.keys = int(k.dim(1)), s.width = q.dim(2);
  s.heads = int(args.attrs.integer("heads")), s.dim = int(s.width / s.heads);
  s.scale = float(args.attrs.number("scale", 1 / std::sqrt(double(s.dim)))), s.causal = args.attrs.flag("causal", false);
  s.mask = args.parameter(mask), s.mask_stride = args.has(mask) && args.in[mask].dim(0) > 1 ? s.keys : 0;
  return s;
}

static bool on_tensor_cores(const OpArgs& args, const AttentionShape& s) { return args.in[0].dtype == DType::bf16 && s.dim % 8 == 0; }

/// Runs body with the compiled size of head that serves one of `dim` channels, as a constant; false if that is too wide for any.
template <typename Body>
static bool compiled_head(int dim, Body&& body) {
  if (dim <= 40) body(std::integral_constant<int, 40>{});
  else if (dim <= 64) body(std::integral_constant<int, 64>{});
  else if (dim <= 80) body(std::integral_constant<int, 80>{});
  else if (dim <= 128) body(std::integral_constant<int, 128>{});
  else if (dim <= 160) body(std::integral_constant<int, 160>{});
  return dim <= 160;
}

void attention_op(const OpArgs& args) {
  const AttentionShape s = attention_shape(args, args.in[0], args.in[1], 3);
  if (start_hopper_attention(args, s)) return;
  if (!on_tensor_cores(args, s)) start_attention_ffma(args, s);
  else if (!compiled_head(s.dim, [&](auto dim) { start_attention_forward<dim.value>(args, s); })) start_attention_wide(args, s);
}

void attention_vjp_op(const OpArgs& args) {
  const AttentionShape s = attention_shape(args, args.in[1], args.in[2], 6);
  if (start_hopper_attention_backward(args, s)) return;
  if (!on_tensor_cores(args, s)) start_attention_ffma_backward(args, s);
  else if (!compiled_head(s.dim, [&](auto dim) { start_attention_backward<dim.value>(args, s); })) start_attention_wide_backward(args, s);
}

REGISTER_CUDA(attention, attention_op)
REGISTER_CUDA(attention_vjp, attention_vjp_op)

}  // namespace cuda
}  // namespace attune
