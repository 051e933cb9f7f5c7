// Kernels for A by columns and B as patches of a map: conv2d_dw.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_columns_patches(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::columns, Layout::patches, true, false>(args, p, plan);
}

}  // namespace cuda
}  // namespace attune
