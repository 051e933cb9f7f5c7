// 2-D convolution of channels-last maps and its two gradients, as matrix products without an im2col buffer.
// x [B, H, W, I], weight [O, kh, kw, I], y [B, H', W', O].
//
// In a zero-padded image the kw * I values under one row of the kernel are contiguous, so a pixel's row of A is kh runs of kw * I elements,
// one image row apart: the micro kernel walks them in place (Walk in gemm.h). A task copies the piece of image under its pixels, padding
// included, and where there is no padding reads the image itself. The gradient of x is the same product over dy with the kernel rotated; a
// stride s splits it into s * s phases, each a convolution of stride 1 with every s-th tap.
#include "gemm.h"

ATTUNE_CPU_BEGIN

namespace {

struct Geometry {
  int64_t stride, top, left;
};

Geometry geometry(const OpArgs& op) {
  const auto& padding = op.attrs.list("padding");
  return {op.attrs.integer("stride", 1), int64_t(padding[0]), int64_t(padding[2])};
}

/// A grid of output pixels and the image that it slides over: pixel (b, y, x) sees rows y * stride - top .. + kh of image b.
template <typename T>
struct Slide {
  const T* image;
  int64_t batch, height, width, channels;
  int64_t grid_height, grid_width;
  int64_t kh, kw, stride, top, left;  // top and left may be negative: a crop
  T* out;                             // pixel (b, y, x) of the grid is written at out + b * out_image + y * out_row + x * out_pixel
  int64_t out_image, out_row, out_pixel;

  int64_t run() const { return kw * channels; }
  int64_t depth() const { return kh * run(); }
  /// True where no pixel looks outside the image.
  bool inside() const { return top <= 0 && left <= 0 && (grid_height - 1) * stride - top + kh <= height && (grid_width - 1) * stride - left + kw <= width; }
};

/// The grid cut into tiles of at most `rows` pixels: whole images, else whole rows of one image, else part of one row.
struct Tiling {
  int64_t images = 1, rows = 1, columns, down = 1, across = 1, count;  // of one tile; tiles per image; all tiles
  template <typename T>
  Tiling(const Slide<T>& s, int64_t target) : columns(s.grid_width) {
    const int64_t map = s.grid_height * s.grid_width;
    if (map <= target) rows = s.grid_height, images = min_of(s.batch, target / map);
    else if (s.grid_width <= target) rows = target / s.grid_width;
    else columns = target;
    down = ceil_div(s.grid_height, rows), across = ceil_div(s.grid_width, columns);
    count = ceil_div(s.batch, images) * down * across;
  }
  int64_t pixels() const { return images * rows * columns; }
};

// Image rows [y, y + rows) and columns [x, x + columns) of image b, zero where outside.
template <typename T>
void copy_padded(const Slide<T>& s, int64_t b, int64_t y, int64_t rows, int64_t x, int64_t columns, T* to) {
  const int64_t row = columns * s.channels, before = min_of(columns, max_of(0, -x)) * s.channels;
  const int64_t inside = max_of(0, min_of(columns, s.width - x) * s.channels - before);
  for (int64_t i = 0; i < rows; i++, y++, to += row) {
    if (y < 0 || y >= s.height) {
      __builtin_memset(to, 0, size_t(row) * sizeof(T));
      continue;
    }
    __builtin_memset(to, 0, size_t(before) * sizeof(T));
    if (inside) __builtin_memcpy(to + before, s.image + ((b * s.height + y) * s.width + max_of(0, x)) * s.channels, size_t(inside) * sizeof(T));
    __builtin_memset(to + before + inside, 0, size_t(row - before - inside) * sizeof(T));
  }
}

/// out(pixel) = bias + sum over taps and channels of image values x B; pack is gemm_rows's.
template <typename T, typename Pack>
void slide_product(const OpArgs& op, const Slide<T>& s, int64_t n, const T* bias, const Pack& pack) {
  const Tiling tiling(s, rows_per_tile(n, s.depth()));
  const bool direct = s.inside();
  const int64_t band_rows = (tiling.rows - 1) * s.stride + s.kh, band_columns = (tiling.columns - 1) * s.stride + s.kw;
  const int64_t pitch = (direct ? s.width : band_columns) * s.channels, band = band_rows * band_columns * s.channels;
  const RowsProblem<T> problem{
      tiling.count, tiling.pixels(), direct ? 0 : tiling.images * band, s.batch * s.grid_height * s.grid_width, n, s.depth(), s.run(), pitch, bias};
  const auto fill = [&](int64_t tile, T* scratch, const T** a, T** c) {
    const int64_t x0 = tile % tiling.across * tiling.columns, columns = min_of(tiling.columns, s.grid_width - x0);
    const int64_t y0 = tile / tiling.across % tiling.down * tiling.rows, rows = min_of(tiling.rows, s.grid_height - y0);
    const int64_t b0 = tile / (tiling.across * tiling.down) * tiling.images, images = min_of(tiling.images, s.batch - b0);
    int64_t count = 0;
    for (int64_t b = b0; b < b0 + images; b++) {
      const int64_t top = y0 * s.stride - s.top, left = x0 * s.stride - s.left;
      const T* first = direct ? s.image + ((b * s.height + top) * s.width + left) * s.channels : scratch + (b - b0) * band;
      if (!direct) copy_padded(s, b, top, (rows - 1) * s.stride + s.kh, left, band_columns, scratch + (b - b0) * band);
      for (int64_t y = 0; y < rows; y++) {
        T* out = s.out + b * s.out_image + (y0 + y) * s.out_row + x0 * s.out_pixel;
        for (int64_t x = 0; x < columns; x++, count++) {
          a[count] = first + y * s.stride * pitch + x * s.stride * s.channels;
          c[count] = out + x * s.out_pixel;
        }
      }
    }
    return count;
  };
  gemm_rows<T>(op, problem, fill, pack);
}

void conv2d_kernel(const OpArgs& op) {
  const TensorRef &x = op.in[0], &weight = op.in[1], &y = op.out[0];
  const Geometry g = geometry(op);
  const int64_t n = y.dim(3), pixels = y.dim(1) * y.dim(2);
  dispatch(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Slide<T> slide{x.as<T>(),     x.dim(0), x.dim(1), x.dim(2), x.dim(3),  y.dim(1),   y.dim(2),     weight.dim(1),
                         weight.dim(2), g.stride, g.top,    g.left,   y.as<T>(), pixels * n, y.dim(2) * n, n};
    const T* w = weight.as<T>();
    const int64_t k = slide.depth();
    const auto pack = [=](int64_t k0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
      pack_transposed<T>(w + panels.start(p) * k + k0, k, length, panels.columns(p), panels.width(p), panel);
    };
    slide_product<T>(op, slide, n, op.has(2) ? op.in[2].as<T>() : nullptr, pack);
  });
}

/// Along one axis, the pixels i = phase + stride * t of dx: they see taps last, last - stride, .. (`count` of them) of dy at t - before, t - before + 1, ..
struct Phase {
  int64_t last, count, before;
  Phase(int64_t phase, int64_t stride, int64_t padding, int64_t taps) {
    const int64_t first = (phase + padding) % stride;  // the lowest tap r with (phase + padding - r) divisible by stride
    count = first < taps ? (taps - 1 - first) / stride + 1 : 0;
    last = first + (count - 1) * stride;
    before = count - 1 - (phase + padding - first) / stride;
  }
};

template <typename T>
void conv2d_dx_phase(const OpArgs& op, const Geometry& g, int64_t phase_y, int64_t phase_x) {
  const TensorRef &dy = op.in[0], &weight = op.in[1], &dx = op.out[0];
  const int64_t height = dx.dim(1), width = dx.dim(2), in = dx.dim(3), out = dy.dim(3), kh = weight.dim(1), kw = weight.dim(2), stride = g.stride;
  const Phase down(phase_y, stride, g.top, kh), across(phase_x, stride, g.left, kw);
  const int64_t grid_height = ceil_div(height - phase_y, stride), grid_width = ceil_div(width - phase_x, stride);
  T* origin = dx.as<T>() + (phase_y * width + phase_x) * in;
  if (down.count == 0 || across.count == 0) {  // no output pixel saw these
    for (int64_t b = 0; b < dx.dim(0); b++)
      for (int64_t y = 0; y < grid_height; y++)
        for (int64_t x = 0; x < grid_width; x++) __builtin_memset(origin + ((b * height + y * stride) * width + x * stride) * in, 0, size_t(in) * sizeof(T));
    return;
  }
  const Slide<T> slide{dy.as<T>(),   dy.dim(0), dy.dim(1),   dy.dim(2),     out,    grid_height,         grid_width,          down.count,
                       across.count, 1,         down.before, across.before, origin, height * width * in, stride * width * in, stride * in};
  const T* w = weight.as<T>();
  // B[(r, s, o), i] = weight[o, tap r, tap s, i]
  const auto pack = [=](int64_t k0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
    const int64_t columns = panels.columns(p), panel_width = panels.width(p);
    for (int64_t k = k0; k < k0 + length;) {
      const int64_t o = k % out, tap = k / out, steps = min_of(out - o, k0 + length - k);
      const int64_t r = down.last - tap / across.count * stride, s = across.last - tap % across.count * stride;
      pack_rows<T>(w + ((o * kh + r) * kw + s) * in + panels.start(p), kh * kw * in, steps, columns, panel_width, panel);
      k += steps, panel += steps * panel_width;
    }
  };
  slide_product<T>(op, slide, in, nullptr, pack);
}

void conv2d_dx_kernel(const OpArgs& op) {
  const TensorRef& dx = op.out[0];
  const Geometry g = geometry(op);
  dispatch(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t y = 0; y < min_of(g.stride, dx.dim(1)); y++)
      for (int64_t x = 0; x < min_of(g.stride, dx.dim(2)); x++) conv2d_dx_phase<T>(op, g, y, x);
  });
}

/// What the gradient of the weight reads of x.
template <typename T>
struct Patches {
  const T* image;
  int64_t height, width, channels, out_height, out_width, kw, stride, top, left;
  int64_t run() const { return kw * channels; }

  /// Values [first, first + count) under kernel row r, for output pixels [p0, p0 + length), one pixel every `ld` elements of `to`; zero where padding.
  void gather(int64_t p0, int64_t length, int64_t r, int64_t first, int64_t count, int64_t ld, T* to) const {
    const int64_t row = width * channels, step = stride * channels;
    int64_t ox = p0 % out_width, oy = p0 / out_width % out_height, b = p0 / (out_width * out_height);
    while (length > 0) {  // one row of output pixels at a time
      const int64_t pixels = min_of(out_width - ox, length), iy = oy * stride - top + r;
      const int64_t start = (ox * stride - left) * channels + first;  // in the image row; padding lies outside [0, row)
      // Pixels [low, high) see no padding to the left or right.
      const int64_t low = min_of(pixels, start < 0 ? ceil_div(-start, step) : 0);
      const int64_t high = max_of(low, min_of(pixels, row - count - start < 0 ? 0 : (row - count - start) / step + 1));
      if (iy < 0 || iy >= height) {
        for (int64_t i = 0; i < pixels; i++) zero_values<T>(to + i * ld, count);
      } else {
        const T* source = image + (b * height + iy) * row;
        const auto copy_edge = [&](int64_t i) {
          const int64_t at = start + i * step, begin = min_of(count, max_of(0, -at)), end = max_of(begin, min_of(count, row - at));
          zero_values<T>(to + i * ld, begin);
          copy_values<T>(to + i * ld + begin, source + at + begin, end - begin);
          zero_values<T>(to + i * ld + end, count - end);
        };
        for (int64_t i = 0; i < low; i++) copy_edge(i);
        copy_columns<T>(source + start + low * step, step, high - low, count, to + low * ld, ld);
        for (int64_t i = high; i < pixels; i++) copy_edge(i);
      }
      to += pixels * ld;
      length -= pixels, ox = 0;
      if (++oy == out_height) oy = 0, b++;
    }
  }
};

// dW[o, (r, s, i)] = sum over output pixels of dy[pixel, o] x[pixel's tap (r, s), i]. Columns of one r are contiguous in an image row.
void conv2d_dw_kernel(const OpArgs& op) {
  const TensorRef &dy = op.in[0], &x = op.in[1], &dw = op.out[0];
  const Geometry g = geometry(op);
  const int64_t out = dy.dim(3), pixels = dy.dim(0) * dy.dim(1) * dy.dim(2);
  dispatch(dw.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* grad = dy.as<T>();
    const Patches<T> patches{x.as<T>(), x.dim(1), x.dim(2), x.dim(3), dy.dim(1), dy.dim(2), dw.dim(2), g.stride, g.top, g.left};
    const auto pack_a = [=](int64_t p0, int64_t length, int64_t m0, int rows, T* panel) {
      pack_rows_narrow<T>(grad + p0 * out + m0, out, length, rows, panel);
    };
    const auto pack_b = [=](int64_t p0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
      const int64_t start = panels.start(p), columns = panels.columns(p), width = panels.width(p), run = patches.run();
      for (int64_t j = 0; j < columns;) {  // a panel may reach over the end of a kernel row
        const int64_t r = (start + j) / run, first = (start + j) % run, count = min_of(run - first, columns - j);
        patches.gather(p0, length, r, first, count, width, panel + j);
        j += count;
      }
      if (columns < width)
        for (int64_t i = 0; i < length; i++) zero_values<T>(panel + i * width + columns, width - columns);
    };
    gemm_cols<T>(op, out, dw.dim(1) * patches.run(), pixels, dw.as<T>(), pack_a, pack_b);
  });
}

}  // namespace

REGISTER_CPU(conv2d, conv2d_kernel)
REGISTER_CPU(conv2d_dx, conv2d_dx_kernel)
REGISTER_CPU(conv2d_dw, conv2d_dw_kernel)

ATTUNE_CPU_END
