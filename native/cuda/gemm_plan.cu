// The choice of tile and split for a product, by counting what each would cost: work of the fullest multiprocessor, and bytes of partial sums.
// 320, 640 and 1280 channels are multiples of 160, so tiles of 128 x 160 leave fewer multiprocessors idle in the last wave than tiles of 128 x 128.
#include "gemm_plan.h"

namespace attune {
namespace cuda {

namespace {

/// A kernel: its tile, the most blocks that its registers let share a multiprocessor, and clocks per tile of k of a busy multiprocessor. The clocks are
/// multiply-adds over the 1024 that sm_80 does a clock (f32: 128), over the share of them that a tile of this size is taken to keep busy, by how much of
/// shared memory's bandwidth its fragments need. Only their ratios matter, and none has been measured.
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

constexpr double kLatency = 500;       // clocks of one tile of k when nothing overlaps its copies: two tiles in flight hide about 1000
constexpr double kAlone = 150;         // clocks of a tile of k that a block without company spends at its barrier
constexpr double kFixed = 1500;        // clocks of a block outside its loop
constexpr double kAnotherPass = 4000;  // clocks to start and drain a second kernel
constexpr double kBytesPerClock = 12;  // of memory, per multiprocessor
constexpr int kLeastSteps = 8, kMostSplits = 32;

/// Clocks of the fullest multiprocessor.
double cost(const Candidate& c, int64_t blocks, int64_t steps, const DeviceCaps& caps) {
  const int bytes = 3 * (c.bm + c.bn) * 64 + 1024, fit = (caps.shared_bytes + 1024) / bytes, resident = fit < c.resident ? (fit > 0 ? fit : 1) : c.resident;
  const auto round = [&](int64_t together) {
    const double busy = double(together) * c.clocks, alone = c.clocks + kAlone;
    return kFixed + double(steps) * (busy > alone ? busy > kLatency ? busy : kLatency : alone > kLatency ? alone : kLatency);
  };
  const int64_t most = ceil_div(blocks, caps.multiprocessors), rest = most % resident;
  return double(most / resident) * round(resident) + (rest > 0 ? round(rest) : 0);
}

bool divides(int64_t chunk, std::initializer_list<int64_t> sizes) {
  for (const int64_t s : sizes)
    if (s % chunk != 0) return false;
  return true;
}

/// Whether an operand comes in aligned pieces of so many elements, each wholly inside or outside of it.
bool whole(const GemmProblem& p, bool is_a, int elements) {
  switch (is_a ? p.a_layout : p.b_layout) {
    case Layout::rows: return divides(elements, {p.k, is_a ? p.lda : p.ldb, is_a ? p.a_step : p.b_step});
    case Layout::columns: return divides(elements, {is_a ? p.m : p.n, is_a ? p.lda : p.ldb, is_a ? p.a_step : p.b_step});
    default: return divides(elements, {p.window.channels, p.window.channels2});
  }
}

/// The strips of a 128-row tile hold whole groups, and the lanes of a warp suffice for them.
bool leaves_statistics(const GemmProblem& p, TileKind tile) {
  const int64_t channels = p.n / p.epilogue.groups, width = tile == TileKind::m128n160 ? 80 : 64;
  return (tile == TileKind::m128n160 || tile == TileKind::m128n128) && p.b_layout == Layout::rows && width % channels == 0 && width / channels <= 32;
}

}  // namespace

GemmPlan gemm_plan(const GemmProblem& p, const DeviceCaps& caps) {
  constexpr int64_t kMost = (int64_t(1) << 31) - 4096, kLongest = int64_t(1) << 24;
  if (p.m > kMost || p.n > kMost / 2 || p.k > kMost) throw Error("ERR_PROGRAM", "a matrix product with 2^31 rows, columns or terms");
  if ((p.a_layout == Layout::rows && p.lda > kLongest) || (p.b_layout == Layout::rows && p.ldb > kLongest))
    throw Error("ERR_PROGRAM", "a matrix product over rows of more than 2^24 elements");
  const bool f32 = p.dtype == DType::f32, geglu = p.epilogue.activation == Activation::geglu;
  const int depth = f32 ? 16 : 32;
  const Window& v = p.window;
  GemmPlan plan{};
  const auto copied = [&](int elements) { return whole(p, true, elements) && whole(p, false, elements); };
  plan.copy = f32 ? (copied(4) ? 16 : 0) : copied(8) ? 16 : copied(4) ? 8 : 0;
  plan.vector = divides(8, {p.n, p.epilogue.ld, p.out_step});
  plan.columns = int(geglu ? ceil_div(p.n, 8) * 16 : p.n);
  plan.channels = v.all_channels(), plan.fold = v.upsample - 1, plan.height = v.height * v.upsample, plan.width = v.width * v.upsample;
  plan.phases = int(p.batch), plan.rows = int(p.m);
  int64_t deepest = p.k;
  if (v.gradient) {  // the phase with the most rows need not be the one with the most taps
    plan.phases = v.stride * v.stride;
    plan.rows = int(p.m / (int64_t(v.grid_height) * v.grid_width) * ceil_div(v.grid_height, v.stride) * ceil_div(v.grid_width, v.stride));
    deepest = ceil_div(v.kh, v.stride) * ceil_div(v.kw, v.stride) * v.channels;
  }
  const int64_t steps = ceil_div(deepest, depth);

  double least = 0;
  const auto consider = [&](const Candidate& c) {
    const int64_t tiles_m = ceil_div(plan.rows, c.bm), tiles_n = ceil_div(plan.columns, c.bn), tiles = tiles_m * tiles_n * plan.phases;
    for (int64_t splits = 1; splits <= kMostSplits && (splits == 1 || steps / splits >= kLeastSteps); splits++) {
      const int64_t part = ceil_div(steps, splits);
      if (ceil_div(steps, part) != splits) continue;  // the last parts would be empty
      const bool fused = p.epilogue.groups > 0 && splits == 1 && plan.copy == 16 && !f32 && leaves_statistics(p, c.tile);
      const auto another_pass = [&](double bytes) { return kAnotherPass + bytes / (caps.multiprocessors * kBytesPerClock); };
      double clocks = cost(c, tiles * splits, part, caps);
      if (splits > 1) clocks += another_pass(double(splits) * plan.phases * plan.rows * plan.pitch() * 8);
      if (p.epilogue.groups > 0 && !fused) clocks += another_pass(double(p.m) * double(p.n) * 2);
      if (least != 0 && clocks >= least) continue;
      least = clocks;
      plan.tile = c.tile, plan.tiles_m = int(tiles_m), plan.tiles_n = int(tiles_n), plan.splits = int(splits), plan.steps = int(part);
      plan.fused_statistics = fused;
    }
  };
  if (f32) consider(kF32);
  else if (plan.copy != 16) consider(kBf16[2]);
  else if (p.a_layout == Layout::rows && p.b_layout == Layout::rows && p.m <= 16) consider(kFlat);
  else if (p.a_layout == Layout::columns && p.b_layout == Layout::rows) consider(kBf16[2]);
  else
    for (const Candidate& c : kBf16) consider(c);
  if (int64_t(plan.tiles_m) * plan.tiles_n * plan.phases * plan.splits > kMost) throw Error("ERR_PROGRAM", "a matrix product of 2^31 tiles");
  return plan;
}

}  // namespace cuda
}  // namespace attune
