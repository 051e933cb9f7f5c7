// Group normalisation (Wu & He 2018, arXiv:1803.08494) of x [B, P, C], P pixels, optionally then SiLU. Where a sample's pixels of one tile of channels fit in
// half of the shared memory, one block reads them once, takes mean and squares about it (two passes, not E[x^2] - mean^2, which keeps no digits in f32 once
// |mean| / std nears 2^12) and writes y: 2 elements moved for each, the least. Else moments of slabs of 128 pixels go to scratch, are merged in a fixed order
// (Chan, Golub & LeVeque 1983) and a second kernel normalises: 3 moved, of which the second read finds maps up to the size of L2 there. With moments from a
// convolution's epilogue (group_norm_from_partials) it is 2 again. y may lie on x. Saves mean and rstd [B, groups] in f32.
#include "group_norm.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

constexpr int kNormThreads = 512;

/// What the kernels share: gamma and beta of C channels, and the shape.
struct Normalise {
  Parameter gamma, beta;
  float *mean, *rstd;
  int64_t pixels;
  int channels, size, tile;
  float eps;
  bool silu;
};

/// Mean and squares about it of each group over a tile in shared memory: moments[group] = {mean, squares}, complete for every thread on return.
template <typename T, int N>
ATTUNE_DEVICE void tile_moments(const T* tile, int rows, int width, int size, float* partial, float2* moments) {
  const int pitch = tile_pitch(width, N), chunks = tile_chunks(width / N), warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  ATTUNE_ROLLED
  for (int pass = 0; pass < 2; pass++) {
    column_sums<1, N>(width, partial, [&](int v, int first, int step, float (&acc)[1][N]) {
      float about[N];
      ATTUNE_UNROLL
      for (int i = 0; i < N; i++) about[i] = pass == 0 ? 0.f : load(moments + (v * N + i) / size).x;
      for (int row = first; row < rows; row += step) {
        float x[N];
        load_lanes<N>(tile + row * pitch + v * N, x);
        ATTUNE_UNROLL
        for (int i = 0; i < N; i++) {
          const float d = x[i] - about[i];
          acc[0][i] += pass == 0 ? d : d * d;
        }
      }
    });
    ATTUNE_ROLLED
    for (int g = warp; g < width / size; g += int(blockDim.x) / 32) {
      float sum = 0;
      ATTUNE_ROLLED
      for (int e = lane; e < size * chunks; e += 32) sum += load(partial + e / size * width + g * size + e % size);
      sum = warp_sum(sum);
      const float mean = pass == 0 ? sum / (float(rows) * float(size)) : load(moments + g).x;
      __syncwarp();
      if (lane == 0) store(moments + g, make_float2(mean, pass == 0 ? 0.f : sum));
    }
    __syncthreads();
  }
}

/// Rows of a tile from `from` to y; mean and 1 / std of each group in `stats`, complete. c: the tile's first channel. kAhead: rows whose loads are in flight
/// together; y may lie on x, so that the compiler cannot see to it.
template <typename T, int N, int kAhead>
ATTUNE_DEVICE void normalise_rows(const Normalise& p, const float2* stats, int c, const T* from, int64_t from_stride, T* y, int64_t rows) {
  for_own_vectors(p.tile / N, [&](int v, int first, int step) {
    float mean[N], scale[N], shift[N];
    parameter_lanes(p.gamma, c + v * N, scale);
    parameter_lanes(p.beta, c + v * N, shift);
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) {
      const float2 s = load(stats + (v * N + i) / p.size);
      mean[i] = s.x, scale[i] *= s.y;
    }
    ATTUNE_ROLLED
    for (int64_t row = first; row < rows; row += kAhead * step) {
      raw_t<T, N> raw[kAhead];
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++)
        if (row + k * step < rows) raw[k] = load_raw<N>(from + (row + k * step) * from_stride + v * N);
      ATTUNE_UNROLL
      for (int k = 0; k < kAhead; k++) {
        if (row + k * step >= rows) break;
        float x[N];
        widen<T, N>(raw[k], x);
        ATTUNE_UNROLL
        for (int i = 0; i < N; i++) x[i] = fma_of(x[i] - mean[i], scale[i], shift[i]);
        if (p.silu) {
          ATTUNE_UNROLL
          for (int i = 0; i < N; i++) x[i] = silu_of<T>(x[i]);
        }
        store_lanes<N>(y + (row + k * step) * p.channels + v * N, x);
      }
    }
  });
}

/// moments[group] = {mean, squares} of `count` elements become {mean, 1 / std}; block (.., .., sample) also saves them if it is told to.
ATTUNE_DEVICE void finish_moments(const Normalise& p, float2* moments, int group, float2 m, float count, bool saves) {
  const float rstd = 1.f / sqrtf(m.y / count + p.eps);
  store(moments + group, make_float2(m.x, rstd));
  if (!saves) return;
  const int64_t to = int64_t(blockIdx.z) * (p.channels / p.size) + int(blockIdx.y) * (p.tile / p.size) + group;
  store(p.mean + to, m.x), store(p.rstd + to, rstd);
}

/// Grid (1, tiles, samples). Shared memory: the tile [pixels][pitch] of T, the groups' moments, partial sums.
template <typename T, int N>
__global__ void __launch_bounds__(kNormThreads) group_norm_kernel(const __grid_constant__ Normalise p, const T* x, T* y) {
  ATTUNE_SHARED(memory);
  const int rows = int(p.pixels), groups = p.tile / p.size, c = int(blockIdx.y) * p.tile;
  T* tile = reinterpret_cast<T*>(memory);
  float* partial = reinterpret_cast<float*>(memory + (int64_t(rows) * tile_pitch(p.tile, N) * sizeof(T) + 15) / 16 * 16);
  float2* moments = reinterpret_cast<float2*>(partial + (tile_chunks(p.tile / N) * p.tile + 1) / 2 * 2);
  const int64_t at = int64_t(blockIdx.z) * p.pixels * p.channels + c;
  load_tile<N>(tile, x + at, p.channels, rows, p.tile);
  copy_wait<0>();
  __syncthreads();
  tile_moments<T, N>(tile, rows, p.tile, p.size, partial, moments);
  for (int g = int(threadIdx.x); g < groups; g += int(blockDim.x)) finish_moments(p, moments, g, load(moments + g), float(rows) * float(p.size), true);
  __syncthreads();
  normalise_rows<T, N, 1>(p, moments, c, tile, tile_pitch(p.tile, N), y + at, rows);
}

/// Grid (slabs, tiles, samples): partials [B, slabs, groups] = {mean, squares} of x over slabs of `slab` pixels.
template <typename T, int N>
__global__ void __launch_bounds__(kNormThreads)
    group_moments_kernel(const T* __restrict__ x, float2* __restrict__ partials, int64_t pixels, int channels, int size, int width, int slab) {
  ATTUNE_SHARED(memory);
  const int64_t first = int64_t(blockIdx.x) * slab;
  const int rows = int(pixels - first < slab ? pixels - first : slab), groups = width / size, c = int(blockIdx.y) * width;
  T* tile = reinterpret_cast<T*>(memory);
  float* partial = reinterpret_cast<float*>(memory + (int64_t(slab) * tile_pitch(width, N) * sizeof(T) + 15) / 16 * 16);
  float2* moments = reinterpret_cast<float2*>(partial + (tile_chunks(width / N) * width + 1) / 2 * 2);
  load_tile<N>(tile, x + (blockIdx.z * pixels + first) * channels + c, channels, rows, width);
  copy_wait<0>();
  __syncthreads();
  tile_moments<T, N>(tile, rows, width, size, partial, moments);
  float2* to = partials + (int64_t(blockIdx.z) * gridDim.x + blockIdx.x) * (channels / size) + int(blockIdx.y) * groups;
  for (int g = int(threadIdx.x); g < groups; g += int(blockDim.x)) store(to + g, load(moments + g));
}

/// One group's moments from those of its slabs, `stride` apart, of `slab` pixels each and what is left of `pixels` in the last one. `sum` adds up over the
/// threads that share the work: thread `me` of `count`.
template <typename Sum>
ATTUNE_DEVICE float2 merge_moments(const float2* partials, int64_t stride, int slabs, int slab, int64_t pixels, int size, int me, int count, Sum&& sum) {
  const float pivot = load(partials).x;  // means are added up as differences from one of them
  const auto elements = [&](int s) { return float(s + 1 < slabs ? slab : pixels - int64_t(s) * slab) * float(size); };
  float shift = 0, squares = 0;
  ATTUNE_ROLLED
  for (int s = me; s < slabs; s += count) shift += elements(s) * (load(partials + s * stride).x - pivot);
  const float mean = pivot + sum(shift) / (float(pixels) * float(size));
  ATTUNE_ROLLED
  for (int s = me; s < slabs; s += count) {
    const float2 m = load(partials + s * stride);
    squares += m.y + elements(s) * (m.x - mean) * (m.x - mean);
  }
  return make_float2(mean, sum(squares));
}

/// One block per (sample, group): merged [B, groups], where slabs are many.
__global__ void __launch_bounds__(256)
    merge_moments_kernel(const float2* __restrict__ partials, float2* __restrict__ merged, int groups, int slabs, int slab, int64_t pixels, int size) {
  ATTUNE_SHARED(memory);
  float* partial = reinterpret_cast<float*>(memory);
  const int64_t sample = blockIdx.x / groups, group = blockIdx.x % groups;
  const float2 m = merge_moments(partials + sample * slabs * groups + group, groups, slabs, slab, pixels, size, int(threadIdx.x), int(blockDim.x),
                                 [&](float v) { return block_sum(v, partial); });
  if (threadIdx.x == 0) store(merged + blockIdx.x, m);
}

/// Grid (chunks of `chunk` pixels, tiles, samples): y from x and the slabs' moments, which each block merges for its groups, a warp each.
template <typename T, int N>
__global__ void __launch_bounds__(256)
    normalise_kernel(const __grid_constant__ Normalise p, const T* x, const float2* partials, T* y, int slabs, int slab, int chunk) {
  ATTUNE_SHARED(memory);
  float2* stats = reinterpret_cast<float2*>(memory);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, tile_groups = p.tile / p.size, groups = p.channels / p.size;
  ATTUNE_ROLLED
  for (int g = warp; g < tile_groups; g += int(blockDim.x) / 32) {
    const float2 m = merge_moments(partials + int64_t(blockIdx.z) * slabs * groups + int(blockIdx.y) * tile_groups + g, groups, slabs, slab, p.pixels, p.size,
                                   lane, 32, [](float v) { return warp_sum(v); });
    if (lane == 0) finish_moments(p, stats, g, m, float(p.pixels) * float(p.size), blockIdx.x == 0);
  }
  __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * chunk, rows = p.pixels - first < chunk ? p.pixels - first : chunk;
  const int c = int(blockIdx.y) * p.tile;
  const int64_t at = (blockIdx.z * p.pixels + first) * p.channels + c;
  normalise_rows<T, N, 4>(p, stats, c, x + at, p.channels, y + at, rows);
}

static Normalise normalise_of(const OpArgs& args, const GroupPlan& plan) {
  return {args.parameter(1),
          args.parameter(2),
          args.out[1].as<float>(),
          args.out[2].as<float>(),
          plan.pixels,
          plan.channels,
          plan.size,
          0,
          float(args.attrs.number("eps")),
          args.attrs.flag("silu", false)};
}

/// Bytes of shared memory of a block that holds `rows` of a tile.
static int64_t moments_bytes(const GroupPlan& plan, int64_t rows, int width, int threads, int element) {
  const int vectors = width / plan.lanes, chunks = std::max(1, threads / 32 / vectors);
  return (rows * tile_pitch(width, plan.lanes) * element + 15) / 16 * 16 + (chunks * int64_t(width) + 1) / 2 * 8 + int64_t(width / plan.size) * 8;
}

static void normalise_from(const OpArgs& args, const GroupPlan& plan, const float2* partials, int64_t slabs, int slab) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  constexpr int kMerged = 64;  // slabs that every block of normalise_kernel merges by itself
  if (slabs > kMerged) {
    float2* merged = args.scratch<float2>(plan.batch * plan.groups);
    launch(args, merge_moments_kernel, dim3(unsigned(plan.batch * plan.groups)), dim3(256), block_bytes<float>(), partials, merged, plan.groups, int(slabs),
           slab, plan.pixels, plan.size);
    partials = merged, slabs = 1, slab = 0;
  }
  Normalise p = normalise_of(args, plan);
  p.tile = plan.narrowest(128 / int(dtype_size(x.dtype)));
  const int threads = 256;
  const int64_t tiles = plan.channels / p.tile, chunk = plan.chunk(args, tiles, 4 * std::max(1, threads / (p.tile / plan.lanes)));
  with_lanes(x.dtype, plan.lanes, [&](auto tag, auto lanes) {
    using T = decltype(tag);
    launch(args, normalise_kernel<T, lanes()>, dim3(unsigned(ceil_div(plan.pixels, chunk)), unsigned(tiles), unsigned(plan.batch)), dim3(threads),
           p.tile / p.size * int(sizeof(float2)), p, x.as<const T>(), partials, y.as<T>(), int(slabs), slab, int(chunk));
  });
}

void group_norm_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  const GroupPlan plan(args, x);
  const int element = int(dtype_size(x.dtype)), shared = args.caps().shared_bytes;
  const auto bytes = [&](int64_t rows, int width) { return moments_bytes(plan, rows, width, tile_threads(rows * width / plan.lanes, kNormThreads), element); };
  if (bytes(plan.pixels, plan.unit) <= shared / 2) {
    Normalise p = normalise_of(args, plan);
    p.tile = plan.widest(plan.batch, args.caps().multiprocessors, [&](int width) { return width * element <= 256 && bytes(plan.pixels, width) <= shared / 2; });
    with_lanes(x.dtype, plan.lanes, [&](auto tag, auto lanes) {
      using T = decltype(tag);
      launch(args, group_norm_kernel<T, lanes()>, dim3(1, unsigned(plan.channels / p.tile), unsigned(plan.batch)),
             dim3(unsigned(tile_threads(plan.pixels * p.tile / plan.lanes, kNormThreads))), int(bytes(plan.pixels, p.tile)), p, x.as<const T>(), y.as<T>());
    });
    return;
  }
  int slab = kSlab;
  while (slab > 1 && bytes(slab, plan.unit) > shared / 2) slab /= 2;
  const int64_t slabs = ceil_div(plan.pixels, slab);
  float2* partials = args.scratch<float2>(plan.batch * slabs * plan.groups);
  const int width = plan.widest(plan.batch * slabs, 2 * args.caps().multiprocessors, [&](int w) { return bytes(slab, w) <= shared / 4; });
  with_lanes(x.dtype, plan.lanes, [&](auto tag, auto lanes) {
    using T = decltype(tag);
    launch(args, group_moments_kernel<T, lanes()>, dim3(unsigned(slabs), unsigned(plan.channels / width), unsigned(plan.batch)),
           dim3(unsigned(tile_threads(int64_t(slab) * width / plan.lanes, kNormThreads))), int(bytes(slab, width)), x.as<const T>(), partials, plan.pixels,
           plan.channels, plan.size, width, slab);
  });
  normalise_from(args, plan, partials, slabs, slab);
}

void group_norm_from_partials_op(const OpArgs& args) {
  const GroupPlan plan(args, args.in[0]);
  normalise_from(args, plan, args.in[3].as<const float2>(), plan.slabs(), kSlab);
}

REGISTER_CUDA(group_norm, group_norm_op)
REGISTER_CUDA(group_norm_from_partials, group_norm_from_partials_op)

}  // namespace cuda
}  // namespace attune
