// The scheduler: who runs next, __syncthreads, the beginning and the end of a block. A thread that must wait hands over to the next runnable one directly; when
// the last one has ended, control returns to the host's own stack.
#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "../core/error.h"
#include "hopper.h"
#include "settings.h"

namespace attune {
namespace simt {

ATTUNE_SIMT_THREAD Thread* cur = nullptr;
ATTUNE_SIMT_THREAD BlockView* view = nullptr;
ATTUNE_SIMT_THREAD bool checked = false;
ATTUNE_SIMT_THREAD Block* running = nullptr;

namespace {

// Shared memory lies in the middle of an arena of its own, so that an address a little outside of it is known for what it is. It ends where the arena's second
// margin begins only for the largest block; what lies between is out of bounds too.
constexpr size_t kMargin = 64 << 10, kLargest = 256 << 10, kArena = kMargin + kLargest + kMargin;

}  // namespace

Block::Block() {
  void* p = mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw Error("ERR_DEVICE", "simt: no memory for shared memory");
  arena = static_cast<unsigned char*>(p);
}

Block::~Block() {
  for (Lane& lane : lanes) dispose(lane.fiber);
  munmap(arena, kArena);
}

bool Block::in_arena(const void* p) const { return size_t(static_cast<const unsigned char*>(p) - arena) < kArena; }

void Block::begin_launch() {
  const bool restart = epoch > 1u << 31;  // long before epochs wrap round
  if (restart) shadow.clear(), epoch = 1;
  if (opt.checks == Checks::Full) begin_global_launch(this, restart);
  shadow.begin_launch();
  launch_epoch = ++epoch;
}

void Block::begin(const LaunchState& state, uint64_t index) {
  const Request& r = state.request;
  launch = &state;
  random = (opt.seed + index) * 0x9E3779B97F4A7C15ull | 1;
  abandoned = false;
  first_epoch = ++epoch;
  threads = alive = r.threads.x * r.threads.y * r.threads.z;
  exited = 0, ready = 0;
  barrier = BlockBarrier{};
  const Quiet quiet;
  named.begin_block(), mbarriers.begin_block(), global.begin_block(), clocks.reset();
  const size_t shared_bytes = size_t(r.shared_bytes);
  shadow.begin_block(shared_bytes);
#if ATTUNE_SIMT_TSAN
  // New to ThreadSanitizer: an earlier block's accesses to shared memory have nothing to do with this one's.
  if (settings().ordered) acquired(arena + 8), released(arena);  // its threads hear of the host, and through it of the block before
  if (!settings().ordered && mmap(arena, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) abort();
#endif
  unsigned char* shared = arena + kMargin;
#if ATTUNE_SIMT_ASAN
  __asan_unpoison_memory_region(arena, kArena);
  __asan_poison_memory_region(arena, kMargin), __asan_poison_memory_region(shared + shared_bytes, kArena - kMargin - shared_bytes);
#endif
  std::memset(shared, 0xFF, shared_bytes);  // NaN, and absurd as an index
  view = {{unsigned(index % r.grid.x), unsigned(index / r.grid.x % r.grid.y), unsigned(index / r.grid.x / r.grid.y)}, r.threads, r.grid, shared, shared_bytes};

  const unsigned warp_count = (threads + 31) / 32;
  if (lanes.size() < warp_count * 32) lanes.resize(warp_count * 32);
  warps.assign(warp_count, Warp{});
  warpgroups.resize(warp_count / 4);
  for (Warpgroup& g : warpgroups) g.arrived = 0;
  stacks.prepare(int(threads), !settings().ordered);
  adopt(host);
  for (unsigned i = 0; i < threads; i++) {
    Lane& lane = lanes[i];
    lane.index = {i % r.threads.x, i / r.threads.x % r.threads.y, i / r.threads.x / r.threads.y};
    lane.lin = uint16_t(i), lane.lane = uint16_t(i % 32), lane.warp = uint16_t(i / 32);
    lane.at = {}, lane.waiting = Waiting::nothing, lane.done = false, lane.fenced = 0, lane.commits = 0;
    lane.copies.clear();
    stacks.give(lane.fiber, int(i));
    prepare(lane.fiber, &Block::entry);
    Warp& w = warps[i / 32];
    w.exists = w.alive = w.runnable |= 1u << (i % 32);
    ready |= 1u << (i / 32);
  }
}

void Block::run(const LaunchState& state, uint64_t index) {
  begin(state, index);
  running = this, simt::view = &view, checked = opt.checks != Checks::Off;
  cur = nullptr;
  Lane* first = pick();
  cur = first;
  switch_fiber(host, first->fiber);
  cur = nullptr;
  end();
  running = nullptr, simt::view = nullptr, checked = false;
}

void Block::end() {
  if (abandoned) *launch->stop = true, forget_multiplies();
  else if (!mbarriers.copies.empty()) report("bulk copy", "%zu in flight when the block ended", mbarriers.copies.size());
  const Quiet quiet;
  for (unsigned i = 0; i < threads && (abandoned || !settings().ordered); i++) dispose(lanes[i].fiber);
  if (opt.profile) profile.end_block();
#if ATTUNE_SIMT_ASAN
  __asan_unpoison_memory_region(arena, kArena);
#endif
}

void Block::count(Stats& to) {
  to.switches += switches, to.barriers += barriers, to.collectives += collectives, to.matrices += matrices, to.matrix_conflicts += matrix_conflicts;
  switches = barriers = collectives = matrices = matrix_conflicts = 0;
  if (opt.profile) profile.end_launch(kernel_name(launch->request.kernel));
}

void Block::entry() {
  Block& block = *running;
  entered(block.self().fiber);
  if (settings().ordered) acquired(block.arena);
  block.launch->body();
  block.exit_thread();
}

void Block::exit_thread() {
  Lane& self = this->self();
  Warp& w = warp();
  const uint32_t bit = 1u << self.lane;
  if (self.copies.in_flight())
    report("cp.async", "a thread ends with copies that it has not waited for, the first issued at %s",
           to_string(self.copies.copies[self.copies.first].place).c_str());
  end_multiplies();
  w.alive &= ~bit, w.runnable &= ~bit;
  if (!w.runnable) ready &= ~(1u << self.warp);
  self.done = true;
  alive--, exited++;
  if (barrier.arrived) {
    self.at = barrier.at;
    fail("barrier", "thread %u has ended while %u others wait here for all", unsigned(self.lin), barrier.arrived);
  }
  for (uint32_t waiting = w.arrived; waiting; waiting &= waiting - 1) {
    const Lane& other = lanes[self.warp * 32u + unsigned(__builtin_ctz(waiting))];
    if (!(other.mask & bit)) continue;
    self.at = other.at;
    fail("collective", "lane %u has ended while lane %u waits here for mask %08x", unsigned(self.lane), unsigned(other.lane), other.mask);
  }
  if (settings().ordered) released(arena + 8);
  released(launch->reports);  // the host hears of it when the launch ends, not before: blocks are unordered
  Lane* next = alive ? pick() : nullptr;
  if (alive && !next) deadlock();
  switches++;
  cur = next;
  switch_fiber(self.fiber, next ? next->fiber : host, true);
  __builtin_unreachable();
}

void Block::abandon() {
  abandoned = true;
  Quiet::leave_all();
  switch_fiber(cur ? self().fiber : host, host, true);
  __builtin_unreachable();
}

// ---- who is next

Lane* Block::pick() {
  std::vector<BulkCopy>& copies = mbarriers.copies;
  const bool by_chance = opt.async_copy == Async::Random;
  if (by_chance && !copies.empty() && draw() % 4 == 0) mbarriers.land(*this, draw() % copies.size());
  for (;;) {
    if (Lane* lane = pick_runnable()) return lane;
    if (copies.empty()) return nullptr;
    mbarriers.land(*this, by_chance ? draw() % copies.size() : 0);
  }
}

Lane* Block::pick_runnable() {
  if (!ready) return nullptr;
  const unsigned own = cur ? cur->warp : 0;
  const uint32_t from_own = ready & (~0u << own), up_to_own = ready & ((2u << own) - 1u);
  unsigned w, lane;
  if (opt.order == Order::RoundRobin) {  // on in this warp, then in the next
    w = unsigned(__builtin_ctz(from_own ? from_own : ready));
    lane = unsigned(__builtin_ctz(warps[w].runnable));
  } else if (opt.order == Order::Reverse) {
    w = 31u - unsigned(__builtin_clz(up_to_own ? up_to_own : ready));
    lane = 31u - unsigned(__builtin_clz(warps[w].runnable));
  } else {
    const auto any = [&](uint32_t mask) {
      for (unsigned skip = unsigned(draw() % unsigned(__builtin_popcount(mask))); skip > 0; skip--) mask &= mask - 1;
      return unsigned(__builtin_ctz(mask));
    };
    // Three times in four the warp goes on: deep and shallow interleavings both occur.
    w = ready >> own & 1 && draw() % 4 ? own : any(ready);
    lane = any(warps[w].runnable);
  }
  return &lanes[w * 32 + lane];
}

void Block::wait(Waiting what, Place at) {
  Lane& self = this->self();
  Warp& w = warp();
  self.at = at, self.waiting = what;
  w.runnable &= ~(1u << self.lane);
  if (!w.runnable) ready &= ~(1u << self.warp);
  Lane* next = pick();
  if (!next) deadlock();
  if (next != &self) {
    switches++;
    cur = next;
    switch_fiber(self.fiber, next->fiber);
  }
  self.waiting = Waiting::nothing;
}

void Block::wake(unsigned thread) { wake_all(1u << (thread % 32), thread / 32); }

void Block::deadlock() {
  static const char* const names[] = {"nothing", "__syncthreads", "named barrier", "warp collective", "warpgroup collective", "mbarrier"};
  std::string text;
  Place place;
  unsigned groups = 0;
  for (unsigned i = 0; i < threads;) {  // runs of threads that wait at one line
    const Lane& first = lanes[i];
    unsigned end = i + 1;
    while (end < threads && lanes[end].done == first.done && lanes[end].waiting == first.waiting && lanes[end].at == first.at) end++;
    if (!first.done && ++groups <= 12)
      text += (end == i + 1 ? "; thread " + std::to_string(i) : "; threads " + std::to_string(i) + ".." + std::to_string(end - 1)) + " in " +
              names[int(first.waiting)] + " at " + to_string(first.at);
    if (!first.done && !place.file) place = first.at;
    i = end;
  }
  if (exited) text += "; " + std::to_string(exited) + " have ended";
  report_at("deadlock", place, {}, "nobody can go on" + text);
  abandon();
}

void Block::begin_clocks() {
  if (clocks.on()) return;
  const Quiet quiet;
  clocks.begin(threads, epoch);
  for (unsigned i = 0; i < threads; i++) clocks.set_syncs(i, warps[i / 32].syncs);
}

// ---- __syncthreads

int sync_block(Vote vote, bool predicate, const char* file, int line) {
  Block& block = *running;
  Lane& self = block.self();
  BlockBarrier& b = block.barrier;
  self.at = {file, line};
  if (b.arrived == 0) b.at = self.at, b.votes = vote == Vote::And ? 1 : 0;
  if (b.at != self.at) fail("barrier", "threads diverge: others wait for all at %s", to_string(b.at).c_str());
  if (block.exited) fail("barrier", "%u threads have ended, and can never come", block.exited);
  const int phase = int(block.epoch & 1);
  if (vote == Vote::Count) b.votes += predicate;
  if (vote == Vote::And) b.votes &= predicate;
  if (vote == Vote::Or) b.votes |= predicate;
  released(&b.token[phase]);
  if (++b.arrived == block.threads) {
    b.arrived = 0, b.result[phase] = b.votes;
    block.epoch++, block.barriers++;
    const Quiet quiet;
    if (block.clocks.on()) block.clocks.next_epoch(block.epoch);
    if (opt.profile) block.profile.end_epoch();
    for (unsigned w = 0; w < block.warps.size(); w++) block.wake_all(block.warps[w].alive, w);
  } else {
    block.wait(Waiting::block, self.at);
  }
  acquired(&b.token[phase]);
  return b.result[phase];
}

}  // namespace simt
}  // namespace attune
