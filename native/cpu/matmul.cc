// Batched matrix product: a [.., m, k] or transposed [.., k, m], b [.., k, n] or transposed [.., n, k] -> [.., m, n].
#include "gemm.h"

ATTUNE_CPU_BEGIN

namespace {

struct Product {
  int64_t batch, m, n, k;
  bool transpose_a, transpose_b;
};

template <typename T>
void multiply(const OpArgs& op, const Product& s, const T* a, const T* b, T* c) {
  const auto pack_b = [=](int64_t k0, int64_t length, const Panels<T>& panels, int64_t p, T* panel) {
    if (s.transpose_b) pack_transposed<T>(b + panels.start(p) * s.k + k0, s.k, length, panels.columns(p), panels.width(p), panel);
    else pack_rows<T>(b + k0 * s.n + panels.start(p), s.n, length, panels.columns(p), panels.width(p), panel);
  };
  const auto pack_a = [=](int64_t k0, int64_t length, int64_t m0, int count, T* panel) { pack_rows_narrow<T>(a + k0 * s.m + m0, s.m, length, count, panel); };
  if (s.transpose_a) gemm_cols<T>(op, s.m, s.n, s.k, c, pack_a, pack_b);
  else gemm_matrix<T>(op, s.m, s.n, s.k, a, s.k, c, s.n, nullptr, pack_b);
}

void matmul_kernel(const OpArgs& op) {
  const TensorRef &a = op.in[0], &b = op.in[1], &c = op.out[0];
  Product s{1, c.dim(-2), c.dim(-1), 0, op.attrs.flag("transposeA", false), op.attrs.flag("transposeB", false)};
  s.k = a.dim(s.transpose_a ? -2 : -1);
  for (int i = 0; i + 2 < c.rank; i++) s.batch *= c.dims[i];
  dispatch(c.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < s.batch; i++) multiply<T>(op, s, a.as<T>() + i * s.m * s.k, b.as<T>() + i * s.k * s.n, c.as<T>() + i * s.m * s.n);
  });
}

}  // namespace

REGISTER_CPU(matmul, matmul_kernel)

ATTUNE_CPU_END
