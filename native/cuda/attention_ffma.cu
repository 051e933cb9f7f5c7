// Attention forward and backward by multiply-adds of f32, for f32 and for bf16 heads that tensor cores are not compiled for: any number of channels.
//
// A block of 16 x 16 threads owns 64 tokens and walks over the others 32 at a time: queries are owned and keys walked over for y and dq, the other way round
// for dk and dv. Scores [64 owned, 32 walked] are summed over slabs of 32 channels; the result is a panel of 128 channels, so that its 64 x 128 numbers fit in
// registers. Heads of more channels take a block for each panel, which all make the scores anew.
#include "attention.cuh"

namespace attune {
namespace cuda {

constexpr int kFfmaThreads = 256, kOwned = 64, kWalked = 32, kSlab = 32, kPanel = 128;
constexpr int kSlabPitch = kSlab + 4, kWeightPitch = kOwned + 4,
              kPanelPitch = kPanel + 4;  // rows begin four banks apart: vectors of 16 bytes without conflicts
constexpr int kSlabFloats = (kOwned + kWalked) * kSlabPitch, kWeightFloats = kWalked * kWeightPitch, kPanelFloats = kWalked * kPanelPitch;

/// kRows tokens from `first` on, kColumns channels from `channel` on, as f32; zero outside of the head.
template <int kRows, int kColumns, typename T>
ATTUNE_DEVICE void copy_floats(float* to, const T* from, int first, int tokens, int channel, const AttentionShape& s) {
  for (int i = int(threadIdx.x); i < kRows * kColumns; i += kFfmaThreads) {
    const int row = i / kColumns, column = i % kColumns;
    const bool inside = first + row < tokens && channel + column < s.dim;
    store(to + row * (kColumns + 4) + column, inside ? to_float(load(from + (first + row) * s.width + channel + column)) : 0.f);
  }
}

ATTUNE_DEVICE int ffma_row() { return int(threadIdx.x / 16 * 4); }  // this thread's owned tokens: four from here on
ATTUNE_DEVICE int ffma_column() { return int(threadIdx.x % 16); }   // its walked tokens: this one, and this one + 16

/// scores[i][j] = owned token ffma_row() + i times walked token ffma_column() + 16 j. Begins with a barrier.
template <typename T>
ATTUNE_DEVICE void ffma_scores(float (&scores)[4][2], const T* owned, int first_owned, int owned_tokens, const T* walked, int first_walked, int walked_tokens,
                               float* slab, const AttentionShape& s) {
  float* const walked_slab = slab + kOwned * kSlabPitch;
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) scores[i][0] = scores[i][1] = 0.f;
  for (int channel = 0; channel < s.dim; channel += kSlab) {
    __syncthreads();
    copy_floats<kOwned, kSlab>(slab, owned, first_owned, owned_tokens, channel, s);
    copy_floats<kWalked, kSlab>(walked_slab, walked, first_walked, walked_tokens, channel, s);
    __syncthreads();
    ATTUNE_UNROLL
    for (int c = 0; c < kSlab; c += 4) {
      float4 b[2];
      ATTUNE_UNROLL
      for (int j = 0; j < 2; j++) b[j] = load(reinterpret_cast<const float4*>(walked_slab + (ffma_column() + 16 * j) * kSlabPitch + c));
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) {
        const float4 a = load(reinterpret_cast<const float4*>(slab + (ffma_row() + i) * kSlabPitch + c));
        ATTUNE_UNROLL
        for (int j = 0; j < 2; j++) scores[i][j] += a.x * b[j].x + a.y * b[j].y + a.z * b[j].z + a.w * b[j].w;
      }
    }
  }
}

/// Lays a thread's weights where ffma_accumulate reads them: [walked, owned].
ATTUNE_DEVICE void store_weights(float* to, const float (&weights)[4][2]) {
  ATTUNE_UNROLL
  for (int j = 0; j < 2; j++) {
    const float4 column = {weights[0][j], weights[1][j], weights[2][j], weights[3][j]};
    store(reinterpret_cast<float4*>(to + (ffma_column() + 16 * j) * kWeightPitch + ffma_row()), column);
  }
}

/// acc[i][c] += weights of owned token ffma_row() + i times channels of the panel: c < 4 are 4 * ffma_column() + c, the others 64 further.
ATTUNE_DEVICE void ffma_accumulate(float (&acc)[4][8], const float* weights, const float* panel) {
  ATTUNE_UNROLL
  for (int token = 0; token < kWalked; token++) {
    const float4 w = load(reinterpret_cast<const float4*>(weights + token * kWeightPitch + ffma_row()));
    ATTUNE_UNROLL
    for (int half = 0; half < 2; half++) {
      const float4 x = load(reinterpret_cast<const float4*>(panel + token * kPanelPitch + half * 64 + ffma_column() * 4));
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) {
        const float weight = i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w;
        float* const to = acc[i] + half * 4;
        to[0] += weight * x.x, to[1] += weight * x.y, to[2] += weight * x.z, to[3] += weight * x.w;
      }
    }
  }
}
ATTUNE_DEVICE void clear_panel(float (&acc)[4][8]) {
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) {
    ATTUNE_UNROLL
    for (int c = 0; c < 8; c++) acc[i][c] = 0.f;
  }
}
/// Stores acc[i] * factor[i] as this thread's owned tokens.
template <typename T>
ATTUNE_DEVICE void store_panel(T* to, const float (&acc)[4][8], const float (&factor)[4], int first, int tokens, int channel, const AttentionShape& s) {
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) {
    const int token = first + ffma_row() + i;
    ATTUNE_UNROLL
    for (int c = 0; c < 8; c++) {
      const int at = channel + ffma_column() * 4 + c / 4 * 64 + c % 4;
      if (token < tokens && at < s.dim) store(to + token * s.width + at, from_float<T>(acc[i][c] * factor[i]));
    }
  }
}

ATTUNE_DEVICE float mask_of(int key, int b, const AttentionShape& s) { return s.mask && key < s.keys ? s.mask.at(b * s.mask_stride + key) : 0.f; }

template <typename T>
__global__ void __launch_bounds__(kFfmaThreads, 1) attention_ffma_kernel(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                                                                         T* __restrict__ y, float* __restrict__ lse, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  float *const slab = reinterpret_cast<float*>(memory), *const weights = slab + kSlabFloats, *const panel = weights + kWeightFloats;
  const int h = int(blockIdx.y), b = int(blockIdx.z), q0 = int(blockIdx.x) / panels * kOwned, channel = int(blockIdx.x) % panels * kPanel;
  const T *const queries = q + s.at(b, h, s.queries), *const keys = k + s.at(b, h, s.keys), *const values = v + s.at(b, h, s.keys);
  float acc[4][8], top[4], sum[4];
  clear_panel(acc);
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) top[i] = -INFINITY, sum[i] = 0.f;

  for (int k0 = 0; k0 < s.visible_before(q0 + kOwned); k0 += kWalked) {
    float p[4][2];
    ffma_scores(p, queries, q0, s.queries, keys, k0, s.keys, slab, s);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) {
      const int seen = s.visible(q0 + ffma_row() + i);
      ATTUNE_UNROLL
      for (int j = 0; j < 2; j++) {
        const int key = k0 + ffma_column() + 16 * j;
        p[i][j] = key < seen ? p[i][j] * s.scale + mask_of(key, b, s) : -INFINITY;
      }
      float high = fmaxf(p[i][0], p[i][1]);
      ATTUNE_UNROLL
      for (int step = 8; step > 0; step /= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, step));  // the row's sixteen lanes
      high = fmaxf(high, top[i]);
      const float shift = high == -INFINITY ? 0.f : high, fade = expf(top[i] - shift);
      p[i][0] = expf(p[i][0] - shift), p[i][1] = expf(p[i][1] - shift);
      top[i] = high, sum[i] = sum[i] * fade + (p[i][0] + p[i][1]);
      ATTUNE_UNROLL
      for (int c = 0; c < 8; c++) acc[i][c] *= fade;
    }
    store_weights(weights, p);
    copy_floats<kWalked, kPanel>(panel, values, k0, s.keys, channel, s);
    __syncthreads();
    ffma_accumulate(acc, weights, panel);
  }
  float inverse[4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) {
    ATTUNE_UNROLL
    for (int step = 8; step > 0; step /= 2) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], step);
    inverse[i] = sum[i] == 0.f ? 0.f : 1.f / sum[i];
    const int query = q0 + ffma_row() + i;
    if (channel == 0 && query < s.queries && ffma_column() == 0)
      store(lse + (int64_t(b) * s.heads + h) * s.queries + query, sum[i] == 0.f ? -INFINITY : top[i] + logf(sum[i]));
  }
  store_panel(y + s.at(b, h, s.queries), acc, inverse, q0, s.queries, channel, s);
}

template <typename T>
__global__ void __launch_bounds__(kFfmaThreads, 1)
    attention_ffma_keys_kernel(const T* __restrict__ dy, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                               const QueryStatistics* __restrict__ statistics, T* __restrict__ dk, T* __restrict__ dv, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  float *const slab = reinterpret_cast<float*>(memory), *const p_weights = slab + kSlabFloats, *const ds_weights = p_weights + kWeightFloats;
  float *const query_panel = ds_weights + kWeightFloats, *const gradient_panel = query_panel + kPanelFloats;
  const int h = int(blockIdx.y), b = int(blockIdx.z), k0 = int(blockIdx.x) / panels * kOwned, channel = int(blockIdx.x) % panels * kPanel;
  const T *const queries = q + s.at(b, h, s.queries), *const gradients = dy + s.at(b, h, s.queries);
  const T *const keys = k + s.at(b, h, s.keys), *const values = v + s.at(b, h, s.keys);
  float dk_acc[4][8], dv_acc[4][8], added[4];
  clear_panel(dk_acc);
  clear_panel(dv_acc);
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) added[i] = mask_of(k0 + ffma_row() + i, b, s);

  for (int q0 = s.causal ? k0 / kWalked * kWalked : 0; q0 < s.queries; q0 += kWalked) {
    float p[4][2], ds[4][2];
    ffma_scores(p, keys, k0, s.keys, queries, q0, s.queries, slab, s);
    ffma_scores(ds, values, k0, s.keys, gradients, q0, s.queries, slab, s);
    ATTUNE_UNROLL
    for (int j = 0; j < 2; j++) {
      const int query = q0 + ffma_column() + 16 * j;
      const float2 of = query < s.queries ? load(reinterpret_cast<const float2*>(statistics + (int64_t(b) * s.heads + h) * s.padded_queries() + query))
                                          : make_float2(INFINITY, 0.f);
      ATTUNE_UNROLL
      for (int i = 0; i < 4; i++) {
        const bool seen = k0 + ffma_row() + i < s.visible(query);
        p[i][j] = seen ? expf(p[i][j] * s.scale + added[i] - of.x) : 0.f;
        ds[i][j] = p[i][j] * (ds[i][j] - of.y);
      }
    }
    store_weights(p_weights, p);
    store_weights(ds_weights, ds);
    copy_floats<kWalked, kPanel>(query_panel, queries, q0, s.queries, channel, s);
    copy_floats<kWalked, kPanel>(gradient_panel, gradients, q0, s.queries, channel, s);
    __syncthreads();
    ffma_accumulate(dv_acc, p_weights, gradient_panel);
    ffma_accumulate(dk_acc, ds_weights, query_panel);
  }
  const float scales[4] = {s.scale, s.scale, s.scale, s.scale}, ones[4] = {1.f, 1.f, 1.f, 1.f};
  store_panel(dk + s.at(b, h, s.keys), dk_acc, scales, k0, s.keys, channel, s);
  store_panel(dv + s.at(b, h, s.keys), dv_acc, ones, k0, s.keys, channel, s);
}

template <typename T>
__global__ void __launch_bounds__(kFfmaThreads, 1)
    attention_ffma_queries_kernel(const T* __restrict__ dy, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                                  const QueryStatistics* __restrict__ statistics, T* __restrict__ dq, AttentionShape s, int panels) {
  ATTUNE_SHARED(memory);
  float *const slab = reinterpret_cast<float*>(memory), *const weights = slab + kSlabFloats, *const panel = weights + kWeightFloats;
  const int h = int(blockIdx.y), b = int(blockIdx.z), q0 = int(blockIdx.x) / panels * kOwned, channel = int(blockIdx.x) % panels * kPanel;
  const T *const queries = q + s.at(b, h, s.queries), *const gradients = dy + s.at(b, h, s.queries);
  const T *const keys = k + s.at(b, h, s.keys), *const values = v + s.at(b, h, s.keys);
  float acc[4][8];
  clear_panel(acc);
  float2 of[4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) {
    const int query = q0 + ffma_row() + i;
    of[i] = query < s.queries ? load(reinterpret_cast<const float2*>(statistics + (int64_t(b) * s.heads + h) * s.padded_queries() + query))
                              : make_float2(INFINITY, 0.f);
  }
  for (int k0 = 0; k0 < s.visible_before(q0 + kOwned); k0 += kWalked) {
    float p[4][2], ds[4][2];
    ffma_scores(p, queries, q0, s.queries, keys, k0, s.keys, slab, s);
    ffma_scores(ds, gradients, q0, s.queries, values, k0, s.keys, slab, s);
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) {
      const int seen = s.visible(q0 + ffma_row() + i);
      ATTUNE_UNROLL
      for (int j = 0; j < 2; j++) {
        const int key = k0 + ffma_column() + 16 * j;
        const float weight = key < seen ? expf(p[i][j] * s.scale + mask_of(key, b, s) - of[i].x) : 0.f;
        ds[i][j] = weight * (ds[i][j] - of[i].y);
      }
    }
    store_weights(weights, ds);
    copy_floats<kWalked, kPanel>(panel, keys, k0, s.keys, channel, s);
    __syncthreads();
    ffma_accumulate(acc, weights, panel);
  }
  const float scales[4] = {s.scale, s.scale, s.scale, s.scale};
  store_panel(dq + s.at(b, h, s.queries), acc, scales, q0, s.queries, channel, s);
}

static dim3 ffma_grid(int tokens, const AttentionShape& s) {
  return dim3(unsigned(ceil_div(tokens, kOwned) * ceil_div(s.dim, kPanel)), unsigned(s.heads), unsigned(s.batch));
}
constexpr int kFfmaBytes = (kSlabFloats + kWeightFloats + kPanelFloats) * 4, kFfmaKeysBytes = kFfmaBytes + (kWeightFloats + kPanelFloats) * 4;

void start_attention_ffma(const OpArgs& args, const AttentionShape& s) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, attention_ffma_kernel<T>, ffma_grid(s.queries, s), dim3(kFfmaThreads), kFfmaBytes, args.in[0].as<const T>(), args.in[1].as<const T>(),
           args.in[2].as<const T>(), args.out[0].as<T>(), args.out[1].as<float>(), s, int(ceil_div(s.dim, kPanel)));
  });
}

void start_attention_ffma_backward(const OpArgs& args, const AttentionShape& s) {
  const QueryStatistics* const statistics = start_attention_statistics(args, s, 1.f);
  const int panels = int(ceil_div(s.dim, kPanel));
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const T *dy = args.in[0].as<const T>(), *q = args.in[1].as<const T>(), *k = args.in[2].as<const T>(), *v = args.in[3].as<const T>();
    launch(args, attention_ffma_keys_kernel<T>, ffma_grid(s.keys, s), dim3(kFfmaThreads), kFfmaKeysBytes, dy, q, k, v, statistics, args.out[1].as<T>(),
           args.out[2].as<T>(), s, panels);
    launch(args, attention_ffma_queries_kernel<T>, ffma_grid(s.queries, s), dim3(kFfmaThreads), kFfmaBytes, dy, q, k, v, statistics, args.out[0].as<T>(), s,
           panels);
  });
}

}  // namespace cuda
}  // namespace attune
