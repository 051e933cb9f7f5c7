// The product on tensor cores: bf16 operands, f32 sums (mma.sync m16n8k16, sm_80 and later). A block computes BM x BN of one matrix or phase, or of a part of
// its k; its warps WM x WN each. Three tiles of 32 k are in flight by cp.async: one is multiplied while two arrive, and one barrier a tile separates the
// readers of a slot from its next writers.
#pragma once
#include "gemm_epilogue.cuh"
#include "gemm_statistics.cuh"
#include "mma.cuh"

namespace attune {
namespace cuda {

/// Fragments of BM x BN x 16: ldmatrix from a tile by depth, ldmatrix.trans from one by rows. `row`: the warp's first; half: which 16 k of the 32.
template <int kTiles, int R, bool kByDepth>
ATTUNE_DEVICE void a_fragments(uint32_t (&a)[kTiles][4], const unsigned char* tile, int row, int half) {
  const int lane = threadIdx.x % 32;
  ATTUNE_UNROLL
  for (int i = 0; i < kTiles; i++) {
    if constexpr (kByDepth) ldmatrix_x4(a[i], tile + depth_offset(row + i * 16 + lane % 16, half * 2 + lane / 16));
    else ldmatrix_x4_trans(a[i], tile + (half * 16 + lane % 8 + lane / 16 * 8) * kPitch<bf16, R> + (row + i * 16 + lane / 8 % 2 * 8) * 2);
  }
}
template <int kTiles, int R, bool kByDepth>
ATTUNE_DEVICE void b_fragments(uint32_t (&b)[kTiles][2], const unsigned char* tile, int row, int half) {
  static_assert(kTiles % 2 == 0, "one ldmatrix brings two");
  const int lane = threadIdx.x % 32;
  ATTUNE_UNROLL
  for (int i = 0; i < kTiles; i += 2) {
    uint32_t q[4];
    if constexpr (kByDepth) ldmatrix_x4(q, tile + depth_offset(row + i * 8 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
    else ldmatrix_x4_trans(q, tile + (half * 16 + lane % 16) * kPitch<bf16, R> + (row + i * 8 + lane / 16 * 8) * 2);
    b[i][0] = q[0], b[i][1] = q[1], b[i + 1][0] = q[2], b[i + 1][1] = q[3];
  }
}

/// Adds a times b to the columns of sums from tile `first` on. The copies are renamed registers.
template <int MT, int NT, int kGroup>
ATTUNE_DEVICE void multiply(float (&sum)[MT][NT][4], const uint32_t (&a)[MT][4], const uint32_t (&b)[kGroup][2], int first) {
  float part[MT][kGroup][4];
  ATTUNE_UNROLL
  for (int e = 0; e < MT * kGroup * 4; e++) part[e / 4 / kGroup][e / 4 % kGroup][e % 4] = sum[e / 4 / kGroup][first + e / 4 % kGroup][e % 4];
  mma_tile<MT, kGroup>(part, a, b);
  ATTUNE_UNROLL
  for (int e = 0; e < MT * kGroup * 4; e++) sum[e / 4 / kGroup][first + e / 4 % kGroup][e % 4] = part[e / 4 / kGroup][e / 4 % kGroup][e % 4];
}

template <int BM, int BN, int WM, int WN, Layout LA, Layout LB, int kCopy>
struct Bf16Shape {
  static constexpr int kAcross = BN / WN, kDown = BM / WM, kWarps = kDown * kAcross, kThreads = kWarps * 32;
  using A = Tile<bf16, BM, kThreads, kCopy, LA, LB, true>;
  using B = Tile<bf16, BN, kThreads, kCopy, LB, LA, false>;
  static constexpr bool kStatistics = kActive<LA, LB> != Active::none && BM == 128;
  static constexpr int kStage = A::kBytes + B::kBytes, kStrip = 16 * kStripPitch<WN>;  // bytes, floats
  static constexpr int kEnd = kWarps * kStrip * 4 + (kStatistics ? kDown * BN * int(sizeof(Moments)) : 0);
  static constexpr int kMost = kStages * kStage > kEnd ? kStages* kStage : kEnd;
  static constexpr int kWork = (kMost + 15) / 16 * 16, kShared = kWork + int(sizeof(Work));  // where the block's Work lies, and bytes in all
};

template <int BM, int BN, int WM, int WN, Layout LA, Layout LB, int kCopy>
__global__ void __launch_bounds__(BM / WM * (BN / WN) * 32, 512 / (BM / WM * (BN / WN) * 32))
    gemm_bf16_kernel(const __grid_constant__ GemmProblem p, const __grid_constant__ GemmPlan plan) {
  using Shape = Bf16Shape<BM, BN, WM, WN, LA, LB, kCopy>;
  constexpr int MT = WM / 16, NT = WN / 8, kGroup = NT == 4 ? 4 : 2;  // few of B's fragments are alive at a time
  ATTUNE_SHARED(memory);
  const Work w = work_of<bf16, LA, LB>(p, plan, BM, BN);
  if (w.m0 >= w.m) return;  // a smaller phase
  if (threadIdx.x == 0) store(reinterpret_cast<Work*>(memory + Shape::kWork), w);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / Shape::kAcross * WM, column = warp % Shape::kAcross * WN;
  typename Shape::A a;
  typename Shape::B b;
  float sum[MT][NT][4];
  ATTUNE_UNROLL
  for (int i = 0; i < MT; i++) {
    ATTUNE_UNROLL
    for (int j = 0; j < NT; j++) sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0.f;
  }
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
    ATTUNE_UNROLL
    for (int half = 0; half < 2; half++) {
      uint32_t af[MT][4];
      a_fragments<MT, BM, Shape::A::kByDepth>(af, at, row, half);
      ATTUNE_UNROLL
      for (int j = 0; j < NT; j += kGroup) {
        uint32_t bf[kGroup][2];
        b_fragments<kGroup, BN, Shape::B::kByDepth>(bf, bt, column + j * 8, half);
        multiply<MT, NT, kGroup>(sum, af, bf, j);
      }
    }
    from = from + 1 == kStages ? 0 : from + 1;
  }
  copy_wait<0>();
  __syncthreads();  // strips overlay the tiles

  const Work done = load(reinterpret_cast<const Work*>(memory + Shape::kWork));  // read again: registers are scarce in the loop
  float* strip = reinterpret_cast<float*>(memory) + warp * Shape::kStrip;
  const bool statistics = Shape::kStatistics && plan.fused_statistics;
  Moments total;
  ATTUNE_UNROLL
  for (int i = 0; i < MT; i++) {
    ATTUNE_UNROLL
    for (int j = 0; j < NT; j++) {
      float* to = strip + lane / 4 * kStripPitch<WN> + j * 8 + lane % 4 * 2;
      store(reinterpret_cast<float2*>(to), float2{sum[i][j][0], sum[i][j][1]});
      store(reinterpret_cast<float2*>(to + 8 * kStripPitch<WN>), float2{sum[i][j][2], sum[i][j][3]});
    }
    __syncwarp();
    emit_strip<16, WN, kActive<LA, LB>>(p, plan, done, strip, done.m0 + row + i * 16, done.n0 + column);
    __syncwarp();
    if constexpr (Shape::kStatistics) {
      if (statistics) {
        const StripGroups groups(WN, int(p.n) / p.epilogue.groups);
        total.merge(strip_moments(strip, kStripPitch<WN>, groups), float(i * 16 * groups.channels), float(16 * groups.channels));
        __syncwarp();
      }
    }
  }
  if constexpr (Shape::kStatistics) {
    if (!statistics) return;
    // The warps above one another hold parts of the same groups.
    Moments* parts = reinterpret_cast<Moments*>(memory + Shape::kWarps * Shape::kStrip * 4);
    const int channels = int(p.n) / p.epilogue.groups, groups = BN / channels, first = done.n0 / channels;
    const StripGroups mine(WN, channels);
    if (mine.group() < mine.count && lane % mine.lanes == 0)
      store(parts + warp / Shape::kAcross * groups + warp % Shape::kAcross * mine.count + mine.group(), total);
    __syncthreads();
    const int g = threadIdx.x;
    if (g >= groups || first + g >= p.epilogue.groups) return;
    Moments all = load(parts + g);
    for (int i = 1; i < Shape::kDown; i++) all.merge(load(parts + i * groups + g), float(i * WM * channels), float(WM * channels));
    store(reinterpret_cast<Moments*>(p.epilogue.statistics) + int64_t(done.m0 / 128) * p.epilogue.groups + first + g, all);
  }
}

}  // namespace cuda
}  // namespace attune
