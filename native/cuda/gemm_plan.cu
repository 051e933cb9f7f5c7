// The choice of tile and split for a product, by counting what each would cost: work of the fullest multiprocessor, and bytes of partial sums.
// 320, 640 and 1280 channels are multiples of 160, so tiles of 128 x 160 leave fewer multiprocessors idle in the last wave than tiles of 128 x 128.
#include "gemm_plan.h"

namespace attune {
namespace cuda {

namespace {

/// A kernel: its tile, blocks that share a multiprocessor, and clocks of a multiprocessor per tile of k with one block's warps busy.
/// The clocks are operations over the 1024 multiply-adds that sm_80 does a clock (f32: 128), over the share of them that a tile of this size can keep busy;
/// only their ratios matter.
struct Candidate {
  TileKind tile;
  int bm, bn, resident;
  double clocks;
};
constexpr Candidate kBf16[] = {{TileKind::m128n160, 128, 160, 2, 128 * 160 * 32 / 1024. / 0.85},
                               {TileKind::m128n128, 128, 128, 2, 128 * 128 * 32 / 1024. / 0.8},
                               {TileKind::m64n64, 64, 64, 4, 64 * 64 * 32 / 1024. / 0.5}};
constexpr Candidate kFlat = {TileKind::m16n64, 16, 64, 4, 16 * 64 * 32 / 1024. / 0.3};
constexpr Candidate kF32 = {TileKind::m64n64, 64, 64, 4, 64 * 64 * 16 / 128. / 0.6};

constexpr double kLatency = 500;       // clocks of one tile of k when nothing overlaps its copies: two tiles hide about 1000
constexpr double kFixed = 1500;        // clocks of a block outside its loop
constexpr double kSecondPass = 4000;   // clocks to start the pass over partial sums
constexpr double kBytesPerClock = 12;  // of memory, per multiprocessor
constexpr int kLeastSteps = 8, kMostSplits = 32;

double cost(const Candidate& c, int64_t blocks, int64_t steps, int multiprocessors) {
  double clocks = 0;
  for (int64_t left = ceil_div(blocks, multiprocessors); left > 0; left -= c.resident) {
    const double together = double(left < c.resident ? left : c.resident) * c.clocks;
    clocks += kFixed + double(steps) * (together > kLatency ? together : kLatency);
    if (left > 1000 * c.resident) return clocks * double(left) / c.resident;  // many equal rounds
  }
  return clocks;
}

bool divides(int64_t chunk, std::initializer_list<int64_t> sizes) {
  for (const int64_t s : sizes)
    if (s % chunk != 0) return false;
  return true;
}

/// Whether an operand comes in whole chunks.
bool whole(const GemmProblem& p, bool is_a, int chunk) {
  switch (is_a ? p.a_layout : p.b_layout) {
    case Layout::rows: return divides(chunk, {p.k, is_a ? p.lda : p.ldb, is_a ? p.a_step : p.b_step});
    case Layout::columns: return divides(chunk, {is_a ? p.m : p.n, is_a ? p.lda : p.ldb, is_a ? p.a_step : p.b_step});
    default: return divides(chunk, {p.window.channels, p.window.channels2});
  }
}

}  // namespace

GemmPlan gemm_plan(const GemmProblem& p, const DeviceCaps& caps) {
  constexpr int64_t kMost = (int64_t(1) << 31) - 4096;
  if (p.m > kMost || p.n > kMost / 2 || p.k > kMost) throw Error("ERR_PROGRAM", "a matrix product with 2^31 rows, columns or terms");
  const bool f32 = p.dtype == DType::f32, geglu = p.epilogue.activation == Activation::geglu, image = p.a_layout == Layout::image;
  const int depth = f32 ? 16 : 32, chunk = f32 ? 4 : 8;
  GemmPlan plan{};
  plan.wide = whole(p, true, chunk) && whole(p, false, chunk);
  plan.vector = divides(8, {p.n, p.epilogue.ld, p.out_step});
  plan.columns = int(geglu ? ceil_div(p.n, 8) * 16 : p.n);
  plan.phases = int(p.window.gradient ? int64_t(p.window.stride) * p.window.stride : p.batch);
  int64_t most = p.k;  // depth of the deepest phase, which need not be the one with the most rows
  plan.rows = int(p.m);
  if (p.window.gradient) {
    const Window& v = p.window;
    plan.rows = int(p.m / (int64_t(v.grid_height) * v.grid_width) * ceil_div(v.grid_height, v.stride) * ceil_div(v.grid_width, v.stride));
    most = ceil_div(v.kh, v.stride) * ceil_div(v.kw, v.stride) * v.channels;
  }
  const int64_t steps = ceil_div(most, depth);

  double least = 0;
  const auto consider = [&](const Candidate& c) {
    const int64_t tiles_m = ceil_div(plan.rows, c.bm), tiles_n = ceil_div(plan.columns, c.bn), tiles = tiles_m * tiles_n * plan.phases;
    for (int64_t splits = 1; splits <= kMostSplits && (splits == 1 || steps / splits >= kLeastSteps); splits++) {
      const int64_t part = ceil_div(steps, splits);
      if (ceil_div(steps, part) != splits) continue;  // the last parts would be empty
      const double bytes = splits == 1 ? 0 : double(splits) * plan.phases * plan.rows * plan.pitch() * 8;
      const double clocks =
          cost(c, tiles * splits, part, caps.multiprocessors) + (splits == 1 ? 0 : kSecondPass + bytes / (caps.multiprocessors * kBytesPerClock));
      if (least != 0 && clocks >= least) continue;
      least = clocks;
      plan.tile = c.tile, plan.tiles_m = int(tiles_m), plan.tiles_n = int(tiles_n), plan.splits = int(splits), plan.steps = int(part);
      if (tiles * splits > kMost) throw Error("ERR_PROGRAM", "a matrix product of 2^31 tiles");
    }
  };
  if (f32) consider(kF32);
  else if (!plan.wide) consider(kBf16[2]);
  else if (p.a_layout == Layout::rows && p.b_layout == Layout::rows && p.m <= 16) consider(kFlat);
  else if (p.a_layout == Layout::columns && p.b_layout == Layout::rows) consider(kBf16[2]);
  else
    for (const Candidate& c : kBf16) consider(c);

  // The strips of a 128-row tile hold whole groups, and the lanes of a warp suffice for them.
  if (p.epilogue.groups > 0) {
    const int64_t channels = p.n / p.epilogue.groups, width = plan.tile == TileKind::m128n160 ? 80 : 64;
    plan.fused_statistics = !f32 && plan.wide && plan.splits == 1 && (plan.tile == TileKind::m128n160 || plan.tile == TileKind::m128n128) &&
                            width % channels == 0 && width / channels <= 32 && (image || p.a_layout == Layout::rows) && p.b_layout == Layout::rows;
  }
  return plan;
}

}  // namespace cuda
}  // namespace attune
