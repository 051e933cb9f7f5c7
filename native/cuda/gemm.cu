// gemm(): picks a kernel for a product, starts it, and then the passes that some plans need: sums over the parts of a split k, always in the same order, and
// the statistics of y where the kernel of the product could not leave them.
#include "gemm.h"

#include "block.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_statistics.cuh"

namespace attune {
namespace cuda {

/// Sums the parts of a split k: a thread eight columns of a row (with geglu the eight gates beside them too).
__global__ void __launch_bounds__(256) gemm_parts_kernel(const __grid_constant__ GemmProblem p, const __grid_constant__ GemmPlan plan) {
  const bool paired = p.epilogue.activation == Activation::geglu;
  const int across = plan.pitch() / (paired ? 16 : 8);
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = i / across;
  if (row >= int64_t(plan.phases) * plan.rows) return;
  const int z = int(row / plan.rows), m = int(row - int64_t(z) * plan.rows), column = int(i - row * across) * (paired ? 16 : 8);
  Work w;
  set_phase(w, p, z, p.a_layout == Layout::image, p.window.gradient);
  if (m >= w.m) return;
  float v[8] = {}, gate[8] = {}, part[8];
  for (int s = 0; s < plan.splits; s++) {
    const int64_t at = ((int64_t(z) * plan.splits + s) * plan.rows + m) * plan.pitch() + column;
    read8(plan.partial, false, at, true, 8, part);
    ATTUNE_UNROLL
    for (int e = 0; e < 8; e++) v[e] += part[e];
    if (!paired) continue;
    read8(plan.partial, false, at + 8, true, 8, part);
    ATTUNE_UNROLL
    for (int e = 0; e < 8; e++) gate[e] += part[e];
  }
  finish<Active::all>(p, plan, w, m, paired ? column / 2 : column, v, gate);
}

/// Statistics of y [rows, n] by itself: a warp per slab of 128 rows and group, in strips of 32 rows.
__global__ void __launch_bounds__(256) gemm_statistics_kernel(const __grid_constant__ GemmProblem p) {
  const Epilogue& e = p.epilogue;
  const int lane = threadIdx.x % 32, channels = int(p.n) / e.groups;
  const int64_t part = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (part >= p.m / 128 * e.groups) return;
  const Parameter y{e.out, e.out_narrow};
  const int64_t first = part / e.groups * 128 * e.ld + part % e.groups * channels;
  const float shift = y.at(first);
  float sum = 0, squares = 0;
  for (int i = lane; i < 128 * channels; i += 32) {
    const float d = y.at(first + i / channels * e.ld + i % channels) - shift;
    sum += d, squares += d * d;
  }
  const Moments all = moments_of(shift, warp_sum(sum), warp_sum(squares), 128.f * channels);
  if (lane == 0) store(reinterpret_cast<Moments*>(e.statistics) + part, all);
}

Activation activation_of(const Attrs& attrs) {
  const char* const names[] = {"none", "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"};
  if (!attrs.has("activation")) return Activation::none;
  for (int i = 0; i < 6; i++)
    if (attrs.text("activation") == names[i]) return Activation(i);
  throw Error("ERR_PROGRAM", "attribute \"activation\": received \"" + attrs.text("activation") + "\"");
}

static GemmStart* start_for(const GemmProblem& p) {
  if (p.b_layout == Layout::patches) return start_columns_patches;
  if (p.a_layout == Layout::image) return p.b_layout == Layout::rows ? start_image_rows : start_image_columns;
  if (p.a_layout == Layout::columns) return p.b_layout == Layout::rows ? start_columns_rows : start_columns_columns;
  return p.b_layout == Layout::rows ? start_rows_rows : start_rows_columns;
}

void gemm(const OpArgs& args, const GemmProblem& p) {
  if (args.caps().arch == 90 && p.dtype == DType::bf16 && gemm_hook && gemm_hook(args, p)) return;
  GemmPlan plan = gemm_plan(p, args.caps());
  if (plan.splits > 1) plan.partial = args.scratch<float>(int64_t(plan.phases) * plan.splits * plan.rows * plan.pitch());
  start_for(p)(args, p, plan);
  if (plan.splits > 1) {
    const int64_t threads = int64_t(plan.phases) * plan.rows * (plan.pitch() / (p.epilogue.activation == Activation::geglu ? 16 : 8));
    launch(args, gemm_parts_kernel, dim3(unsigned(ceil_div(threads, 256))), dim3(256), 0, p, plan);
  }
  if (p.epilogue.groups > 0 && !plan.fused_statistics)
    launch(args, gemm_statistics_kernel, dim3(unsigned(ceil_div(p.m / 128 * p.epilogue.groups, 8))), dim3(256), 0, p);
}

}  // namespace cuda
}  // namespace attune
