// What a warp does together: the lanes of a mask wait for one another, and the last to come does the work of all, through pointers into the others' stacks.
#include <algorithm>
#include <cstring>

#include "block.h"

namespace attune {
namespace simt {

void collective(uint32_t mask, uint32_t line, void* arg, LeaderFn fn, const char* file) {
  Block& block = *running;
  Lane& self = block.self();
  Warp& warp = block.warp();
  const uint32_t bit = 1u << self.lane;
  self.at = {file, int(line)};
  if (!(mask & bit)) fail("collective", "lane %u is not in the mask %08x that it passes", unsigned(self.lane), mask);
  mask &= warp.exists;
  if (mask & ~warp.alive) fail("collective", "mask %08x names lanes %08x, which have exited", mask, mask & ~warp.alive);
  if (const uint32_t others = warp.arrived & mask) {
    const Lane& other = block.lanes[self.warp * 32u + unsigned(__builtin_ctz(others))];
    if (other.mask != mask || other.leader != fn || other.at != self.at)
      fail("collective", "lanes diverge: lane %u with mask %08x, while lane %u waits at %s with mask %08x", unsigned(self.lane), mask, unsigned(other.lane),
           to_string(other.at).c_str(), other.mask);
  }
  warp.args[self.lane] = arg, warp.arrived |= bit;
  if ((warp.arrived & mask) == mask) {
    warp.arrived &= ~mask;
    block.collectives++;
    if (fn) fn(warp.args, mask);
    block.wake_all(mask, self.warp);
    return;
  }
  self.mask = mask, self.leader = fn;
  block.wait(Waiting::collective, self.at);
}

void collective_wg(uint32_t line, void* arg, LeaderFn fn, const char* file) {
  Block& block = *running;
  Lane& self = block.self();
  const unsigned first = self.warp / 4 * 4u;
  self.at = {file, int(line)};
  if ((first + 4) * 32 > block.threads) fail("warpgroup", "thread %u belongs to no whole warpgroup", unsigned(self.lin));
  Warpgroup& group = block.warpgroups[first / 4];
  if (group.arrived && (group.at != self.at || group.leader != fn)) fail("warpgroup", "threads diverge: others wait at %s", to_string(group.at).c_str());
  group.at = self.at, group.leader = fn;
  group.args[self.lin % 128] = arg;
  if (++group.arrived == 128) {
    group.arrived = 0;
    block.collectives++;
    fn(group.args, 0xffffffffu);
    for (unsigned w = first; w < first + 4; w++) block.wake_all(0xffffffffu, w);
  } else {
    block.wait(Waiting::warpgroup, self.at);
  }
}

void sync_warp(uint32_t mask, const char* file, int line) {
  Block& block = *running;
  const void* token = &block.warp();
  released(token);
  collective(
      mask, uint32_t(line), nullptr,
      [](void**, uint32_t lanes) {
        Block& block = *running;
        if (!block.clocks.on() && lanes == block.warp().exists) return void(block.warp().syncs++);
        block.begin_clocks();
        const Quiet quiet;
        block.clocks.meet(cur->warp, lanes);
      },
      file);
  acquired(token);
}

// ---- numbers between lanes

namespace {

struct ShuffleArg {
  uint64_t value, result;
  int operand, width;
  Shuffle kind;
};

/// The lane that `lane` reads; itself where CUDA says so.
int source(const ShuffleArg& a, int lane) {
  const int first = lane & ~(a.width - 1), within = lane & (a.width - 1);
  switch (a.kind) {
    case Shuffle::Index: return first + (a.operand & (a.width - 1));
    case Shuffle::Up: return within - a.operand < 0 ? lane : lane - a.operand;
    case Shuffle::Down: return within + a.operand >= a.width ? lane : lane + a.operand;
    case Shuffle::Xor: return (lane ^ a.operand) >= first + a.width ? lane : lane ^ a.operand;
  }
  return lane;
}

void run_shuffle(void** args, uint32_t mask) {
  for (uint32_t left = mask; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    ShuffleArg& a = *static_cast<ShuffleArg*>(args[lane]);
    const int from = source(a, lane) & 31;
    if (mask >> from & 1) a.result = static_cast<ShuffleArg*>(args[from])->value;
    else report("shuffle", "lane %d reads lane %d, which is not in the mask %08x", lane, from, mask), a.result = ~uint64_t(0);
  }
}

struct VoteArg {
  uint32_t value, result;
  Reduce kind;
};

uint32_t combine(Reduce kind, uint32_t a, uint32_t b) {
  switch (kind) {
    case Reduce::Add: return a + b;
    case Reduce::MinSigned: return uint32_t(std::min(int32_t(a), int32_t(b)));
    case Reduce::MaxSigned: return uint32_t(std::max(int32_t(a), int32_t(b)));
    case Reduce::MinUnsigned: return std::min(a, b);
    case Reduce::MaxUnsigned: return std::max(a, b);
    case Reduce::And: return a & b;
    case Reduce::Or: return a | b;
    case Reduce::Xor: return a ^ b;
  }
  return a;
}

void run_reduce(void** args, uint32_t mask) {
  const auto at = [&](uint32_t lanes) -> VoteArg& { return *static_cast<VoteArg*>(args[__builtin_ctz(lanes)]); };
  uint32_t all = at(mask).value;
  for (uint32_t left = mask & (mask - 1); left; left &= left - 1) all = combine(at(left).kind, all, at(left).value);
  for (uint32_t left = mask; left; left &= left - 1) at(left).result = all;
}

}  // namespace

uint64_t shuffle(uint32_t mask, Shuffle kind, uint64_t value, int operand, int width, const char* file, int line) {
  running->self().at = {file, line};
  if (width < 1 || width > 32 || (width & (width - 1))) fail("shuffle", "width %d", width);
  ShuffleArg a{value, 0, operand, width, kind};
  collective(mask, uint32_t(line), &a, &run_shuffle, file);
  return a.result;
}

uint32_t reduce(uint32_t mask, Reduce kind, uint32_t value, const char* file, int line) {
  VoteArg a{value, 0, kind};
  collective(mask, uint32_t(line), &a, &run_reduce, file);
  return a.result;
}

uint32_t ballot(uint32_t mask, bool predicate, const char* file, int line) { return reduce(mask, Reduce::Or, uint32_t(predicate) << cur->lane, file, line); }

// ---- ldmatrix

namespace {

struct MatrixArg {
  const unsigned char* row;
  uint32_t* registers;
  int matrices;
  bool transposed;
};

void run_load_matrices(void** args, uint32_t mask) {
  Block& block = *running;
  const auto at = [&](int lane) -> MatrixArg& { return *static_cast<MatrixArg*>(args[lane]); };
  if (mask != 0xffffffffu) fail("ldmatrix", "needs all lanes, has %08x", mask);
  for (int m = 0; m < at(0).matrices; m++) {
    const unsigned char* rows[8];
    unsigned banks = 0;
    for (int r = 0; r < 8; r++) {
      rows[r] = at(m * 8 + r).row;
      const unsigned bank = 1u << (reinterpret_cast<uintptr_t>(rows[r]) >> 4 & 7);  // four banks wide
      block.matrix_conflicts += (banks & bank) != 0;
      banks |= bank;
    }
    block.matrices++;
    for (int lane = 0; lane < 32; lane++) {
      uint32_t& r = at(lane).registers[m];
      if (at(0).transposed) {
        const int column = lane / 4 * 2, row = lane % 4 * 2;
        uint16_t low, high;
        std::memcpy(&low, rows[row] + column, 2), std::memcpy(&high, rows[row + 1] + column, 2);
        r = low | uint32_t(high) << 16;
      } else {
        std::memcpy(&r, rows[lane / 4] + lane % 4 * 4, 4);
      }
    }
  }
}

}  // namespace

void load_matrices(uint32_t* registers, const void* row, int matrices, bool transposed, const char* file, int line) {
  Block& block = *running;
  if (cur->lane < matrices * 8) {
    if (checked) {
      if (opt.profile) block.profile.matrices({file, line}, row, matrices);
      check_shared_memory(block, row, 16, access_of(block, false, false, {file, line}));
    } else {
      const size_t offset = size_t(static_cast<const unsigned char*>(row) - block.view.shared);
      if (offset + 16 > block.view.shared_bytes)
        block.self().at = {file, line}, fail("ldmatrix", "row at offset %lld of shared memory", static_cast<long long>(offset));
    }
  }
  if (cur->lane < matrices * 8) was_read(row, 16);
  MatrixArg a{static_cast<const unsigned char*>(row), registers, matrices, transposed};
  collective(0xffffffffu, uint32_t(line), &a, &run_load_matrices, file);
}

// ---- mma.sync

namespace {

float low_bf16(uint32_t pair) { return __builtin_bit_cast(float, pair << 16); }
float high_bf16(uint32_t pair) { return __builtin_bit_cast(float, pair & 0xffff0000u); }

/// c [rows, columns] += a [rows, depth] b [depth, columns]; k in order. A product of two bf16 is exact in f32, so that a fused multiply-add gives the same
/// bits.
inline __attribute__((always_inline)) void multiply_panel(const float* a, const float* b, float* c, int rows, int columns, int depth) {
  typedef float Eight __attribute__((vector_size(32)));
  for (int i = 0; i < rows; i += 4)
    for (int j = 0; j < columns; j += 8) {
      Eight sum[4];
      for (int r = 0; r < 4; r++) std::memcpy(&sum[r], c + (i + r) * columns + j, sizeof(Eight));
      for (int k = 0; k < depth; k++) {
        Eight v;
        std::memcpy(&v, b + k * columns + j, sizeof v);
        for (int r = 0; r < 4; r++) sum[r] += a[(i + r) * depth + k] * v;
      }
      for (int r = 0; r < 4; r++) std::memcpy(c + (i + r) * columns + j, &sum[r], sizeof(Eight));
    }
}
void multiply_generic(const float* a, const float* b, float* c, int rows, int columns, int depth) { multiply_panel(a, b, c, rows, columns, depth); }
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void multiply_avx2(const float* a, const float* b, float* c, int rows, int columns, int depth) {
  multiply_panel(a, b, c, rows, columns, depth);
}
const auto multiply_best = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &multiply_avx2 : &multiply_generic;
#else
constexpr auto multiply_best = &multiply_generic;
#endif

/// Fragments as the PTX manual lays them out: lane 4 g + t holds, of 8 x 8 quarters of A, row g and columns 2t, 2t + 1; of B, rows 2t, 2t + 1 and column g;
/// of the result, row g and columns 2t, 2t + 1.
void run_multiply(void** args, uint32_t mask) {
  float *a = running->tile.a, *b = running->tile.b, *c = running->tile.c;
  const auto at = [&](int lane) -> const MmaTile& { return *static_cast<const MmaTile*>(args[lane]); };
  if (mask != 0xffffffffu) fail("mma", "needs all lanes, has %08x", mask);
  const int tiles_m = at(0).rows, tiles_n = at(0).columns, depth = at(0).depth, rows = tiles_m * 16, columns = tiles_n * 8, quarters = depth / 8;
  if (rows > TileMemory::kRows || columns > TileMemory::kColumns) fail("mma", "a warp tile of %d x %d", rows, columns);
  for (int lane = 0; lane < 32; lane++) {
    const MmaTile& own = at(lane);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int m = 0; m < tiles_m; m++)
      for (int q = 0; q < quarters * 2; q++) {
        const uint32_t pair = own.a[m * quarters * 2 + q];
        float* to = a + (m * 16 + q % 2 * 8 + g) * depth + q / 2 * 8 + t;
        to[0] = low_bf16(pair), to[1] = high_bf16(pair);
      }
    for (int n = 0; n < tiles_n; n++)
      for (int q = 0; q < quarters; q++) {
        const uint32_t pair = own.b[n * quarters + q];
        float* to = b + (q * 8 + t) * columns + n * 8 + g;
        to[0] = low_bf16(pair), to[columns] = high_bf16(pair);
      }
  }
  const auto each = [&](auto&& move) {
    for (int lane = 0; lane < 32; lane++) {
      const MmaTile& own = at(lane);
      const int g = lane / 4, t = lane % 4 * 2;
      for (int m = 0; m < tiles_m; m++)
        for (int n = 0; n < tiles_n; n++) {
          float* mine = own.accumulators + m * own.step_m + n * own.step_n;
          float* tile = c + (m * 16 + g) * columns + n * 8 + t;
          move(mine, tile), move(mine + 2, tile + 8 * columns);
        }
    }
  };
  each([](const float* mine, float* tile) { tile[0] = mine[0], tile[1] = mine[1]; });
  multiply_best(a, b, c, rows, columns, depth);
  each([](float* mine, const float* tile) { mine[0] = tile[0], mine[1] = tile[1]; });
}

}  // namespace

void multiply(const MmaTile& tile, const char* file, int line) {
  MmaTile own = tile;
  collective(0xffffffffu, uint32_t(line), &own, &run_multiply, file);
}

}  // namespace simt
}  // namespace attune
