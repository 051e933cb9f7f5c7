// Layer normalisation of x [rows, C] (Ba, Kiros & Hinton 2016, arXiv:1607.06450) and its gradient. Forward: 8, 16 or 32 lanes of a warp take two rows and go
// over them three times, mean, squares about it, y: the first time from memory, then from first-level cache; 2 elements moved for each, the least. y may lie on
// x. Backward: a block takes a run of rows in chunks of what its warps hold at once; warps form each row's two means, then threads, each on its own channels,
// write dx and add to dgamma and dbeta, reading the chunk (about 40 KB) again from first-level cache: 3 elements moved for each, the least, and a partial row
// of dgamma and dbeta for each block, added up in a fixed order. dx may lie on dy: a chunk's means are complete before any of it is written.
#include <algorithm>

#include "block.cuh"
#include "columns.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kRowThreads = 256, kRowsTogether = 2, kColumnThreads = 512;

/// Sum over the `lanes` lanes, a power of two, that share a row.
ATTUNE_DEVICE float lanes_sum(float v, int lanes) {
  ATTUNE_ROLLED
  for (int step = lanes / 2; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

template <typename T, int N>
__global__ void __launch_bounds__(kRowThreads)
    layer_norm_kernel(const T* x, const __grid_constant__ Parameter gamma, const __grid_constant__ Parameter beta, T* y, float* __restrict__ mean,
                      float* __restrict__ rstd, int64_t rows, int n, int lanes, float eps) {
  const int lane = int(threadIdx.x) % lanes;
  const int64_t first = (int64_t(blockIdx.x) * (kRowThreads / lanes) + int(threadIdx.x) / lanes) * kRowsTogether;
  float mu[kRowsTogether] = {}, r[kRowsTogether] = {};
  const auto each = [&](auto&& body) {  // body(row of the pair, values, first channel)
    for (int c = lane * N; c < n; c += lanes * N) {
      raw_t<T, N> raw[kRowsTogether];
      ATTUNE_UNROLL
      for (int k = 0; k < kRowsTogether; k++)
        if (first + k < rows) raw[k] = load_raw<N>(x + (first + k) * n + c);
      ATTUNE_UNROLL
      for (int k = 0; k < kRowsTogether; k++) {
        if (first + k >= rows) break;
        float v[N];
        widen<T, N>(raw[k], v);
        body(k, v, c);
      }
    }
  };
  each([&](int k, const float (&v)[N], int) {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) mu[k] += v[i];
  });
  ATTUNE_UNROLL
  for (int k = 0; k < kRowsTogether; k++) mu[k] = lanes_sum(mu[k], lanes) / float(n);
  each([&](int k, const float (&v)[N], int) {
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) r[k] += (v[i] - mu[k]) * (v[i] - mu[k]);
  });
  ATTUNE_UNROLL
  for (int k = 0; k < kRowsTogether; k++) {
    r[k] = 1.f / sqrtf(lanes_sum(r[k], lanes) / float(n) + eps);
    if (lane == 0 && first + k < rows) store(mean + first + k, mu[k]), store(rstd + first + k, r[k]);
  }
  for (int c = lane * N; c < n; c += lanes * N) {
    float scale[N], shift[N];
    parameter_lanes(gamma, c, scale);
    parameter_lanes(beta, c, shift);
    ATTUNE_UNROLL
    for (int k = 0; k < kRowsTogether; k++) {
      if (first + k >= rows) break;
      float v[N];
      load_lanes<N>(x + (first + k) * n + c, v);
      ATTUNE_UNROLL
      for (int i = 0; i < N; i++) v[i] = (v[i] - mu[k]) * r[k] * scale[i] + shift[i];
      store_lanes<N>(y + (first + k) * n + c, v);
    }
  }
}

/// Block b takes rows [b * each, (b + 1) * each) and leaves partials [b] = dgamma [C], dbeta [C]. Shared memory: four numbers a row of a chunk, then 2 N a
/// thread.
template <typename T, int N>
__global__ void __launch_bounds__(kColumnThreads)
    layer_norm_vjp_kernel(const T* dy, const T* __restrict__ x, const __grid_constant__ Parameter gamma, const float* __restrict__ mean,
                          const float* __restrict__ rstd, T* dx, float* __restrict__ partials, int64_t rows, int64_t each, int n, int lanes) {
  ATTUNE_SHARED(memory);
  float4* numbers = reinterpret_cast<float4*>(memory);  // of a row: mean, rstd, and the means of dy gamma and of dy gamma normalised
  const int chunk = int(blockDim.x) / lanes;            // rows
  float* partial = reinterpret_cast<float*>(numbers + chunk);
  const int lane = int(threadIdx.x) % lanes, vectors = n / N, columns = vectors < int(blockDim.x) ? vectors : int(blockDim.x);
  const int step = int(blockDim.x) / columns, first = int(threadIdx.x) / columns, column = int(threadIdx.x) - first * columns;
  const bool kept = vectors == columns;  // a thread has one vector of channels, whose sums stay in registers; else they stay in `partials`
  const int64_t begin = blockIdx.x * each, end = begin + each < rows ? begin + each : rows;
  float* to = partials + int64_t(blockIdx.x) * 2 * n;
  float acc[2][N] = {};
  ATTUNE_ROLLED
  for (int64_t at = begin; at < end; at += chunk) {
    const int64_t row = at + int(threadIdx.x) / lanes;
    float level = 0, slope = 0, mu = 0, r = 0;
    if (row < end) {
      mu = load(mean + row), r = load(rstd + row);
      for (int c = lane * N; c < n; c += lanes * N) {
        float g[N], up[N], v[N];
        load_lanes<N>(dy + row * n + c, up);
        load_lanes<N>(x + row * n + c, v);
        parameter_lanes(gamma, c, g);
        ATTUNE_UNROLL
        for (int i = 0; i < N; i++) level += up[i] * g[i], slope += up[i] * g[i] * ((v[i] - mu) * r);
      }
    }
    level = lanes_sum(level, lanes) / float(n), slope = lanes_sum(slope, lanes) / float(n);
    __syncthreads();
    if (lane == 0) store(numbers + int(threadIdx.x) / lanes, float4{mu, r, level, slope});
    __syncthreads();
    const int count = int(end - at < chunk ? end - at : chunk);
    ATTUNE_ROLLED
    for (int v = column; v < vectors && first < step; v += columns) {
      float g[N];
      parameter_lanes(gamma, v * N, g);
      if (!kept && at > begin) load_floats(to + v * N, acc[0]), load_floats(to + n + v * N, acc[1]);
      ATTUNE_ROLLED
      for (int k = first; k < count; k += step) {
        const float4 m = load(numbers + k);
        float up[N], normal[N];
        load_lanes<N>(dy + (at + k) * n + v * N, up);
        load_lanes<N>(x + (at + k) * n + v * N, normal);
        ATTUNE_UNROLL
        for (int i = 0; i < N; i++) {
          normal[i] = (normal[i] - m.x) * m.y;
          acc[0][i] += up[i] * normal[i], acc[1][i] += up[i];
          up[i] = m.y * (up[i] * g[i] - m.z - normal[i] * m.w);
        }
        store_lanes<N>(dx + (at + k) * n + v * N, up);
      }
      if (kept) continue;
      store_floats(to + v * N, acc[0]), store_floats(to + n + v * N, acc[1]);
      ATTUNE_UNROLL
      for (int i = 0; i < N; i++) acc[0][i] = acc[1][i] = 0;
    }
  }
  if (!kept) return;
  if (first < step) {
    ATTUNE_UNROLL
    for (int k = 0; k < 2; k++) store_floats(partial + (k * step + first) * n + column * N, acc[k]);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < 2 * n; i += int(blockDim.x)) {
    const int k = i / n;
    float sum = 0;
    for (int s = 0; s < step; s++) sum += load(partial + (k * step + s) * n + i - k * n);
    store(to + i, sum);
  }
}

/// Lanes that share a row of `vectors`: as few as leave five vectors or fewer to each (320, 640 and 1280 channels of bf16 then have exactly five), but no fewer
/// than eight, so that they read whole lines.
static int row_lanes(int64_t vectors) { return vectors <= 40 ? 8 : vectors <= 80 ? 16 : 32; }

/// start(tag, lanes constant, vectors of a row)
template <typename Start>
static void by_row(const TensorRef& x, Start&& start) {
  dispatch(x.dtype, [&](auto tag) {
    constexpr int N = lanes_of<decltype(tag)>;
    const int64_t n = x.dim(-1);
    if (n % N == 0) start(tag, std::integral_constant<int, N>{}, n / N);
    else start(tag, std::integral_constant<int, 1>{}, n);
  });
}

void layer_norm_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  by_row(x, [&](auto tag, auto constant, int64_t vectors) {
    using T = decltype(tag);
    const int lanes = row_lanes(vectors);
    launch(args, layer_norm_kernel<T, constant()>, dim3(unsigned(ceil_div(x.rows(), kRowThreads / lanes * kRowsTogether))), dim3(kRowThreads), 0,
           x.as<const T>(), args.parameter(1), args.parameter(2), y.as<T>(), args.out[1].as<float>(), args.out[2].as<float>(), x.rows(), int(x.dim(-1)), lanes,
           float(args.attrs.number("eps")));
  });
}

void layer_norm_vjp_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &x = args.in[1], &dx = args.out[0];
  const int64_t n = x.dim(-1), rows = x.rows();
  by_row(x, [&](auto tag, auto constant, int64_t vectors) {
    using T = decltype(tag);
    constexpr int N = constant();
    // Whole rows of threads, 256 or more of them.
    const int64_t rows_of_threads = ceil_div(ceil_div(256, vectors) * vectors, 32) * 32;
    const int lanes = row_lanes(vectors), threads = int(std::min<int64_t>(kColumnThreads, rows_of_threads)), chunk = threads / lanes;
    const int64_t each = ceil_div(ceil_div(rows, int64_t(args.caps().multiprocessors) * 3), chunk) * chunk, blocks = ceil_div(rows, each);
    const int64_t sums = vectors <= threads ? 2 * (threads / vectors) * n * 4 : 0;
    float* partials = args.scratch<float>(blocks * 2 * n);
    launch(args, layer_norm_vjp_kernel<T, N>, dim3(unsigned(blocks)), dim3(unsigned(threads)), int(chunk * 16 + sums), dy.as<const T>(), x.as<const T>(),
           args.parameter(2), args.in[3].as<const float>(), args.in[4].as<const float>(), dx.as<T>(), partials, rows, each, int(n), lanes);
    sum_columns(args, partials, 1, blocks, 2 * n, args.out[1], n, args.out[2]);
  });
}

REGISTER_CUDA(layer_norm, layer_norm_op)
REGISTER_CUDA(layer_norm_vjp, layer_norm_vjp_op)

}  // namespace cuda
}  // namespace attune
