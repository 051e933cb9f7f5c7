// Kernels for A and B by rows: linear, and matmul with b transposed.
#include "gemm_start.cuh"

namespace attune {
namespace cuda {

void start_rows_rows(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) { start_product<Layout::rows, Layout::rows, true, true>(args, p, plan); }

}  // namespace cuda
}  // namespace attune
