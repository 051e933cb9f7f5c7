// Kernels for A by columns: linear_dw (B by columns too), matmul with a transposed.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_columns_columns(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::columns, Layout::columns, true, false>(args, p, plan);
}

void start_columns_rows(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::columns, Layout::rows, false, false>(args, p, plan);
}

}  // namespace cuda
}  // namespace attune
