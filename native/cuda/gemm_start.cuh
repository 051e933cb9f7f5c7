// Which kernels there are for a pair of layouts, and starting the one that gemm() chose. Each pair is compiled in a file of its own.
#pragma once
#include "gemm_bf16.cuh"
#include "gemm_f32.cuh"

namespace attune {
namespace cuda {

template <int BM, int BN, int WM, int WN, Layout LA, Layout LB, int kCopy>
void start_bf16(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan, unsigned blocks) {
  using Shape = Bf16Shape<BM, BN, WM, WN, LA, LB, kCopy>;
  launch(args, gemm_bf16_kernel<BM, BN, WM, WN, LA, LB, kCopy>, dim3(blocks), dim3(Shape::kThreads), Shape::kShared, p, plan);
}

/// kLarge: also the tiles for many rows and columns; kFlat: also the one for a few rows.
template <Layout LA, Layout LB, bool kLarge, bool kFlat>
void start_product(const OpArgs& args, const GemmProblem& p, const GemmPlan& plan) {
  const unsigned blocks = unsigned(int64_t(plan.tiles_m) * plan.tiles_n * plan.splits * plan.phases);
  if (p.dtype == DType::f32) {
    if (plan.copy == 16) launch(args, gemm_f32_kernel<LA, LB, 16>, dim3(blocks), dim3(128), F32Shape<LA, LB, 16>::kShared, p, plan);
    else launch(args, gemm_f32_kernel<LA, LB, 0>, dim3(blocks), dim3(128), F32Shape<LA, LB, 0>::kShared, p, plan);
    return;
  }
  if (plan.copy == 0) return start_bf16<64, 64, 32, 32, LA, LB, 0>(args, p, plan, blocks);
  if (plan.copy == 8) return start_bf16<64, 64, 32, 32, LA, LB, 8>(args, p, plan, blocks);
  if constexpr (kLarge) {
    if (plan.tile == TileKind::m128n160) return start_bf16<128, 160, 32, 80, LA, LB, 16>(args, p, plan, blocks);
    if (plan.tile == TileKind::m128n128) return start_bf16<128, 128, 32, 64, LA, LB, 16>(args, p, plan, blocks);
  }
  if constexpr (kFlat) {
    if (plan.tile == TileKind::m16n64) return start_bf16<16, 64, 16, 16, LA, LB, 16>(args, p, plan, blocks);
  }
  start_bf16<64, 64, 32, 32, LA, LB, 16>(args, p, plan, blocks);
}

}  // namespace cuda
}  // namespace attune
