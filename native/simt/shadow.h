// Shadow memory: for every piece of memory who wrote it last and who has read it since, so that two accesses without anything that orders them are seen
// whenever both happen, whatever the schedule. Shared memory has one; allocations of global memory have theirs under checks=full (global_memory.h).
//
// An access is stamped with its block's epoch (__syncthreads begins a new one), its thread, and the thread's time within the epoch. Reads are kept as lanes of
// a warp. Two warps' worth are enough while only barriers and __syncwarp order threads: a later write of the same epoch conflicts with one of two different
// warps if it conflicts with any. With Clocks on, a cell keeps every read that nothing later supersedes.
//
// Not seen: atomics of several threads against a plain access that an mbarrier orders or fails to order; a fence between proxies that is missing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "report.h"

namespace attune {
namespace simt {

struct Block;

struct Read {
  uint32_t epoch = 0, clock = 0, lanes = 0;
  uint16_t group = 0;  // a warp; kMaxWarps + a warp: its wgmma operands, clock in groups
};

struct Write {
  enum State : uint8_t {
    plain = 0,
    atomic = 1,
    copying = 2,     // by a cp.async that its thread has not waited for
    bulk = 4,        // by a bulk copy: thread counts mbarriers, clock phases
    mbarrier = 8,    // holds an mbarrier
    more_reads = 16  // of the cell: SharedShadow has the rest of its reads
  };
  uint32_t epoch = 0, clock = 0;
  uint16_t thread = 0;
  uint8_t state = plain;
};
constexpr uint16_t kManyThreads = 0xffff;  // atomics, by several

struct Cell {
  Write write;
  Read read[2];
  uint64_t write_place = 0, read_place = 0;
};
static_assert(sizeof(Cell) == 64, "one cache line");

/// Cells of a range of memory, as fine as the narrowest access so far: each 16 bytes have 1, 2, 4, 8 or 16 of them.
class Shadow {
 public:
  Shadow() = default;
  ~Shadow();
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;
  void reserve(size_t bytes);
  /// Every cell as new.
  void clear();
  /// Coarse again; only when no cell says anything about memory in use.
  void coarsen();
  /// Calls touch(cell, offset) for each cell of an access of 1, 2, 4, 8 or 16 aligned bytes.
  template <typename F>
  void each(size_t offset, size_t bytes, F&& touch) {
    const size_t granule = offset / 16;
    if ((16u >> splits_[granule]) > bytes) split(granule, bytes);
    const size_t step = 16u >> splits_[granule];
    for (size_t at = offset; at < offset + bytes; at += step) touch(cell(at), at);
  }

 private:
  /// Cells that begin 16 bytes lie close together: most accesses need no other.
  Cell& cell(size_t offset) { return offset % 16 == 0 ? first_[offset / 16] : rest_[offset / 16 * 15 + offset % 16 - 1]; }
  void split(size_t granule, size_t bytes);
  size_t bytes_ = 0, granules_ = 0;
  Cell *first_ = nullptr, *rest_ = nullptr;
  uint8_t* splits_ = nullptr;
};

/// What an access would be stamped with.
struct Access {
  Place place;
  bool writes;
  Write write;  // if it writes
  Read read;    // else
};
/// Of the running thread.
Access access_of(Block& block, bool writes, bool atomic, Place place);

class SharedShadow {
 public:
  void begin_block(size_t shared_bytes) { shadow_.reserve(shared_bytes), more_.clear(); }
  void begin_launch() { shadow_.coarsen(); }
  void clear() { shadow_.clear(), more_.clear(); }
  /// 16 bytes at most, aligned to their number.
  void check(Block& block, size_t offset, size_t bytes, const Access& access);
  /// Without a question: cp.async has landed, an mbarrier was made.
  void stamp(size_t offset, size_t bytes, const Access& access);

 private:
  void touch(Block& block, Cell& cell, size_t offset, const Access& access);
  void add_read(Block& block, Cell& cell, const Read& read);
  Shadow shadow_;
  std::unordered_map<const Cell*, std::vector<Read>> more_;  // reads beyond the two that a cell holds
};

/// Whether an earlier access of this block comes before what the running thread does now.
bool comes_before(const Block& block, const Write& earlier);
bool comes_before(const Block& block, const Read& earlier);
/// "thread 5 at native/cuda/softmax.cu:17"
std::string author(const Write& write, uint64_t place);
std::string author(const Read& read, uint64_t place);

}  // namespace simt
}  // namespace attune
