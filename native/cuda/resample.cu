// Nearest-neighbour upsampling and average pooling of maps [B, H, W, C], and their gradients. Each thread takes one vector of an output pixel's channels;
// gradients gather: an input pixel adds up what came from it, in a fixed order. Bytes moved: outputs once; inputs once where windows do not overlap, repeats
// come from cache.
#include "divide.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kResampleThreads = 256;

/// A map whose channels are `vectors` units.
struct Map {
  int64_t height, width, vectors;
  ATTUNE_BOTH int64_t at(int64_t b, int64_t h, int64_t w) const { return ((b * height + h) * width + w) * vectors; }
};

/// Both maps of a resampling op, and how an index of the output is taken apart.
struct Resample {
  Map in, out;
  int64_t count;                   // units of the output
  Divider vectors, width, height;  // of the output
  int kernel = 1, stride = 1;
  Divider strides;

  Resample(const TensorRef& x, const TensorRef& y, int lanes)
      : in{x.dims[1], x.dims[2], x.dims[3] / lanes},
        out{y.dims[1], y.dims[2], y.dims[3] / lanes},
        count(y.numel() / lanes),
        vectors(out.vectors),
        width(out.width),
        height(out.height) {}

  struct Place {
    int64_t b, h, w, v;
  };
  ATTUNE_DEVICE Place place(int64_t i) const {
    const int64_t pixel = vectors.quotient(i), row = width.quotient(pixel), b = height.quotient(row);
    return {b, row - b * out.height, pixel - row * out.width, i - pixel * out.vectors};
  }
};

/// Source pixel floor(i * from / to), as bits: units of 16 bytes, or elements.
template <typename U>
__global__ void __launch_bounds__(kResampleThreads, 4) upsample_nearest_kernel(const U* __restrict__ x, U* __restrict__ y, const __grid_constant__ Resample r) {
  ATTUNE_ROLLED
  for (int64_t i = int64_t(blockIdx.x) * kResampleThreads + threadIdx.x; i < r.count; i += int64_t(gridDim.x) * kResampleThreads) {
    const Resample::Place p = r.place(i);
    store(y + i, load(x + r.in.at(p.b, r.height.quotient(p.h * r.in.height), r.width.quotient(p.w * r.in.width)) + p.v));
  }
}

/// y = scale * sum of the rectangle [h0, h1) x [w0, w1) of sample b.
template <int N, typename T>
ATTUNE_DEVICE void sum_pixels(const T* x, const Map& map, int64_t b, int64_t h0, int64_t h1, int64_t w0, int64_t w1, int64_t v, compute_t<T> scale, T* y) {
  compute_t<T> sum[N] = {};
  ATTUNE_ROLLED
  for (int64_t h = h0; h < h1; h++) {
    ATTUNE_ROLLED
    for (int64_t w = w0; w < w1; w++) {
      compute_t<T> one[N];
      load_lanes<N>(x + (map.at(b, h, w) + v) * N, one);
      ATTUNE_UNROLL
      for (int k = 0; k < N; k++) sum[k] += one[k];
    }
  }
  ATTUNE_UNROLL
  for (int k = 0; k < N; k++) sum[k] *= scale;
  store_lanes<N>(y, sum);
}

/// dx of a pixel: sum over the output pixels whose source it is, [ceil(i * to / from), ceil((i + 1) * to / from)) of each axis.
template <typename T, int N>
__global__ void __launch_bounds__(kResampleThreads, 4)
    upsample_nearest_vjp_kernel(const T* __restrict__ dy, T* __restrict__ dx, const __grid_constant__ Resample r) {
  ATTUNE_ROLLED
  for (int64_t i = int64_t(blockIdx.x) * kResampleThreads + threadIdx.x; i < r.count; i += int64_t(gridDim.x) * kResampleThreads) {
    const Resample::Place p = r.place(i);
    const auto first_copy = [](const Divider& from, int64_t index, int64_t to) { return from.quotient(index * to + from.divisor - 1); };
    sum_pixels<N>(dy, r.in, p.b, first_copy(r.height, p.h, r.in.height), first_copy(r.height, p.h + 1, r.in.height), first_copy(r.width, p.w, r.in.width),
                  first_copy(r.width, p.w + 1, r.in.width), p.v, compute_t<T>(1), dx + i * N);
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kResampleThreads, 4) avg_pool2d_kernel(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Resample r) {
  ATTUNE_ROLLED
  for (int64_t i = int64_t(blockIdx.x) * kResampleThreads + threadIdx.x; i < r.count; i += int64_t(gridDim.x) * kResampleThreads) {
    const Resample::Place p = r.place(i);
    const int64_t h = p.h * r.stride, w = p.w * r.stride;
    sum_pixels<N>(x, r.in, p.b, h, h + r.kernel, w, w + r.kernel, p.v, compute_t<T>(1) / compute_t<T>(r.kernel * r.kernel), y + i * N);
  }
}

/// dx of a pixel: sum over the windows [first, last) of each axis that cover it.
template <typename T, int N>
__global__ void __launch_bounds__(kResampleThreads, 4) avg_pool2d_vjp_kernel(const T* __restrict__ dy, T* __restrict__ dx, const __grid_constant__ Resample r) {
  ATTUNE_ROLLED
  for (int64_t i = int64_t(blockIdx.x) * kResampleThreads + threadIdx.x; i < r.count; i += int64_t(gridDim.x) * kResampleThreads) {
    const Resample::Place p = r.place(i);
    const auto first = [&](int64_t at) { return at < r.kernel ? int64_t(0) : r.strides.quotient(at - r.kernel) + 1; };
    const auto last = [&](int64_t at, int64_t windows) {
      const int64_t end = r.strides.quotient(at) + 1;
      return end < windows ? end : windows;
    };
    sum_pixels<N>(dy, r.in, p.b, first(p.h), last(p.h, r.in.height), first(p.w), last(p.w, r.in.width), p.v,
                  compute_t<T>(1) / compute_t<T>(r.kernel * r.kernel), dx + i * N);
  }
}

static dim3 resample_grid(const OpArgs& args, const Resample& r) { return grid_of(args, ceil_div(r.count, kResampleThreads)); }

void upsample_nearest_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  const int element = int(dtype_size(y.dtype)), lanes = y.dims[3] * element % 16 == 0 ? 16 / element : 1;
  const Resample r(x, y, lanes);
  const auto start = [&](auto unit) {
    using U = decltype(unit);
    launch(args, upsample_nearest_kernel<U>, resample_grid(args, r), dim3(kResampleThreads), 0, x.as<const U>(), y.as<U>(), r);
  };
  if (lanes > 1) start(uint4{});
  else if (element == 8) start(uint64_t{});
  else if (element == 4) start(uint32_t{});
  else start(uint16_t{});
}

/// start(T{}, lanes): with vectors if channels are made of whole ones.
template <typename Start>
static void by_channels(const OpArgs& args, Start&& start) {
  dispatch<true>(args.out[0].dtype, [&](auto tag) {
    constexpr int N = lanes_of<decltype(tag)>;
    if (args.out[0].dims[3] % N == 0) start(tag, std::integral_constant<int, N>{});
    else start(tag, std::integral_constant<int, 1>{});
  });
}

void upsample_nearest_vjp_op(const OpArgs& args) {
  by_channels(args, [&](auto tag, auto lanes) {
    using T = decltype(tag);
    const Resample r(args.in[0], args.out[0], lanes);
    launch(args, upsample_nearest_vjp_kernel<T, lanes()>, resample_grid(args, r), dim3(kResampleThreads), 0, args.in[0].as<const T>(), args.out[0].as<T>(), r);
  });
}

static Resample pooling(const OpArgs& args, int lanes) {
  Resample r(args.in[0], args.out[0], lanes);
  r.kernel = int(args.attrs.integer("kernel")), r.stride = int(args.attrs.integer("stride")), r.strides = Divider(r.stride);
  return r;
}

void avg_pool2d_op(const OpArgs& args) {
  by_channels(args, [&](auto tag, auto lanes) {
    using T = decltype(tag);
    const Resample r = pooling(args, lanes);
    launch(args, avg_pool2d_kernel<T, lanes()>, resample_grid(args, r), dim3(kResampleThreads), 0, args.in[0].as<const T>(), args.out[0].as<T>(), r);
  });
}

void avg_pool2d_vjp_op(const OpArgs& args) {
  by_channels(args, [&](auto tag, auto lanes) {
    using T = decltype(tag);
    const Resample r = pooling(args, lanes);
    launch(args, avg_pool2d_vjp_kernel<T, lanes()>, resample_grid(args, r), dim3(kResampleThreads), 0, args.in[0].as<const T>(), args.out[0].as<T>(), r);
  });
}

REGISTER_CUDA(upsample_nearest, upsample_nearest_op)
REGISTER_CUDA(upsample_nearest_vjp, upsample_nearest_vjp_op)
REGISTER_CUDA(avg_pool2d, avg_pool2d_op)
REGISTER_CUDA(avg_pool2d_vjp, avg_pool2d_vjp_op)

}  // namespace cuda
}  // namespace attune
