// Plans products for sm_90a: which boxes and taps a product reads, which tile it is cut into, whether k is split.
#include <algorithm>

#include "hopper_gemm.h"

namespace attune {
namespace cuda {

namespace {

/// Pixels in boxes of `pixels` = 2^(width + height + images), the shape that leaves the fewest outside of the map; wide boxes first.
void cut_pixels(HopperProblem& p, int pixels, int images, int height, int width) {
  const int total = pixels == 128 ? 7 : 6;
  int64_t fewest = -1;
  for (int w = total; w >= 0; w--)
    for (int h = total - w; h >= 0; h--) {
      const int b = total - w - h;
      const int64_t x = ceil_div(width, 1 << w), y = ceil_div(height, 1 << h), boxes = x * y * ceil_div(images, 1 << b);
      if (fewest >= 0 && boxes >= fewest) continue;
      fewest = boxes, p.log_width = w, p.log_height = h, p.log_images = b, p.boxes_x = int(x), p.boxes_y = int(y), p.boxes = int(boxes);
    }
}

/// What a tap sees along one axis, from the pixels of one phase: every second pixel of the map or all of them, `shift` pixels on. exists: there are any.
struct Sight {
  bool exists = true;
  int parity = 0, shift = 0;
};
/// size, before: of the map (in memory), and its padding in front.
Sight sight_of(const Window& w, int phase, int tap, int size, int before) {
  const auto halve = [](int v) { return v >= 0 ? v / 2 : (v - 1) / 2; };
  Sight s;
  if (w.gradient) {  // pixel (2 i + phase + before - tap) / stride of dy, where that divides
    const int at = phase + before - tap;
    s.exists = w.stride == 1 || at % 2 == 0, s.shift = w.stride == 1 ? at : halve(at);
  } else if (w.stride == 2) {  // pixel 2 i + tap - before
    s.parity = (tap - before) & 1, s.exists = s.parity < size, s.shift = halve(tap - before);
  } else s.shift = w.upsample == 2 ? halve(phase + tap - before) : tap - before;  // pixel (2 i + phase + tap - before) / 2, rounded down
  return s;
}

/// Strides and enlargements that are cut into phases and parities here.
bool cuttable(const Window& w) {
  const bool plain = w.stride == 1 && w.upsample == 1;
  return plain || (!w.channels2 && ((w.stride == 2 && w.upsample == 1) || (w.stride == 1 && w.upsample == 2 && !w.gradient)));
}

HopperGroup* add_group(HopperProblem& p, int column, int columns) {
  if (p.groups == kHopperGroups) return nullptr;
  HopperGroup* const g = p.group + p.groups;
  *g = {p.groups ? g[-1].segment + g[-1].segments : 0, 0, 0, column, columns, 0, 0};
  p.groups++;
  return g;
}
/// To the last group; false if the table is full.
bool add_segment(HopperProblem& p, const HopperSegment& s, int blocks) {
  HopperGroup& g = p.group[p.groups - 1];
  if (g.segment + g.segments == kHopperSegments) return false;
  p.segment[g.segment + g.segments++] = s;
  g.blocks += blocks;
  return true;
}

/// Segments and groups of a convolution, forward or towards its input: a group for every phase of the output's pixels.
bool plan_window(HopperProblem& p, const GemmProblem& q) {
  const Window& w = q.window;
  if (!cuttable(w)) return false;
  p.step = w.gradient ? w.stride : w.upsample;
  for (int phase = 0; phase < p.step * p.step; phase++) {
    if (!add_group(p, 0, int(q.n))) return false;
    for (int tap = 0; tap < w.taps(); tap++) {
      const Sight y = sight_of(w, phase / p.step, tap / w.kw, w.height, w.top), x = sight_of(w, phase % p.step, tap % w.kw, w.width, w.left);
      if (!y.exists || !x.exists) continue;
      for (int part = 0; part < (w.channels2 ? 2 : 1); part++) {
        HopperSegment s{};
        s.a = int16_t(part ? 1 : y.parity * 2 + x.parity), s.dx = int16_t(x.shift), s.dy = int16_t(y.shift), s.tap = int16_t(tap);
        s.channel = part ? w.channels : 0, s.blocks = int16_t(ceil_div(part ? w.channels2 : w.channels, 64));
        if (!add_segment(p, s, s.blocks)) return false;
      }
    }
  }
  return true;
}

/// Groups of a weight's gradient: the columns under one tap, of one of the two tensors. Its segments differ in the phase of dy's pixels (upsample).
bool plan_patches(HopperProblem& p, const GemmProblem& q) {
  const Window& w = q.window;
  if (!cuttable(w)) return false;
  for (int tap = 0; tap < w.taps(); tap++)
    for (int part = 0; part < (w.channels2 ? 2 : 1); part++) {
      if (!add_group(p, tap * w.all_channels() + (part ? w.channels : 0), part ? w.channels2 : w.channels)) return false;
      for (int phase = 0; phase < w.upsample * w.upsample; phase++) {
        const int phase_y = phase / w.upsample, phase_x = phase % w.upsample;
        const Sight y = sight_of(w, phase_y, tap / w.kw, w.height, w.top), x = sight_of(w, phase_x, tap % w.kw, w.width, w.left);
        if (!y.exists || !x.exists || phase_y >= w.grid_height || phase_x >= w.grid_width) continue;
        HopperSegment s{};
        s.a = int16_t(phase), s.b = int16_t(part ? 1 : y.parity * 2 + x.parity), s.dx = int16_t(x.shift), s.dy = int16_t(y.shift);
        if (!add_segment(p, s, p.boxes)) return false;
      }
    }
  return true;
}

/// Cuts the output into tiles of `units` * 128 rows and `columns` columns; false if there are too many.
bool cut_tiles(HopperPlan& plan, int units, int columns) {
  HopperProblem& p = plan.problem;
  plan.units = units, plan.columns = columns;
  const int width = p.epilogue.activation == Activation::geglu ? columns / 2 : columns;
  p.down = int(plan.mode == HopperMode::weight ? ceil_div(p.rows, 128 * units) : ceil_div(p.boxes, units));
  int64_t tiles = 0;
  for (int i = 0; i < p.groups; i++) {
    HopperGroup& g = p.group[i];
    g.tile = int(tiles), g.across = int(ceil_div(g.columns, width));
    tiles += int64_t(g.across) * p.down;
    if (tiles >= 1 << 26) return false;  // times 16 splits, and 8 * down, fit an int
  }
  p.tiles = int(tiles);
  return true;
}

/// Clocks that the plan takes, near enough to compare plans: tiles go over the multiprocessors in rounds; a block of k costs its multiplies (64 rows, 8 columns
/// and 16 of k take 4 clocks) or its bytes out of the L2 cache, whichever is more; finishing a tile and adding up partial sums are memory traffic.
int64_t clocks(const HopperPlan& plan, int multiprocessors) {
  const HopperProblem& p = plan.problem;
  const int64_t rows = 128 * plan.units, columns = plan.columns;
  int64_t blocks = 0;
  for (int i = 0; i < p.groups; i++) blocks = std::max<int64_t>(blocks, ceil_div(p.group[i].blocks, p.splits));
  const int64_t block = std::max(rows * columns / 32, (rows + columns) * 128 / 40), tile = blocks * block + rows * columns / 16 + 1000;
  const int64_t partial = p.splits == 1 ? 0 : 3000 + int64_t(p.rows) * p.columns * 8 * p.splits / 1500;
  return ceil_div(int64_t(p.tiles) * p.splits, multiprocessors) * tile + partial;
}

/// 320, 640 and 1280 channels are multiples of 160. Rows of a weight's gradient are channels too: 128 divides 640, and leaves less of 320 idle than 256 does.
constexpr struct {
  int units, columns;
  bool weight;  // for weights' gradients only
} kTiles[] = {{1, 128, false}, {1, 160, false}, {2, 128, false}, {2, 160, false}, {1, 320, true}};

/// The cheapest of the tiles and of up to 16 splits of k; false if none will do.
bool choose_tile(HopperPlan& plan, int multiprocessors) {
  HopperPlan best{};
  int64_t least = -1;
  const Epilogue& e = plan.problem.epilogue;
  for (const auto& tile : kTiles) {
    if (tile.weight && plan.mode != HopperMode::weight) continue;
    if (e.groups && tile.columns % (plan.problem.columns / e.groups)) continue;  // a group lies in one tile
    if (!cut_tiles(plan, tile.units, tile.columns)) continue;
    int most = 16;  // every split has at least 4 blocks of k
    for (int i = 0; i < plan.problem.groups; i++) most = std::min(most, std::max(1, plan.problem.group[i].blocks / 4));
    if (e.activation == Activation::geglu || e.groups) most = 1;  // gates and statistics want finished sums
    for (plan.problem.splits = 1; plan.problem.splits <= most; plan.problem.splits++) {
      const int64_t cost = clocks(plan, multiprocessors);
      if (least < 0 || cost < least) least = cost, best = plan;
    }
  }
  plan = best;
  return least >= 0;
}

/// True if bf16 rows of this many elements begin at multiples of 16 bytes.
bool aligned(int64_t elements) { return elements % 8 == 0; }

/// Fills in everything but tiles and addresses; false for what the copy engine cannot read.
bool plan_problem(HopperPlan& plan, const GemmProblem& q) {
  HopperProblem& p = plan.problem;
  const Window& w = q.window;
  const Epilogue& e = q.epilogue;
  const bool image = q.a_layout == Layout::image, patches = q.b_layout == Layout::patches, geglu = e.activation == Activation::geglu;
  if (q.dtype != DType::bf16 || q.batch != 1 || std::min({q.m, q.n, q.k}) < 1 || std::max({q.m, q.n, q.k}) >= 1 << 30) return false;
  if (image || patches ? !aligned(w.channels) || !aligned(w.channels2) : false) return false;
  if ((!image && !aligned(q.lda)) || (!patches && !aligned(q.ldb))) return false;
  p.rows = int(q.m), p.columns = int(q.n), p.splits = 1, p.step = 1, p.images = 1, p.height = 1, p.width = int(q.m), p.epilogue = e;
  if (image || patches) { p.height = w.grid_height, p.width = w.grid_width, p.images = int((image ? q.m : q.k) / (int64_t(w.grid_height) * w.grid_width)); }
  if (q.a_layout == Layout::columns) {
    if (q.b_layout == Layout::rows || geglu || e.groups) return false;
    plan.mode = HopperMode::weight;
    if (patches) {
      cut_pixels(p, 64, p.images, int(ceil_div(p.height, w.upsample)), int(ceil_div(p.width, w.upsample)));
      return plan_patches(p, q);
    }
    cut_pixels(p, 64, 1, 1, int(q.k));
    return add_group(p, 0, p.columns) && add_segment(p, {}, p.boxes);
  }
  plan.mode = q.b_layout == Layout::rows ? HopperMode::forward : HopperMode::input;
  if (patches || (plan.mode == HopperMode::input && (geglu || e.groups)) || (image && geglu) || (image && plan.mode == HopperMode::input && !aligned(q.n)))
    return false;
  if (image) {
    if (!plan_window(p, q)) return false;
  } else {
    HopperSegment s{};
    s.blocks = int16_t(ceil_div(q.k, 64));
    if (q.k > 64 * 32767 || !add_group(p, 0, p.columns) || !add_segment(p, s, s.blocks)) return false;
  }
  cut_pixels(p, 128, p.images, int(ceil_div(p.height, p.step)), int(ceil_div(p.width, p.step)));
  if (!e.groups) return true;
  // A box of pixels must be 128 neighbours of one image.
  const bool slabs = p.step == 1 && p.log_images == 0 && p.width % (1 << p.log_width) == 0 && (1 << p.log_width == p.width || p.log_height == 0);
  return slabs && p.rows % 128 == 0 && p.columns % e.groups == 0;
}

}  // namespace

bool hopper_plan(HopperPlan& plan, const GemmProblem& q, const DeviceCaps& caps) {
  plan = HopperPlan{};
  if (!plan_problem(plan, q) || !choose_tile(plan, caps.multiprocessors)) return false;
  HopperProblem& p = plan.problem;
  p.vector = q.n % 4 == 0 && q.epilogue.ld % 4 == 0;
  for (int i = 0; i < p.groups; i++) p.vector = p.vector && p.group[i].column % 4 == 0 && p.group[i].columns % 4 == 0;
  return true;
}

}  // namespace cuda
}  // namespace attune
