#include "mbarrier.h"

#include <cstring>

#include "block.h"

namespace attune {
namespace simt {

namespace {

/// The index of the mbarrier at this address; gives the block up if there is none.
int index_of(Block& block, const uint64_t* p) {
  const size_t offset = size_t(reinterpret_cast<const unsigned char*>(p) - block.view.shared);
  std::vector<Mbarrier>& all = block.mbarriers.barriers;
  for (size_t i = 0; i < all.size(); i++)
    if (all[i].offset == offset) return int(i);
  fail("mbarrier", "shared memory at offset %lld holds no mbarrier", static_cast<long long>(offset));
}

/// The same, and the running thread must have heard that it was made.
Mbarrier& use(Block& block, const uint64_t* p) {
  Mbarrier& m = block.mbarriers.barriers[size_t(index_of(block, p))];
  if (m.made_epoch == block.epoch && m.maker != cur->lin && block.clocks.knows(cur->lin, m.maker) < m.made.row[m.maker])
    report("race", "an mbarrier is used that thread %u made, with nothing that orders the two", m.maker);
  return m;
}

void end_phase(Block& block, Mbarrier& m) {
  if (m.pending != 0 || m.bytes != 0) return;
  m.phase++, m.pending = m.expected;
  block.clocks.pass(m.arriving, m.completed);
  const int index = int(&m - block.mbarriers.barriers.data());
  for (unsigned t = 0; t < block.threads; t++)
    if (block.lanes[t].waiting == Waiting::mbarrier && block.lanes[t].barrier == index) block.wake(t);
}

}  // namespace

void NamedBarriers::begin_block() {
  for (One& b : barriers) b.arrived = 0, b.arriving.row.clear(), b.completed.row.clear();
}

namespace {

NamedBarriers::One& arrive_at(int id, int threads, Place place) {
  Block& block = *running;
  Lane& self = block.self();
  self.at = place;
  if (id < 1 || id > 15 || threads <= 0 || threads % 32 || unsigned(threads) > (block.threads + 31) / 32 * 32)
    fail("barrier", "named barrier %d for %d threads", id, threads);
  NamedBarriers::One& b = block.named.barriers[id];
  if (b.arrived && b.expected != unsigned(threads))
    fail("barrier", "named barrier %d for %d threads, while others at %s expect %u", id, threads, to_string(b.at).c_str(), b.expected);
  b.expected = unsigned(threads), b.at = place;
  block.begin_clocks();
  block.clocks.release(cur->lin, b.arriving);
  released(&b);
  if (++b.arrived < b.expected) return b;
  b.arrived = 0;
  block.clocks.pass(b.arriving, b.completed);
  for (unsigned t = 0; t < block.threads; t++)
    if (block.lanes[t].waiting == Waiting::named && block.lanes[t].barrier == id) block.wake(t);
  return b;
}

}  // namespace

void arrive_named(int id, int threads, const char* file, int line) { arrive_at(id, threads, {file, line}); }

void sync_named(int id, int threads, const char* file, int line) {
  Block& block = *running;
  NamedBarriers::One& b = arrive_at(id, threads, {file, line});
  if (b.arrived) {
    block.self().barrier = id;
    block.wait(Waiting::named, {file, line});
  }
  acquired(&b);
  block.clocks.acquire(cur->lin, b.completed);
}

void mbar_init(uint64_t* p, uint32_t arrivals, const char* file, int line) {
  Block& block = *running;
  const Quiet quiet;
  block.self().at = {file, line};
  const int64_t offset = reinterpret_cast<unsigned char*>(p) - block.view.shared;
  if (offset < 0 || offset % 8 || size_t(offset) + 8 > block.view.shared_bytes)
    fail("mbarrier", "offset %lld of shared memory cannot hold one", static_cast<long long>(offset));
  if (arrivals == 0 || arrivals >= 1u << 20) fail("mbarrier", "%u arrivals", arrivals);
  for (const Mbarrier& m : block.mbarriers.barriers)
    if (m.offset == offset) fail("mbarrier", "made again at offset %lld", static_cast<long long>(offset));
  if (block.mbarriers.barriers.size() == kMaxMbarriers) fail("mbarrier", "a block has more than %u", kMaxMbarriers);
  block.begin_clocks();
  if (checked) {
    Access access = access_of(block, true, false, {file, line});
    access.write.state = Write::mbarrier;
    check_shared_memory(block, p, 8, access);
  }
  Mbarrier m;
  m.offset = uint32_t(offset), m.expected = m.pending = arrivals, m.made_epoch = block.epoch, m.maker = cur->lin;
  block.clocks.release(cur->lin, m.made);
  block.mbarriers.barriers.push_back(std::move(m));
}

void mbar_arrive(uint64_t* p, uint32_t bytes, const char* file, int line) {
  Block& block = *running;
  const Quiet quiet;
  block.self().at = {file, line};
  Mbarrier& m = use(block, p);
  if (m.pending == 0) fail("mbarrier", "more arrivals in phase %u than the %u it expects: its bytes have not landed yet", m.phase, m.expected);
  block.clocks.release(cur->lin, m.arriving);
  released(p);
  m.bytes += bytes, m.pending--;
  end_phase(block, m);
}

void mbar_wait(uint64_t* p, uint32_t parity, int line, const char* file) {
  Block& block = *running;
  Lane& self = block.self();
  self.at = {file, line};
  const int index = index_of(block, p);
  use(block, p);
  while ((block.mbarriers.barriers[size_t(index)].phase & 1) == (parity & 1)) {
    self.barrier = index;
    block.wait(Waiting::mbarrier, {file, line});
  }
  const Mbarrier& m = block.mbarriers.barriers[size_t(index)];
  acquired(p);
  block.clocks.acquire(cur->lin, m.completed);
  block.clocks.learn(cur->lin, block.clocks.copies_of(unsigned(index)), m.phase);
}

void bulk_issue(void (*op)(const BulkArg&), const BulkArg& arg, uint64_t* barrier, uint32_t bytes, void* to, const char* file, int line) {
  Block& block = *running;
  block.self().at = {file, line};
  const int index = index_of(block, barrier);
  const Mbarrier& m = use(block, barrier);
  if (to && checked) {
    Access access = access_of(block, true, false, {file, line});
    access.write.state = Write::bulk, access.write.thread = uint16_t(index), access.write.clock = m.phase + 1;
    for (uint32_t at = 0; at < bytes; at += 16) check_shared_memory(block, static_cast<unsigned char*>(to) + at, 16, access);
  }
  if (to) was_written(to, bytes);
  released(barrier);
  const Quiet quiet;
  block.mbarriers.copies.push_back({op, arg, index, bytes, to});
  if (opt.async_copy == Async::Early) block.mbarriers.land(block, block.mbarriers.copies.size() - 1);
  else if (to) std::memset(to, 0xFF, bytes);  // NaN until it lands
}

void Mbarriers::land(Block& block, size_t index) {
  const Quiet quiet;
  const BulkCopy copy = copies[index];
  copies.erase(copies.begin() + long(index));
  copy.op(copy.arg);
  Mbarrier& m = barriers[size_t(copy.barrier)];
  m.bytes -= copy.bytes;
  end_phase(block, m);
}

void async_read(const void* p, size_t bytes, const char* file, int line) {
  Block& block = *running;
  if (cur->lane != 0 || !checked) return;
  block.begin_clocks();
  block.self().at = {file, line};
  Access access = access_of(block, false, false, {file, line});
  access.read.lanes = 1, access.read.group = uint16_t(kMaxWarps + cur->warp), access.read.clock = block.self().commits + 1;
  const unsigned char* at = static_cast<const unsigned char*>(p);
  for (size_t i = 0; i < bytes; i += 16) check_shared_memory(block, at + i, bytes - i < 16 ? bytes - i : 16, access);
}

void async_read_commit() { running->self().commits++; }

void async_read_wait(int left) {
  Block& block = *running;
  if (!block.clocks.on()) return;
  const Lane& self = block.self();
  if (int64_t(self.commits) > left) block.clocks.learn(cur->lin, block.clocks.operands_of(cur->warp), self.commits - uint32_t(left));
}

}  // namespace simt
}  // namespace attune
