// y = activation(x W^T + bias) + residual over token rows, and the gradients. x [.., K], weight [N, K] (geglu: [2 N, K]), y [.., N].
#include "gemm.h"

namespace attune {
namespace cuda {

void linear_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &weight = args.in[1], &y = args.out[0];
  GemmProblem p;
  p.dtype = x.dtype, p.m = x.rows(), p.n = y.dim(-1), p.k = x.dim(-1);
  p.a = x.data, p.lda = p.k, p.b = weight.data, p.ldb = p.k;
  p.epilogue = epilogue_to(y, p.n);
  p.epilogue.bias = args.parameter(2);
  p.epilogue.activation = activation_of(args.attrs);
  if (args.has(3)) add_residual(p.epilogue, args.in[3]);
  gemm(args, p);
}

/// dx = dy W
void linear_dx_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &weight = args.in[1], &dx = args.out[0];
  GemmProblem p;
  p.dtype = dy.dtype, p.m = dy.rows(), p.n = weight.dim(1), p.k = weight.dim(0);
  p.a = dy.data, p.lda = p.k, p.b_layout = Layout::columns, p.b = weight.data, p.ldb = p.n;
  p.epilogue = epilogue_to(dx, p.n);
  gemm(args, p);
}

/// dW = dy^T x over all rows; with `total`, dW is added to it in place.
static void weight_gradient(const OpArgs& args, const TensorRef& dy, const TensorRef& x, const TensorRef* total) {
  GemmProblem p;
  p.dtype = dy.dtype, p.m = dy.dim(-1), p.n = x.dim(-1), p.k = x.rows();
  p.a_layout = Layout::columns, p.a = dy.data, p.lda = p.m, p.b_layout = Layout::columns, p.b = x.data, p.ldb = p.n;
  p.epilogue = epilogue_to(args.out[0], p.n);
  if (total) add_residual(p.epilogue, *total);
  gemm(args, p);
}
void linear_dw_op(const OpArgs& args) { weight_gradient(args, args.in[0], args.in[1], nullptr); }
void linear_dw_accumulate_op(const OpArgs& args) { weight_gradient(args, args.in[1], args.in[2], &args.in[0]); }

REGISTER_CUDA(linear, linear_op)
REGISTER_CUDA(linear_fused, linear_op)
REGISTER_CUDA(linear_dx, linear_dx_op)
REGISTER_CUDA(linear_dw, linear_dw_op)
REGISTER_CUDA(linear_dw_accumulate, linear_dw_accumulate_op)

}  // namespace cuda
}  // namespace attune
