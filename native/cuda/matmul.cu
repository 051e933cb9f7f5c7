// Batched matrix product: a [.., m, k] or transposed [.., k, m], b [.., k, n] or transposed [.., n, k] -> [.., m, n].
#include "gemm.h"

namespace attune {
namespace cuda {

void matmul_op(const OpArgs& args) {
  const TensorRef &a = args.in[0], &b = args.in[1], &c = args.out[0];
  const bool transpose_a = args.attrs.flag("transposeA", false), transpose_b = args.attrs.flag("transposeB", false);
  GemmProblem p;
  p.dtype = a.dtype, p.m = c.dim(-2), p.n = c.dim(-1), p.k = a.dim(transpose_a ? -2 : -1);
  p.a = a.data, p.lda = a.dim(-1), p.a_layout = transpose_a ? Layout::columns : Layout::rows;
  p.b = b.data, p.ldb = b.dim(-1), p.b_layout = transpose_b ? Layout::rows : Layout::columns;
  p.a_step = p.m * p.k, p.b_step = p.k * p.n, p.out_step = p.m * p.n;
  for (int i = 0; i + 2 < c.rank; i++) p.batch *= c.dims[i];
  p.epilogue = epilogue_to(c, p.n);
  gemm(args, p);
}

REGISTER_CUDA(matmul, matmul_op)

}  // namespace cuda
}  // namespace attune
