#include "shadow.h"

#include <sys/mman.h>

#include <cstring>

#include "../core/error.h"
#include "block.h"

namespace attune {
namespace simt {

namespace {

/// Zero pages that take no memory until they are touched.
void* pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw Error("ERR_DEVICE", "simt: no memory for shadow memory");
  return p;
}

}  // namespace

Shadow::~Shadow() {
  if (!granules_) return;
  munmap(first_, granules_ * sizeof(Cell)), munmap(rest_, granules_ * 15 * sizeof(Cell)), munmap(splits_, granules_);
}

void Shadow::reserve(size_t bytes) {
  if (bytes <= bytes_) return;
  const Quiet quiet;
  this->~Shadow();
  bytes_ = bytes, granules_ = bytes / 16 + 1;
  first_ = static_cast<Cell*>(pages(granules_ * sizeof(Cell)));
  rest_ = static_cast<Cell*>(pages(granules_ * 15 * sizeof(Cell)));
  splits_ = static_cast<uint8_t*>(pages(granules_));
}

void Shadow::clear() {
  const size_t bytes = bytes_;
  this->~Shadow();
  bytes_ = granules_ = 0;
  if (bytes) reserve(bytes);
}

void Shadow::coarsen() {
  if (granules_) std::memset(splits_, 0, granules_);
}

void Shadow::split(size_t granule, size_t bytes) {
  uint8_t splits = splits_[granule];
  for (; (16u >> splits) > bytes; splits++) {
    const size_t step = 16u >> splits;
    for (size_t at = granule * 16; at < granule * 16 + 16; at += step) cell(at + step / 2) = cell(at);
  }
  splits_[granule] = splits;
}

Access access_of(Block& block, bool writes, bool atomic, Place place) {
  Access a{place, writes, {}, {}};
  const uint32_t now = block.now();
  if (writes) a.write.epoch = block.epoch, a.write.clock = now, a.write.thread = cur->lin, a.write.state = atomic ? Write::atomic : Write::plain;
  else a.read.epoch = block.epoch, a.read.clock = now, a.read.lanes = 1u << cur->lane, a.read.group = cur->warp;
  return a;
}

bool comes_before(const Block& block, const Write& w) {
  if (w.state & Write::bulk) return block.clocks.knows(cur->lin, block.clocks.copies_of(w.thread)) >= w.clock;
  if (w.thread == kManyThreads) return w.epoch != block.epoch;
  return block.before(w.epoch, w.clock, w.thread);
}

bool comes_before(const Block& block, const Read& r) {
  if (r.group >= kMaxWarps) return block.clocks.knows(cur->lin, block.clocks.operands_of(r.group - kMaxWarps)) >= r.clock;
  if (r.epoch != block.epoch) return true;
  uint32_t lanes = r.lanes;
  if (r.group == cur->warp) lanes &= ~(1u << cur->lane);
  if (!lanes) return true;
  if (!block.clocks.on()) return r.group == cur->warp && r.clock < block.warps[cur->warp].syncs;
  for (; lanes; lanes &= lanes - 1)
    if (block.clocks.knows(cur->lin, r.group * 32u + unsigned(__builtin_ctz(lanes))) <= r.clock) return false;
  return true;
}

std::string author(const Write& w, uint64_t place) {
  const std::string at = " at " + to_string(Place::unpacked(place));
  if (w.state & Write::bulk) return "the bulk copy issued" + at;
  if (w.thread == kManyThreads) return "atomics of several threads, one" + at;
  return (w.state & Write::copying ? "a cp.async of thread " : "thread ") + std::to_string(w.thread) + at;
}

std::string author(const Read& r, uint64_t place) {
  const std::string at = " at " + to_string(Place::unpacked(place));
  if (r.group >= kMaxWarps) return "the wgmma of warp " + std::to_string(r.group - kMaxWarps) + at;
  return "thread " + std::to_string(r.group * 32u + unsigned(__builtin_ctz(r.lanes))) + at;
}

void SharedShadow::check(Block& block, size_t offset, size_t bytes, const Access& access) {
  shadow_.each(offset, bytes, [&](Cell& cell, size_t at) { touch(block, cell, at, access); });
}

void SharedShadow::stamp(size_t offset, size_t bytes, const Access& access) {
  shadow_.each(offset, bytes, [&](Cell& cell, size_t) { cell.write = access.write, cell.write_place = access.place.packed(); });
}

void SharedShadow::touch(Block& block, Cell& cell, size_t offset, const Access& access) {
  Write& w = cell.write;
  const bool written = w.epoch >= block.first_epoch;
  const auto tell = [&](const char* kind, const std::string& text, uint64_t other) {
    report_at(kind, access.place, Place::unpacked(other), format("shared memory at offset %zu: %s", offset, access.writes ? "written" : "read") + text);
  };
  if (!written) {
    if (!access.writes || access.write.state & Write::atomic) tell("uninitialised", " before anyone has written it", 0);
  } else if (w.state & Write::copying) {
    tell("copy in flight", ", while " + author(w, cell.write_place) + " may not have landed: no wait for its group", cell.write_place);
  } else if (w.state & Write::mbarrier) {
    tell("mbarrier", " like data, but it holds an mbarrier, made at " + to_string(Place::unpacked(cell.write_place)), cell.write_place);
  } else if (!(w.state & Write::atomic && access.writes && access.write.state & Write::atomic) && !comes_before(block, w)) {
    tell("race", ", and written by " + author(w, cell.write_place) + ", with nothing that orders the two", cell.write_place);
  }
  if (!access.writes) {
    if (const Read& r = access.read; cell.read[0].epoch == r.epoch && cell.read[0].clock == r.clock && cell.read[0].group == r.group)
      cell.read[0].lanes |= r.lanes;
    else add_read(block, cell, r);
    cell.read_place = access.place.packed();
    return;
  }
  const auto conflict = [&](const Read& r) {
    if (r.epoch >= block.first_epoch && !comes_before(block, r))
      tell("race", ", and read by " + author(r, cell.read_place) + ", with nothing that orders the two", cell.read_place);
  };
  conflict(cell.read[0]), conflict(cell.read[1]);
  if (written && w.state & Write::more_reads)
    if (const auto more = more_.find(&cell); more != more_.end()) {
      for (const Read& r : more->second) conflict(r);
      more_.erase(more);
    }
  const bool among_many = w.state & Write::atomic && access.write.state & Write::atomic && w.epoch == block.epoch && !comes_before(block, w);
  w = access.write;
  if (among_many) w.thread = kManyThreads;
  cell.read[0] = cell.read[1] = Read{};
  cell.write_place = access.place.packed();
}

/// Keeps the read unless what is kept already implies it.
void SharedShadow::add_read(Block& block, Cell& cell, const Read& read) {
  for (Read& r : cell.read)
    if (r.epoch == read.epoch && r.clock == read.clock && r.group == read.group) return void(r.lanes |= read.lanes);
  for (Read& r : cell.read)
    if (r.epoch < block.first_epoch || comes_before(block, r)) return void(r = read);
  if (!block.clocks.on()) return;
  const Quiet quiet;
  cell.write.state |= Write::more_reads;
  for (Read& r : more_[&cell]) {
    if (r.epoch == read.epoch && r.clock == read.clock && r.group == read.group) return void(r.lanes |= read.lanes);
    if (comes_before(block, r)) return void(r = read);
  }
  more_[&cell].push_back(read);
}

}  // namespace simt
}  // namespace attune
