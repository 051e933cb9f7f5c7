#include "clocks.h"

#include <algorithm>
#include <cstring>

namespace attune {
namespace simt {

namespace {

/// to = max(to, from); a multiple of 8 numbers below 2^31.
void join(uint32_t* to, const uint32_t* from, unsigned count) {
  typedef int32_t Eight __attribute__((vector_size(32)));
  for (unsigned i = 0; i < count; i += 8) {
    Eight a, b;
    std::memcpy(&a, to + i, sizeof a);
    std::memcpy(&b, from + i, sizeof b);
    a = a > b ? a : b;
    std::memcpy(to + i, &a, sizeof a);
  }
}

}  // namespace

void Clocks::begin(unsigned threads, uint32_t epoch) {
  on_ = true, epoch_ = epoch;
  threads_ = (threads + 31) / 32 * 32, width_ = threads_ + kMaxMbarriers + kMaxWarps;
  rows_.assign(size_t(threads_) * width_, 0);
  time_.assign(threads_, 0);
}

void Clocks::set_syncs(unsigned thread, uint32_t syncs) {
  const unsigned first = thread / 32 * 32;
  std::fill(row(thread) + first, row(thread) + first + 32, syncs);
  time_[thread] = syncs;
}

/// Times of threads that were told in an earlier epoch mean nothing now, and need not: everyone has heard.
void Clocks::refresh(Told& told) const {
  told.row.resize(width_);
  if (told.epoch != epoch_) std::fill(told.row.begin(), told.row.begin() + threads_, 0);
  told.epoch = epoch_;
}

void Clocks::release(unsigned thread, Told& to) {
  refresh(to);
  join(to.row.data(), row(thread), width_);
  to.row[thread] = ++time_[thread];
}

void Clocks::acquire(unsigned thread, const Told& from) {
  if (from.row.empty()) return;
  const unsigned skip = from.epoch == epoch_ ? 0 : threads_;
  join(row(thread) + skip, from.row.data() + skip, width_ - skip);
}

void Clocks::pass(const Told& from, Told& to) const {
  refresh(to);
  if (from.row.empty()) return;
  const unsigned skip = from.epoch == epoch_ ? 0 : threads_;
  join(to.row.data() + skip, from.row.data() + skip, width_ - skip);
}

void Clocks::learn(unsigned thread, unsigned column, uint32_t time) { row(thread)[column] = std::max(row(thread)[column], time); }

void Clocks::meet(unsigned warp, uint32_t lanes) {
  Told all;
  for (unsigned lane = 0; lane < 32; lane++)
    if (lanes >> lane & 1) release(warp * 32 + lane, all);
  for (unsigned lane = 0; lane < 32; lane++)
    if (lanes >> lane & 1) acquire(warp * 32 + lane, all);
}

void Clocks::next_epoch(uint32_t epoch) {
  std::vector<uint32_t> asynchronous(width_ - threads_, 0);
  for (unsigned t = 0; t < threads_; t++) join(asynchronous.data(), row(t) + threads_, width_ - threads_);
  for (unsigned t = 0; t < threads_; t++) {
    std::fill(row(t), row(t) + threads_, 0);
    std::copy(asynchronous.begin(), asynchronous.end(), row(t) + threads_);
  }
  std::fill(time_.begin(), time_.end(), 0);
  epoch_ = epoch;
}

}  // namespace simt
}  // namespace attune
