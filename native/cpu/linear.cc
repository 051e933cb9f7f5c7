// y = x W^T + bias over token rows, and its two gradients. x [rows, K], weight [N, K], y [rows, N].
#include "gemm.h"

ATTUNE_CPU_BEGIN

namespace {

void linear_kernel(const OpArgs& op) {
  const TensorRef &x = op.in[0], &weight = op.in[1], &y = op.out[0];
  const int64_t rows = x.rows(), k = x.dim(-1), n = weight.dim(0);
  dispatch(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* w = weight.as<T>();
    const auto pack = [=](int64_t k0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
      pack_transposed<T>(w + panels.start(p) * k + k0, k, length, panels.columns(p), panels.width(p), panel);
    };
    gemm_matrix<T>(op, rows, n, k, x.as<T>(), k, y.as<T>(), n, op.has(2) ? op.in[2].as<T>() : nullptr, pack);
  });
}

// dx = dy W
void linear_dx_kernel(const OpArgs& op) {
  const TensorRef &dy = op.in[0], &weight = op.in[1], &dx = op.out[0];
  const int64_t rows = dy.rows(), k = weight.dim(1), n = weight.dim(0);
  dispatch(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* w = weight.as<T>();
    const auto pack = [=](int64_t k0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
      pack_rows<T>(w + k0 * k + panels.start(p), k, length, panels.columns(p), panels.width(p), panel);
    };
    gemm_matrix<T>(op, rows, k, n, dy.as<T>(), n, dx.as<T>(), k, nullptr, pack);
  });
}

// dW = dy^T x, summed over all rows
void linear_dw_kernel(const OpArgs& op) {
  const TensorRef &dy = op.in[0], &x = op.in[1], &dw = op.out[0];
  const int64_t rows = x.rows(), k = x.dim(-1), n = dy.dim(-1);
  dispatch(dw.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T *g = dy.as<T>(), *in = x.as<T>();
    const auto pack_a = [=](int64_t r0, int64_t length, int64_t m0, int count, T* panel) { pack_rows_narrow<T>(g + r0 * n + m0, n, length, count, panel); };
    const auto pack_b = [=](int64_t r0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
      pack_rows<T>(in + r0 * k + panels.start(p), k, length, panels.columns(p), panels.width(p), panel);
    };
    gemm_cols<T>(op, n, k, rows, dw.as<T>(), pack_a, pack_b);
  });
}

}  // namespace

REGISTER_CPU(linear, linear_kernel)
REGISTER_CPU(linear_dx, linear_dx_kernel)
REGISTER_CPU(linear_dw, linear_dw_kernel)

ATTUNE_CPU_END
