// The fused products by the plain ops that they stand for, in f64: the cpu backend has only those. Registered beside its kernels when cases are made.
#pragma once
#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

/// A tensor of f64 with memory of its own.
struct Wide {
  std::vector<double> values;
  TensorRef ref;
  explicit Wide(const Shape& shape) {
    ref.dtype = DType::f64, ref.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) ref.dims[i] = shape[i];
    values.resize(size_t(ref.numel()));
    ref.data = values.data();
  }
};

/// Runs a plain op of the cpu backend.
inline void run_plain(const OpArgs& op, const char* name, const Attrs& attrs, const std::vector<TensorRef>& in, TensorRef out) {
  find_kernel("cpu", name, "")({attrs, in.data(), int(in.size()), &out, 1, op.scalars, op.pool, op.workspace});
}
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
  const int64_t rows = op.in[0].rows(), n = op.out[0].dim(-1), width = op.in[1].dim(0);
  Wide product({rows, width});
  run_plain(op, "linear", {}, {op.in[0], op.in[1], op.in[2]}, product.ref);
  const double* residual = values_of(op, 3);
  for (int64_t i = 0; i < rows * n; i++) {
    const double* row = &product.values[size_t(i / n * width + i % n)];
    op.out[0].as<double>()[i] = (geglu ? row[0] * activate("gelu", row[n]) : activate(activation, row[0])) + (residual ? residual[i] : 0);
  }
}

inline void add_to(const TensorRef& total, const Wide& x) {
  for (size_t i = 0; i < x.values.size(); i++) total.as<double>()[i] += x.values[i];
}
inline Shape shape_of(const TensorRef& t) { return Shape(t.dims, t.dims + t.rank); }

inline void linear_dw_accumulate_reference(const OpArgs& op) {
  Wide dw(shape_of(op.out[0]));
  run_plain(op, "linear_dw", {}, {op.in[1], op.in[2]}, dw.ref);
  add_to(op.out[0], dw);
}

/// What a fused convolution loads: x, and x2 beside it if there is an input `second`, enlarged.
inline Wide loaded(const OpArgs& op, int first, int second) {
  const TensorRef& x = op.in[first];
  const int64_t up = op.attrs.integer("upsample"), more = op.has(second) ? op.in[second].dim(3) : 0, channels = x.dim(3) + more;
  Wide map({x.dim(0), x.dim(1) * up, x.dim(2) * up, channels});
  for (int64_t i = 0; i < map.ref.numel(); i++) {
    const int64_t c = i % channels, column = i / channels % map.ref.dim(2), row = i / channels / map.ref.dim(2) % map.ref.dim(1),
                  sample = i / channels / map.ref.dim(2) / map.ref.dim(1);
    const int64_t pixel = (sample * x.dim(1) + row / up) * x.dim(2) + column / up;
    map.values[size_t(i)] = c < x.dim(3) ? x.as<double>()[pixel * x.dim(3) + c] : op.in[second].as<double>()[pixel * more + c - x.dim(3)];
  }
  return map;
}

inline void conv2d_fused_reference(const OpArgs& op) {
  const TensorRef& y = op.out[0];
  const std::string activation = op.attrs.text("activation");
  const Wide map = loaded(op, 0, 1);
  run_plain(op, "conv2d", op.attrs, {map.ref, op.in[2], op.in[3]}, y);
  double* to = y.as<double>();
  const double *sample = values_of(op, 4), *residual = values_of(op, 5);
  const int64_t out = y.dim(3), pixels = y.dim(1) * y.dim(2);
  for (int64_t i = 0; i < y.numel(); i++)
    to[i] = activate(activation, to[i] + (sample ? sample[i / out / pixels * out + i % out] : 0)) + (residual ? residual[i] : 0);
  const int64_t groups = op.attrs.integer("statistics"), channels = groups ? out / groups : 0;
  for (int64_t part = 0; part < y.rows() / 128 * groups; part++) {
    const double* first = to + part / groups * 128 * out + part % groups * channels;
    double mean = 0, m2 = 0;
    for (int64_t i = 0; i < 128 * channels; i++) mean += first[i / channels * out + i % channels] / double(128 * channels);
    for (int64_t i = 0; i < 128 * channels; i++) m2 += std::pow(first[i / channels * out + i % channels] - mean, 2);
    op.out[1].as<double>()[part * 2] = mean, op.out[1].as<double>()[part * 2 + 1] = m2;
  }
}

inline void conv2d_dw_fused_reference(const OpArgs& op) { run_plain(op, "conv2d_dw", op.attrs, {op.in[0], loaded(op, 1, 2).ref}, op.out[0]); }
inline void conv2d_dw_accumulate_reference(const OpArgs& op) {
  Wide dw(shape_of(op.out[0]));
  run_plain(op, "conv2d_dw", op.attrs, {op.in[1], loaded(op, 2, 3).ref}, dw.ref);
  add_to(op.out[0], dw);
}

inline void need_reference(const char* op, KernelFn fn) {
  if (!find_kernel("cpu", op, "")) register_kernel({"cpu", op, "generic", fn});
}

}  // namespace test
}  // namespace attune
