// Kernels for A as a map under a window and B by rows: conv2d.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_image_rows(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  start_product<Layout::image, Layout::rows, true, false>(args, p, plan);
}

}  // namespace cuda
}  // namespace attune
