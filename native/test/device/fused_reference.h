// The fused products, in f64 and by definition: the cpu backend has only the plain ops that they stand for. Registered beside its kernels when cases are made,
// unless it has come to have them.
#pragma once
#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

inline double activate(const std::string& name, double x) {
  if (name == "silu") return x / (1 + std::exp(-x));
  if (name == "gelu") return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
  if (name == "gelu_tanh") return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  if (name == "quick_gelu") return x / (1 + std::exp(-1.702 * x));
  return x;
}
inline const double* values_of(const OpArgs& op, int i) { return op.has(i) ? op.in[i].as<double>() : nullptr; }

inline void linear_fused_reference(const OpArgs& op) {
  const std::string activation = op.attrs.text("activation");
  const bool geglu = activation == "geglu";
  const double *x = values_of(op, 0), *weight = values_of(op, 1), *bias = values_of(op, 2), *residual = values_of(op, 3);
  double* y = op.out[0].as<double>();
  const int64_t rows = op.in[0].rows(), k = op.in[0].dim(-1), n = op.out[0].dim(-1);
  const auto product = [&](int64_t m, int64_t row) {
    double sum = bias ? bias[row] : 0;
    for (int64_t i = 0; i < k; i++) sum += x[m * k + i] * weight[row * k + i];
    return sum;
  };
  for (int64_t m = 0; m < rows; m++)
    for (int64_t j = 0; j < n; j++) {
      const double value = product(m, j);
      y[m * n + j] = (geglu ? value * activate("gelu", product(m, n + j)) : activate(activation, value)) + (residual ? residual[m * n + j] : 0);
    }
}

inline void linear_dw_accumulate_reference(const OpArgs& op) {
  const double *dy = values_of(op, 1), *x = values_of(op, 2);
  double* total = op.out[0].as<double>();
  const int64_t rows = op.in[1].rows(), n = op.in[1].dim(-1), k = op.in[2].dim(-1);
  for (int64_t m = 0; m < rows; m++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t i = 0; i < k; i++) total[j * k + i] += dy[m * n + j] * x[m * k + i];
}

/// Calls visit(y's pixel, tap, x's pixel) for every pair of pixels that a convolution joins.
template <typename Visit>
void joined_pixels(const Attrs& attrs, const TensorRef& x, const TensorRef& y, int64_t kh, int64_t kw, const Visit& visit) {
  const int64_t up = attrs.integer("upsample", 1), stride = attrs.integer("stride", 1), top = int64_t(attrs.list("padding")[0]),
                left = int64_t(attrs.list("padding")[2]);
  const int64_t height = x.dim(1), width = x.dim(2);
  for (int64_t b = 0; b < y.dim(0); b++)
    for (int64_t p = 0; p < y.dim(1); p++)
      for (int64_t q = 0; q < y.dim(2); q++)
        for (int64_t r = 0; r < kh; r++)
          for (int64_t s = 0; s < kw; s++) {
            const int64_t h = p * stride - top + r, w = q * stride - left + s;
            if (h < 0 || h >= height * up || w < 0 || w >= width * up) continue;
            visit((b * y.dim(1) + p) * y.dim(2) + q, r * kw + s, (b * height + h / up) * width + w / up);
          }
}

inline void conv2d_fused_reference(const OpArgs& op) {
  const TensorRef &x = op.in[0], &weight = op.in[2], &y = op.out[0];
  const std::string activation = op.attrs.text("activation");
  const double *first = values_of(op, 0), *second = values_of(op, 1), *w = values_of(op, 2), *bias = values_of(op, 3), *sample = values_of(op, 4),
               *residual = values_of(op, 5);
  const int64_t i1 = x.dim(3), i2 = second ? op.in[1].dim(3) : 0, taps = weight.dim(1) * weight.dim(2), out = y.dim(3), pixels = y.dim(1) * y.dim(2);
  double* to = y.as<double>();
  for (int64_t m = 0; m < y.rows(); m++)
    for (int64_t o = 0; o < out; o++) to[m * out + o] = (bias ? bias[o] : 0) + (sample ? sample[m / pixels * out + o] : 0);
  joined_pixels(op.attrs, x, y, weight.dim(1), weight.dim(2), [&](int64_t at, int64_t tap, int64_t from) {
    for (int64_t o = 0; o < out; o++) {
      const double* row = w + (o * taps + tap) * (i1 + i2);
      for (int64_t c = 0; c < i1; c++) to[at * out + o] += row[c] * first[from * i1 + c];
      for (int64_t c = 0; c < i2; c++) to[at * out + o] += row[i1 + c] * second[from * i2 + c];
    }
  });
  for (int64_t i = 0; i < y.numel(); i++) to[i] = activate(activation, to[i]) + (residual ? residual[i] : 0);
  const int64_t groups = op.attrs.integer("statistics", 0), channels = groups ? out / groups : 0;
  for (int64_t slab = 0; groups && slab < y.rows() / 128; slab++)
    for (int64_t g = 0; g < groups; g++) {
      double mean = 0, m2 = 0;
      for (int64_t i = 0; i < 128 * channels; i++) mean += to[(slab * 128 + i / channels) * out + g * channels + i % channels] / double(128 * channels);
      for (int64_t i = 0; i < 128 * channels; i++) m2 += std::pow(to[(slab * 128 + i / channels) * out + g * channels + i % channels] - mean, 2);
      op.out[1].as<double>()[(slab * groups + g) * 2] = mean, op.out[1].as<double>()[(slab * groups + g) * 2 + 1] = m2;
    }
}

/// Inputs from `at` on: dy, x, x2?. Adds to what `total` holds.
inline void add_conv2d_dw(const OpArgs& op, int at) {
  const TensorRef &dy = op.in[at], &x = op.in[at + 1], &dw = op.out[0];
  const double *g = values_of(op, at), *first = values_of(op, at + 1), *second = values_of(op, at + 2);
  const int64_t i1 = x.dim(3), i2 = second ? op.in[at + 2].dim(3) : 0, taps = dw.dim(1) * dw.dim(2), out = dy.dim(3);
  joined_pixels(op.attrs, x, dy, dw.dim(1), dw.dim(2), [&](int64_t pixel, int64_t tap, int64_t from) {
    for (int64_t o = 0; o < out; o++) {
      double* row = dw.as<double>() + (o * taps + tap) * (i1 + i2);
      for (int64_t c = 0; c < i1; c++) row[c] += g[pixel * out + o] * first[from * i1 + c];
      for (int64_t c = 0; c < i2; c++) row[i1 + c] += g[pixel * out + o] * second[from * i2 + c];
    }
  });
}
inline void conv2d_dw_fused_reference(const OpArgs& op) {
  for (int64_t i = 0; i < op.out[0].numel(); i++) op.out[0].as<double>()[i] = 0;
  add_conv2d_dw(op, 0);
}
inline void conv2d_dw_accumulate_reference(const OpArgs& op) { add_conv2d_dw(op, 1); }

inline void need_reference(const char* op, KernelFn fn) {
  if (!find_kernel("cpu", op, "")) register_kernel({"cpu", op, "generic", fn});
}

}  // namespace test
}  // namespace attune
