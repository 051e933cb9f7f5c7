// Gradient of group normalisation of x [B, P, C], optionally with SiLU behind it. With d = x - mean, z = d rstd gamma + beta and dz = dy silu'(z), or dy:
// dbeta = sum dz, dgamma = sum dz d rstd, dx = rstd (gamma dz - level - d rstd slope), level and slope being the means of gamma dz and gamma dz d rstd over a
// group. Where a sample's pixels of one tile of channels fit in half of the shared memory, one block reads dy and x once and writes dx: 3 elements moved for
// each, the least. Else sums per channel over slabs of 128 pixels go to scratch, are added up in a fixed order, and a second kernel writes dx: 5 moved, silu'
// evaluated twice. dx may lie on dy.
#include "columns.cuh"
#include "group_norm.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

constexpr int kGradientThreads = 256;  // two blocks of the 96 registers that a thread takes, for what is half of the shared memory

struct GroupGradient {
  Parameter gamma, beta;
  const float *mean, *rstd;  // [B, groups]
  int64_t pixels;
  int channels, size, tile;
  bool silu;
};

/// What belongs to the N channels of a vector: d = x - mean, z = d scale + shift.
template <int N>
struct Channels {
  float mean[N], scale[N], shift[N];

  /// From channel c of a sample on.
  ATTUNE_DEVICE Channels(const GroupGradient& p, int64_t sample, int c) {
    parameter_lanes(p.gamma, c, scale);
    parameter_lanes(p.beta, c, shift);
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) {
      const int64_t group = sample * (p.channels / p.size) + (c + i) / p.size;
      mean[i] = load(p.mean + group), scale[i] *= load(p.rstd + group);
    }
  }
};

template <typename T>
ATTUNE_DEVICE float before_silu(bool silu, float dy, float z) {
  return silu ? dy * silu_slope<T>(z) : dy;
}

/// acc[0] += dz, acc[1] += dz d.
template <typename T, int N>
ATTUNE_DEVICE void add_gradients(const Channels<N>& c, bool silu, raw_t<T, N> raw_dy, raw_t<T, N> raw_x, float (&acc)[2][N]) {
  float dy[N], x[N];
  widen<T, N>(raw_dy, dy);
  widen<T, N>(raw_x, x);
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) {
    const float d = x[i] - c.mean[i], dz = before_silu<T>(silu, dy[i], fma_of(d, c.scale[i], c.shift[i]));
    acc[0][i] += dz;
    acc[1][i] = fma_of(dz, d, acc[1][i]);
  }
}

/// {level, slope} rstd of each group of a tile, from its channels' sums of dz and dz d rstd; complete for every thread on return.
ATTUNE_DEVICE void group_means(const GroupGradient& p, int64_t sample, int c, const float* sums, int64_t stride, float2* means) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const float count = float(p.pixels) * float(p.size);
  ATTUNE_ROLLED
  for (int g = warp; g < p.tile / p.size; g += int(blockDim.x) / 32) {
    float level = 0, slope = 0;
    ATTUNE_ROLLED
    for (int i = g * p.size + lane; i < (g + 1) * p.size; i += 32) {
      const float gamma = p.gamma.at(c + i);
      level = fma_of(gamma, load(sums + i), level), slope = fma_of(gamma, load(sums + stride + i), slope);
    }
    level = warp_sum(level), slope = warp_sum(slope);
    const float rstd = load(p.rstd + sample * (p.channels / p.size) + c / p.size + g);
    if (lane == 0) store(means + g, make_float2(level / count * rstd, slope / count * rstd * rstd));
  }
  __syncthreads();
}

/// dx of `rows` rows of a tile. kAhead: rows whose loads are in flight together.
template <typename T, int N, int kAhead>
ATTUNE_DEVICE void write_gradients(const GroupGradient& p, int64_t sample, int c, const float2* means, const T* dy, int64_t dy_stride, const T* x,
                                   int64_t x_stride, T* dx, int64_t rows) {
  for_own_vectors(p.tile / N, [&](int v, int first, int step) {
    const Channels<N> channel(p, sample, c + v * N);
    float level[N], slope[N];
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) {
      const float2 m = load(means + (v * N + i) / p.size);
      level[i] = m.x, slope[i] = m.y;
    }
    ATTUNE_ROLLED
    for (int64_t row = first; row < rows; row += kAhead * step) {
      raw_t<T, N> raw_dy[kAhead], raw_x[kAhead];
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++)
        if (row + k * step < rows) {
          raw_dy[k] = load_raw<N>(dy + (row + k * step) * dy_stride + v * N);
          raw_x[k] = load_raw<N>(x + (row + k * step) * x_stride + v * N);
        }
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++) {
        if (row + k * step >= rows) break;
        float up[N], d[N];
        widen<T, N>(raw_dy[k], up);
        widen<T, N>(raw_x[k], d);
        ATTUNE_UNROLL
        for (int i = 0; i < N; i++) {
          d[i] -= channel.mean[i];
          const float dz = before_silu<T>(p.silu, up[i], fma_of(d[i], channel.scale[i], channel.shift[i]));
          up[i] = fma_of(channel.scale[i], dz, -fma_of(d[i], slope[i], level[i]));
        }
        store_lanes<N>(dx + (row + k * step) * p.channels + v * N, up);
      }
    }
  });
}

/// Grid (1, tiles, samples). Shared memory: tiles of dy and x, channels' sums, partial sums, groups' means. Sums also go to sums [B, 2, C].
template <typename T, int N>
__global__ void __launch_bounds__(kGradientThreads, 2)
    group_norm_vjp_kernel(const __grid_constant__ GroupGradient p, const T* dy, const T* x, T* dx, float* __restrict__ sums) {
  ATTUNE_SHARED(memory);
  const int rows = int(p.pixels), c = int(blockIdx.y) * p.tile, pitch = tile_pitch(p.tile, N), chunks = tile_chunks(p.tile / N);
  const int64_t sample = blockIdx.z, bytes = (int64_t(rows) * pitch * sizeof(T) + 15) / 16 * 16;
  T *tile_dy = reinterpret_cast<T*>(memory), *tile_x = reinterpret_cast<T*>(memory + bytes);
  float *total = reinterpret_cast<float*>(memory + 2 * bytes), *partial = total + (2 * p.tile + 3) / 4 * 4;
  float2* means = reinterpret_cast<float2*>(partial + 2 * chunks * p.tile);
  const int64_t at = sample * p.pixels * p.channels + c;
  load_tile<N>(tile_dy, dy + at, p.channels, rows, p.tile);
  load_tile<N>(tile_x, x + at, p.channels, rows, p.tile);
  copy_wait<0>();
  __syncthreads();
  column_sums<2, N>(p.tile, partial, [&](int v, int first, int step, float (&acc)[2][N]) {
    const Channels<N> channel(p, sample, c + v * N);
    for (int row = first; row < rows; row += step)
      add_gradients<T, N>(channel, p.silu, load_raw<N>(tile_dy + row * pitch + v * N), load_raw<N>(tile_x + row * pitch + v * N), acc);
  });
  for (int i = int(threadIdx.x); i < 2 * p.tile; i += int(blockDim.x)) {
    const int k = i / p.tile, channel = i - k * p.tile;
    float sum = 0;
    for (int chunk = 0; chunk < chunks; chunk++) sum += load(partial + chunk * 2 * p.tile + i);
    if (k == 1) sum *= load(p.rstd + sample * (p.channels / p.size) + (c + channel) / p.size);
    store(total + i, sum);
    store(sums + (sample * 2 + k) * p.channels + c + channel, sum);
  }
  __syncthreads();
  group_means(p, sample, c, total, p.tile, means);
  write_gradients<T, N, 1>(p, sample, c, means, tile_dy, pitch, tile_x, pitch, dx + at, rows);
}

/// Grid (slabs, tiles, samples): partials [B, slabs, 2, C], sums of dz and dz d rstd over slabs of pixels. Shared memory: 2 N numbers a thread.
template <typename T, int N>
__global__ void __launch_bounds__(kGradientThreads, 2)
    group_gradient_sums_kernel(const __grid_constant__ GroupGradient p, const T* __restrict__ dy, const T* __restrict__ x, float* __restrict__ partials) {
  ATTUNE_SHARED(memory);
  float* partial = reinterpret_cast<float*>(memory);  // [2][row threads][tile]
  const int64_t sample = blockIdx.z, first_pixel = int64_t(blockIdx.x) * kSlab;
  const int rows = int(p.pixels - first_pixel < kSlab ? p.pixels - first_pixel : kSlab), c = int(blockIdx.y) * p.tile;
  const int vectors = p.tile / N, row_threads = vectors < int(blockDim.x) ? int(blockDim.x) / vectors : 1;
  const int64_t at = (sample * p.pixels + first_pixel) * p.channels + c;
  for_own_vectors(vectors, [&](int v, int first, int step) {
    const Channels<N> channel(p, sample, c + v * N);
    float acc[2][N] = {};
    constexpr int kAhead = 2;
    ATTUNE_ROLLED
    for (int row = first; row < rows; row += kAhead * step) {
      raw_t<T, N> raw_dy[kAhead], raw_x[kAhead];
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++)
        if (row + k * step < rows) {
          const int64_t from = at + int64_t(row + k * step) * p.channels + v * N;
          raw_dy[k] = load_raw<N>(dy + from), raw_x[k] = load_raw<N>(x + from);
        }
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++)
        if (row + k * step < rows) add_gradients<T, N>(channel, p.silu, raw_dy[k], raw_x[k], acc);
    }
    ATTUNE_UNROLL
    for (int k = 0; k < 2; k++) store_floats(partial + (k * row_threads + first) * p.tile + v * N, acc[k]);
  });
  __syncthreads();
  for (int i = int(threadIdx.x); i < 2 * p.tile; i += int(blockDim.x)) {
    const int k = i / p.tile, channel = i - k * p.tile;
    float sum = 0;
    for (int r = 0; r < row_threads; r++) sum += load(partial + (k * row_threads + r) * p.tile + channel);
    if (k == 1) sum *= load(p.rstd + sample * (p.channels / p.size) + (c + channel) / p.size);
    store(partials + ((sample * gridDim.x + blockIdx.x) * 2 + k) * p.channels + c + channel, sum);
  }
}

/// Grid (chunks of `chunk` pixels, tiles, samples): dx from the channels' sums [B, 2, C].
template <typename T, int N>
__global__ void __launch_bounds__(kGradientThreads, 2)
    group_norm_dx_kernel(const __grid_constant__ GroupGradient p, const T* dy, const T* x, const float* __restrict__ sums, T* dx, int chunk) {
  ATTUNE_SHARED(memory);
  float2* means = reinterpret_cast<float2*>(memory);
  const int64_t sample = blockIdx.z, first = int64_t(blockIdx.x) * chunk, rows = p.pixels - first < chunk ? p.pixels - first : chunk;
  const int c = int(blockIdx.y) * p.tile;
  group_means(p, sample, c, sums + sample * 2 * p.channels + c, p.channels, means);
  const int64_t at = (sample * p.pixels + first) * p.channels + c;
  write_gradients<T, N, 2>(p, sample, c, means, dy + at, p.channels, x + at, p.channels, dx + at, rows);
}

void group_norm_vjp_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &x = args.in[1], &dx = args.out[0];
  const GroupPlan plan(args, x);
  const int element = int(dtype_size(x.dtype)), shared = args.caps().shared_bytes;
  GroupGradient p{args.parameter(2), args.parameter(3), args.in[4].as<const float>(),  args.in[5].as<const float>(), plan.pixels, plan.channels,
                  plan.size,         plan.unit,         args.attrs.flag("silu", false)};
  float* sums = args.scratch<float>(plan.batch * 2 * plan.channels);
  const auto resident = [&](int width) {
    const int vectors = width / plan.lanes, chunks = std::max(1, tile_threads(plan.pixels * vectors, kGradientThreads) / 32 / vectors);
    return 2 * ((plan.pixels * tile_pitch(width, plan.lanes) * element + 15) / 16 * 16) + (2 * int64_t(width) + 3) / 4 * 16 + chunks * int64_t(width) * 8 +
           int64_t(width / plan.size) * 8;
  };
  const unsigned batch = unsigned(plan.batch);
  if (resident(plan.unit) <= shared / 2) {
    p.tile = plan.widest(plan.batch, args.caps().multiprocessors, [&](int width) { return width * element <= 256 && resident(width) <= shared / 2; });
    with_lanes(x.dtype, plan.lanes, [&](auto tag, auto lanes) {
      using T = decltype(tag);
      launch(args, group_norm_vjp_kernel<T, lanes()>, dim3(1, unsigned(plan.channels / p.tile), batch),
             dim3(unsigned(tile_threads(plan.pixels * p.tile / plan.lanes, kGradientThreads))), int(resident(p.tile)), p, dy.as<const T>(), x.as<const T>(),
             dx.as<T>(), sums);
    });
  } else {
    float* partials = args.scratch<float>(plan.batch * plan.slabs() * 2 * plan.channels);
    const auto start = [&](int width, auto&& go) {
      p.tile = width;
      with_lanes(x.dtype, plan.lanes,
                 [&](auto tag, auto lanes) { go(tag, lanes, std::max(1, kGradientThreads / (width / plan.lanes)), unsigned(plan.channels / width)); });
    };
    start(plan.widest(plan.batch * plan.slabs(), 2 * args.caps().multiprocessors, [&](int width) { return width / plan.lanes <= kGradientThreads; }),
          [&](auto tag, auto lanes, int row_threads, unsigned tiles) {
            using T = decltype(tag);
            launch(args, group_gradient_sums_kernel<T, lanes()>, dim3(unsigned(plan.slabs()), tiles, batch), dim3(kGradientThreads),
                   2 * row_threads * p.tile * 4, p, dy.as<const T>(), x.as<const T>(), partials);
          });
    TensorRef to;
    to.data = sums, to.dtype = DType::f32;
    sum_columns(args, partials, plan.batch, plan.slabs(), 2 * plan.channels, to, 2 * plan.channels, to);
    start(plan.narrowest(128 / element), [&](auto tag, auto lanes, int row_threads, unsigned tiles) {
      using T = decltype(tag);
      const int64_t chunk = plan.chunk(args, tiles, 2 * row_threads);
      launch(args, group_norm_dx_kernel<T, lanes()>, dim3(unsigned(ceil_div(plan.pixels, chunk)), tiles, batch), dim3(kGradientThreads),
             p.tile / p.size * int(sizeof(float2)), p, dy.as<const T>(), x.as<const T>(), sums, dx.as<T>(), int(chunk));
    });
  }
  // A row of sums: dbeta, then dgamma.
  sum_columns(args, sums, 1, plan.batch, 2 * plan.channels, args.out[2], plan.channels, args.out[1]);
}

REGISTER_CUDA(group_norm_vjp, group_norm_vjp_op)

}  // namespace cuda
}  // namespace attune
