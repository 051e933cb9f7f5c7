// conv2d, conv2d_dx and conv2d_dw against direct loops in double, over kernel sizes, strides, asymmetric padding, 1x1 maps and channel counts that
// fill no vector. The bounds are those of gemm_test.cc with K = kh * kw * I (forward), kh * kw * O (dx), B * H' * W' (dw).
#include "kernel_test.h"

using namespace attune;
using namespace attune::test;

struct Case {
  int64_t batch, height, width, in, out, kh, kw, stride, top, bottom, left, right;
};

double bound(int64_t k) { return double(k < 384 ? k : 384) + double(k) / 384 + 34; }

/// Calls visit(output pixel value index, input value index, weight index) for every product of the convolution.
template <typename Visit>
void every_product(const Case& c, int64_t out_height, int64_t out_width, Visit visit) {
  for (int64_t b = 0; b < c.batch; b++)
    for (int64_t oy = 0; oy < out_height; oy++)
      for (int64_t ox = 0; ox < out_width; ox++)
        for (int64_t r = 0; r < c.kh; r++)
          for (int64_t s = 0; s < c.kw; s++) {
            const int64_t iy = oy * c.stride - c.top + r, ix = ox * c.stride - c.left + s;
            if (iy < 0 || iy >= c.height || ix < 0 || ix >= c.width) continue;
            for (int64_t o = 0; o < c.out; o++)
              for (int64_t i = 0; i < c.in; i++)
                visit(size_t(((b * out_height + oy) * out_width + ox) * c.out + o), size_t(((b * c.height + iy) * c.width + ix) * c.in + i),
                      size_t(((o * c.kh + r) * c.kw + s) * c.in + i));
          }
}

void check(const Case& c) {
  const int64_t oh = (c.height + c.top + c.bottom - c.kh) / c.stride + 1, ow = (c.width + c.left + c.right - c.kw) / c.stride + 1;
  const Array x = random_array({c.batch, c.height, c.width, c.in}, 1), w = random_array({c.out, c.kh, c.kw, c.in}, 2), bias = random_array({c.out}, 3);
  const Array dy = random_array({c.batch, oh, ow, c.out}, 4);
  std::vector<double> y(dy.values.size()), y_size(y.size()), dx(x.values.size()), dx_size(dx.size()), dw(w.values.size()), dw_size(dw.size());
  for (size_t i = 0; i < y.size(); i++) y[i] = bias.values[i % size_t(c.out)], y_size[i] = std::fabs(y[i]);
  every_product(c, oh, ow, [&](size_t o, size_t i, size_t k) {
    y[o] += x.values[i] * w.values[k], y_size[o] += std::fabs(x.values[i] * w.values[k]);
    dx[i] += dy.values[o] * w.values[k], dx_size[i] += std::fabs(dy.values[o] * w.values[k]);
    dw[k] += dy.values[o] * x.values[i], dw_size[k] += std::fabs(dy.values[o] * x.values[i]);
  });
  Attrs attrs;
  attrs.set("stride", double(c.stride));
  attrs.set("padding", std::vector<double>{double(c.top), double(c.bottom), double(c.left), double(c.right)});
  char label[128];
  std::snprintf(label, sizeof label, "%ldx%ldx%ldx%ld->%ld k%ldx%ld s%ld", long(c.batch), long(c.height), long(c.width), long(c.in), long(c.out), long(c.kh),
                long(c.kw), long(c.stride));
  check_op(label, "conv2d", attrs, {&x, &w, &bias}, {dy.shape}, {y}, {y_size}, bound(c.kh * c.kw * c.in));
  check_op(label, "conv2d_dx", attrs, {&dy, &w}, {x.shape}, {dx}, {dx_size}, bound(c.kh * c.kw * c.out));
  check_op(label, "conv2d_dw", attrs, {&dy, &x}, {w.shape}, {dw}, {dw_size}, bound(c.batch * oh * ow));
}

int main() {
  const Case cases[] = {
      {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},    {1, 1, 1, 5, 3, 3, 3, 1, 1, 1, 1, 1},   {2, 4, 4, 3, 32, 3, 3, 1, 1, 1, 1, 1},
      {2, 16, 16, 32, 3, 3, 3, 1, 1, 1, 1, 1}, {3, 7, 5, 9, 17, 3, 3, 1, 1, 1, 1, 1},  {2, 8, 8, 16, 50, 1, 1, 1, 0, 0, 0, 0},
      {2, 9, 8, 4, 6, 3, 3, 2, 1, 1, 1, 1},    {2, 8, 8, 5, 7, 3, 3, 2, 0, 1, 0, 1},   {1, 28, 28, 3, 20, 14, 14, 14, 0, 0, 0, 0},
      {2, 9, 9, 3, 8, 4, 4, 4, 0, 0, 0, 0},    {2, 8, 11, 6, 4, 5, 5, 1, 2, 2, 2, 2},  {1, 10, 6, 4, 4, 5, 3, 3, 3, 1, 0, 2},
      {2, 6, 6, 4, 4, 1, 1, 2, 0, 0, 0, 0},    {1, 5, 5, 2, 3, 3, 3, 1, 0, 0, 0, 0},   {1, 4, 4, 2, 3, 3, 3, 1, 4, 3, 2, 5},
      {40, 6, 6, 12, 24, 3, 3, 1, 1, 1, 1, 1}, {1, 3, 700, 8, 8, 3, 3, 1, 1, 1, 1, 1}, {2, 6, 6, 40, 400, 3, 3, 1, 1, 1, 1, 1},
      {1, 6, 6, 400, 40, 3, 3, 1, 1, 1, 1, 1}, {1, 40, 40, 8, 8, 3, 3, 1, 1, 1, 1, 1}, {2, 12, 12, 4, 400, 3, 3, 2, 1, 1, 1, 1},
  };
  for (const Case& c : cases) check(c);
  return finish("conv2d_test");
}
