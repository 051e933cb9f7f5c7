// Vector clocks: who has heard of what, for blocks whose threads meet otherwise than by __syncthreads and whole-warp __syncwarp (mbarriers, named barriers,
// __syncwarp of some lanes). They are off until the first such meeting; until then an epoch and a warp's count of syncs say the same for less (Block::before).
//
// Time of a thread counts its releases within an epoch; a row says up to which time (exclusive) a thread has heard of every other. Behind the threads' columns
// stand those of asynchronous actors: bulk copies, by the mbarrier they complete on, in phases of it; and the operand reads of wgmma, by warp, in groups. Those
// two run on across epochs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace attune {
namespace simt {

constexpr unsigned kMaxMbarriers = 64, kMaxWarps = 32;

class Clocks {
 public:
  /// What has been told to something that synchronises.
  struct Told {
    std::vector<uint32_t> row;
    uint32_t epoch = 0;
  };

  bool on() const { return on_; }
  /// A new block.
  void reset() { on_ = false; }
  void begin(unsigned threads, uint32_t epoch);
  /// Before the first release: same-warp accesses that a __syncwarp has ordered already.
  void set_syncs(unsigned thread, uint32_t syncs);

  uint32_t time(unsigned thread) const { return time_[thread]; }
  uint32_t knows(unsigned thread, unsigned column) const { return rows_[size_t(thread) * width_ + column]; }
  unsigned copies_of(unsigned mbarrier) const { return threads_ + mbarrier; }
  unsigned operands_of(unsigned warp) const { return threads_ + kMaxMbarriers + warp; }
  bool is_thread(unsigned column) const { return column < threads_; }

  void release(unsigned thread, Told& to);
  void acquire(unsigned thread, const Told& from);
  /// What `from` has been told is told to `to`.
  void pass(const Told& from, Told& to) const;
  void learn(unsigned thread, unsigned column, uint32_t time);
  /// Lanes of a warp release to and acquire from one another.
  void meet(unsigned warp, uint32_t lanes);
  /// All threads have met.
  void next_epoch(uint32_t epoch);

 private:
  uint32_t* row(unsigned thread) { return rows_.data() + size_t(thread) * width_; }
  void refresh(Told& told) const;
  bool on_ = false;
  unsigned threads_ = 0, width_ = 0;  // threads_: a multiple of 32; width_: of 8
  uint32_t epoch_ = 0;
  std::vector<uint32_t> rows_, time_;
};

}  // namespace simt
}  // namespace attune
