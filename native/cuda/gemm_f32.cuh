// The product in f32: real f32 multiply-adds, with the tiles, stages and epilogue of the tensor-core kernel. A block computes 64 x 64, a warp 32 x 32, a thread
// 8 x 4 of it. Rows of a thread are a permutation of the warp's that suits the form of the tile: spread by depth, in runs of four by rows.
#pragma once
#include "gemm_epilogue.cuh"

namespace attune {
namespace cuda {

template <Layout LA, Layout LB, int kCopy>
struct F32Shape {
  static constexpr int kThreads = 128;
  using A = Tile<float, 64, kThreads, kCopy, LA, LB, true>;
  using B = Tile<float, 64, kThreads, kCopy, LB, LA, false>;
  static constexpr int kStage = A::kBytes + B::kBytes, kStrip = 32 * kStripPitch<32>;
  static constexpr int kShared = kStages * kStage > 4 * kStrip * 4 ? kStages* kStage : 4 * kStrip * 4;
};

/// Which of a warp's 32 rows is row i of the thread that is number `at` of `kAcross` along this side.
template <bool kByDepth, int kAcross>
ATTUNE_DEVICE constexpr int row_of(int at, int i) {
  return kByDepth ? at + i * kAcross : at * 4 + i / 4 * (kAcross * 4) + i % 4;
}

/// Four k of this thread's rows: v[row][k].
template <int kRows, bool kByDepth, int kAcross>
ATTUNE_DEVICE void f32_fragment(float (&v)[kRows][4], const unsigned char* tile, int row, int at, int quarter) {
  if constexpr (kByDepth) {
    ATTUNE_UNROLL
    for (int i = 0; i < kRows; i++) {
      const float4 q = load(reinterpret_cast<const float4*>(tile + depth_offset(row + row_of<true, kAcross>(at, i), quarter)));
      v[i][0] = q.x, v[i][1] = q.y, v[i][2] = q.z, v[i][3] = q.w;
    }
  } else {
    ATTUNE_UNROLL
    for (int k = 0; k < 4; k++) {
      ATTUNE_UNROLL
      for (int i = 0; i < kRows; i += 4) {
        const float4 q = load(reinterpret_cast<const float4*>(tile + (quarter * 4 + k) * kPitch<float, 64>) + (row + row_of<false, kAcross>(at, i)) / 4);
        v[i][k] = q.x, v[i + 1][k] = q.y, v[i + 2][k] = q.z, v[i + 3][k] = q.w;
      }
    }
  }
}

template <Layout LA, Layout LB, int kCopy>
__global__ void __launch_bounds__(128, 4) gemm_f32_kernel(const __grid_constant__ GemmProblem p, const __grid_constant__ GemmPlan plan) {
  using Shape = F32Shape<LA, LB, kCopy>;
  ATTUNE_SHARED(memory);
  const Work w = work_of<float, LA, LB>(p, plan, 64, 64);
  if (w.m0 >= w.m) return;  // a smaller phase
  const int warp = threadIdx.x / 32, row = warp / 2 * 32, column = warp % 2 * 32, down = threadIdx.x % 32 / 8, across = threadIdx.x % 8;
  typename Shape::A a;
  typename Shape::B b;
  float sum[8][4] = {};
  const auto bring = [&](int slot) {
    a.load_to(memory + slot * Shape::kStage, p, plan, w);
    b.load_to(memory + slot * Shape::kStage + Shape::A::kBytes, p, plan, w);
  };
  a.start(p, plan, w), b.start(p, plan, w);
  ATTUNE_UNROLL
  for (int s = 0; s < kStages - 1; s++) {
    if (s < w.steps) bring(s);
    copy_commit();
  }
  for (int left = w.steps, from = 0; left > 0; left--) {
    copy_wait<kStages - 2>();
    __syncthreads();
    if (left >= kStages) bring(from == 0 ? kStages - 1 : from - 1);  // where the tile lay that everyone has read
    copy_commit();
    const unsigned char *at = memory + from * Shape::kStage, *bt = at + Shape::A::kBytes;
    ATTUNE_ROLLED
    for (int quarter = 0; quarter < 4; quarter++) {
      float av[8][4], bv[4][4];
      f32_fragment<8, Shape::A::kByDepth, 4>(av, at, row, down, quarter);
      f32_fragment<4, Shape::B::kByDepth, 8>(bv, bt, column, across, quarter);
      ATTUNE_UNROLL
      for (int k = 0; k < 4; k++) {
        ATTUNE_UNROLL
        for (int i = 0; i < 8; i++) {
          ATTUNE_UNROLL
          for (int j = 0; j < 4; j++) sum[i][j] = fmaf(av[i][k], bv[j][k], sum[i][j]);
        }
      }
    }
    from = from + 1 == kStages ? 0 : from + 1;
  }
  copy_wait<0>();
  __syncthreads();  // strips overlay the tiles

  float* strip = reinterpret_cast<float*>(memory) + warp * Shape::kStrip;
  ATTUNE_UNROLL
  for (int i = 0; i < 8; i++) {
    ATTUNE_UNROLL
    for (int j = 0; j < 4; j++) store(strip + row_of<Shape::A::kByDepth, 4>(down, i) * kStripPitch<32> + row_of<Shape::B::kByDepth, 8>(across, j), sum[i][j]);
  }
  __syncwarp();
  emit_strip<32, 32, kActive<LA, LB>>(p, plan, w, strip, w.m0 + row, w.n0 + column);
}

}  // namespace cuda
}  // namespace attune
