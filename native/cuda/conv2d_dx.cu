// Kernels for A as a map under a window and B by columns of taps: conv2d_dx reads the weight as it lies.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_image_columns(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::image, Layout::columns, true, false>(args, p, plan);
}

}  // namespace cuda
}  // namespace attune
