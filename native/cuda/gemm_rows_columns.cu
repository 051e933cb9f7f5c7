// Kernels for A by rows and B by columns: linear_dx, matmul.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_rows_columns(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::rows, Layout::columns, true, false>(args, p, plan);
}

}  // namespace cuda
}  // namespace attune
