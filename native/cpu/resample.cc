// Nearest-neighbour upsampling and average pooling of maps [B, H, W, C], and their gradients. Gradients gather: each input pixel adds up what came from it,
// in a fixed order.
#include <cstring>

#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

/// The map's pixel row length and how pixels index into it.
struct Map {
  int64_t batch, height, width, channels;
  explicit Map(const TensorRef& x) : batch(x.dims[0]), height(x.dims[1]), width(x.dims[2]), channels(x.dims[3]) {}
  int64_t at(int64_t b, int64_t h, int64_t w) const { return ((b * height + h) * width + w) * channels; }
  int64_t rows() const { return batch * height; }
  int64_t row_grain() const { return max_of(1, kGrain / (width * channels)); }
};

template <typename T>
inline void add_pixel(T* to, const T* from, int64_t channels) {
#pragma omp simd
  for (int64_t c = 0; c < channels; c++) to[c] += from[c];
}

void upsample_nearest_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const Map in(args.in[0]), out(args.out[0]);
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, out.rows(), out.row_grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / out.height, h = row % out.height * in.height / out.height;
        for (int64_t w = 0; w < out.width; w++)
          std::memcpy(y + (row * out.width + w) * out.channels, x + in.at(b, h, w * in.width / out.width), size_t(out.channels) * sizeof(T));
      }
    });
  });
}

/// The first output index whose source, floor(i * from / to), is at least `source`.
inline int64_t first_copy(int64_t source, int64_t from, int64_t to) { return ceil_div(source * to, from); }

void upsample_nearest_vjp_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const Map fine(args.in[0]), coarse(args.out[0]);
    const T* dy = args.in[0].as<const T>();
    T* dx = args.out[0].as<T>();
    parallel_ranges(args.pool, coarse.rows(), max_of(1, kGrain / (coarse.width * coarse.channels)), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / coarse.height, h = row % coarse.height;
        const int64_t h0 = first_copy(h, coarse.height, fine.height), h1 = first_copy(h + 1, coarse.height, fine.height);
        for (int64_t w = 0; w < coarse.width; w++) {
          T* to = dx + (row * coarse.width + w) * coarse.channels;
          std::memset(to, 0, size_t(coarse.channels) * sizeof(T));
          const int64_t w0 = first_copy(w, coarse.width, fine.width), w1 = first_copy(w + 1, coarse.width, fine.width);
          for (int64_t i = h0; i < h1; i++)
            for (int64_t j = w0; j < w1; j++) add_pixel(to, dy + fine.at(b, i, j), coarse.channels);
        }
      }
    });
  });
}

template <typename T>
inline void scale_pixel(T* x, T scale, int64_t channels) {
#pragma omp simd
  for (int64_t c = 0; c < channels; c++) x[c] *= scale;
}

void avg_pool2d_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t kernel = args.attrs.integer("kernel"), stride = args.attrs.integer("stride");
    const Map in(args.in[0]), out(args.out[0]);
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, out.rows(), out.row_grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / out.height, h = row % out.height * stride;
        for (int64_t w = 0; w < out.width; w++) {
          T* to = y + (row * out.width + w) * out.channels;
          std::memset(to, 0, size_t(out.channels) * sizeof(T));
          for (int64_t i = 0; i < kernel; i++)
            for (int64_t j = 0; j < kernel; j++) add_pixel(to, x + in.at(b, h + i, w * stride + j), out.channels);
          scale_pixel(to, T(1.0 / double(kernel * kernel)), out.channels);
        }
      }
    });
  });
}

/// Windows [first, last) of `count` that cover position i.
struct Cover {
  int64_t first, last;
  Cover(int64_t i, int64_t kernel, int64_t stride, int64_t count) : first(i < kernel ? 0 : (i - kernel) / stride + 1), last(min_of(count, i / stride + 1)) {}
};

void avg_pool2d_vjp_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t kernel = args.attrs.integer("kernel"), stride = args.attrs.integer("stride");
    const Map pooled(args.in[0]), full(args.out[0]);
    const T* dy = args.in[0].as<const T>();
    T* dx = args.out[0].as<T>();
    parallel_ranges(args.pool, full.rows(), full.row_grain(), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / full.height;
        const Cover vertical(row % full.height, kernel, stride, pooled.height);
        for (int64_t w = 0; w < full.width; w++) {
          T* to = dx + (row * full.width + w) * full.channels;
          std::memset(to, 0, size_t(full.channels) * sizeof(T));
          const Cover horizontal(w, kernel, stride, pooled.width);
          for (int64_t i = vertical.first; i < vertical.last; i++)
            for (int64_t j = horizontal.first; j < horizontal.last; j++) add_pixel(to, dy + pooled.at(b, i, j), full.channels);
          scale_pixel(to, T(1.0 / double(kernel * kernel)), full.channels);
        }
      }
    });
  });
}

}  // namespace

REGISTER_CPU(upsample_nearest, upsample_nearest_kernel)
REGISTER_CPU(upsample_nearest_vjp, upsample_nearest_vjp_kernel)
REGISTER_CPU(avg_pool2d, avg_pool2d_kernel)
REGISTER_CPU(avg_pool2d_vjp, avg_pool2d_vjp_kernel)
ATTUNE_CPU_END
