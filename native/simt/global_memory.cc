#include "global_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>

#include "../core/error.h"
#include "block.h"

namespace attune {
namespace simt {

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kGap = ATTUNE_SIMT_ASAN ? 0 : 4096;  // behind every allocation: a little past one is not in the next. ASan has its own, from the last byte on
constexpr uintptr_t kNear = 4096;
constexpr size_t kQuarantine = size_t(64) << 20;  // bytes of released memory that stay

std::map<uintptr_t, Allocation> allocations;
std::deque<uintptr_t> quarantine;  // oldest first
size_t quarantined = 0;            // bytes
std::mutex memory_mutex;           // of what changes it: kernels only read, and none runs meanwhile
uint32_t changes = 1;              // what a thread remembers of the last allocation it met holds as long as this stays

struct Remembered {
  uint32_t changes;
  Allocation* allocation;
};
ATTUNE_SIMT_THREAD Remembered last;

// Bytes that nobody has written, one flag each.
uintptr_t scratch = 0;
std::vector<uint8_t> unwritten;

std::map<const void*, Heard> published;  // by address of the atomic
const void* shadow_owner = nullptr;      // whose epochs the shadows of global memory are stamped with

/// The allocation that begins at or before the address; null if none does.
Allocation* allocation_before(uintptr_t address) {
  auto at = allocations.upper_bound(address);
  return at == allocations.begin() ? nullptr : &std::prev(at)->second;
}

Allocation* find(const void* p, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  const auto holds = [&](const Allocation& a) { return address >= a.address && address - a.address + bytes <= a.bytes && !a.released; };
  if (last.changes == changes && holds(*last.allocation)) return last.allocation;
  Allocation* a = allocation_before(address);
  if (!a || !holds(*a)) return nullptr;
  last = {changes, a};
  return a;
}

std::string describe(const Allocation& a) { return std::to_string(a.bytes) + " bytes" + (a.name.empty() ? "" : " (" + a.name + ")"); }

void forget(std::map<uintptr_t, Allocation>::iterator at) {
  std::free(reinterpret_cast<void*>(at->first));
  allocations.erase(at);
}

}  // namespace

void* dev_alloc(size_t bytes, const char* name) {
  const Quiet quiet;
  void* p = nullptr;
  if (posix_memalign(&p, kAlignment, std::max<size_t>(bytes, 1) + kGap) != 0) throw std::bad_alloc();
  std::memset(p, 0xFF, bytes);
  const std::lock_guard<std::mutex> lock(memory_mutex);
  Allocation a;
  a.address = reinterpret_cast<uintptr_t>(p), a.bytes = bytes, a.name = name;
  allocations[a.address] = std::move(a);
  changes++;
  return p;
}

void dev_free(void* p) {
  if (!p) return;
  const Quiet quiet;
  const std::lock_guard<std::mutex> lock(memory_mutex);
  const auto at = allocations.find(reinterpret_cast<uintptr_t>(p));
  if (at == allocations.end()) throw Error("ERR_DEVICE", "simt: release of an address that is no allocation's");
  Allocation& a = at->second;
  if (a.released) throw Error("ERR_DEVICE", "simt: release of " + describe(a) + " that were released before");
  std::memset(p, 0xFF, a.bytes);
  a.released = true, a.shadow.reset();
  changes++;
  quarantine.push_back(a.address), quarantined += a.bytes;
  while (quarantined > kQuarantine) {
    const auto oldest = allocations.find(quarantine.front());
    quarantined -= oldest->second.bytes;
    forget(oldest);
    quarantine.pop_front();
  }
}

void dev_free_all() {
  const std::lock_guard<std::mutex> lock(memory_mutex);
  while (!allocations.empty()) forget(allocations.begin());
  quarantine.clear(), quarantined = 0, changes++;
}

std::string access_error(const void* p, size_t bytes, bool write) {
  if (bytes == 0 || find(p, bytes)) return "";
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  const std::string what = std::string(write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes ";
  const auto next = allocations.upper_bound(address);
  const uintptr_t to_next = next != allocations.end() ? next->first - address : UINTPTR_MAX;
  if (const Allocation* a = allocation_before(address)) {
    const uintptr_t limit = a->address + a->bytes, past = address + bytes - limit;
    if (address < limit && a->released) return what + "at offset " + std::to_string(address - a->address) + " of " + describe(*a) + " that were released";
    const bool far = past > kNear;  // perhaps nothing to do with this allocation
    if (address < limit || past < to_next)
      return what + (far ? "outside of device memory, " : "") + std::to_string(past) + " bytes past the end of " + describe(*a);
  }
  if (to_next == UINTPTR_MAX) return what + "outside of device memory";
  return what + (to_next > kNear ? "outside of device memory, " : "") + std::to_string(to_next) + " bytes before " + describe(next->second);
}

void set_scratch(void* p, size_t bytes) {
  scratch = reinterpret_cast<uintptr_t>(p);
  unwritten.assign(bytes, 1);
}

void scratch_written(const void* p, size_t bytes) {
  const uintptr_t begin = std::max(scratch, reinterpret_cast<uintptr_t>(p)), end = std::min(scratch + unwritten.size(), reinterpret_cast<uintptr_t>(p) + bytes);
  if (begin < end) std::fill(unwritten.begin() + long(begin - scratch), unwritten.begin() + long(end - scratch), 0);
}

void Heard::join(const Heard& other) {
  for (const auto& [first, until] : other.blocks) {
    Until& mine = blocks[first];
    mine.epoch = std::max(mine.epoch, until.epoch);
    if (until.own_epoch >= mine.own_epoch) mine.own_epoch = until.own_epoch, mine.thread = until.thread;
  }
}

bool Heard::covers(uint32_t epoch, uint16_t thread) const {
  auto at = blocks.upper_bound(epoch);
  if (at == blocks.begin()) return false;
  const Until& until = std::prev(at)->second;
  return epoch < until.epoch || (epoch == until.own_epoch && thread == until.thread);
}

void begin_global_launch(const void* machine, bool epochs_restart) {
  published.clear();
  if (shadow_owner == machine && !epochs_restart) return;
  shadow_owner = machine;
  for (auto& entry : allocations) entry.second.shadow.reset();
}

void fence() {
  Block& block = *running;
  block.global.fenced(block.epoch);
  block.self().fenced = block.epoch;
}

namespace {

/// An atomic publishes what a fence came after, and hears what was published at its address.
void publish(Block& block, const void* p) {
  Heard& here = published[p];
  const uint32_t before = block.global.fence == block.epoch ? block.global.fence_before : block.global.fence;
  const bool own = block.self().fenced == block.epoch;
  if (own || before) {
    Heard mine;
    mine.blocks[block.first_epoch] = {own ? block.epoch : before + 1, own ? block.epoch : 0, own ? cur->lin : uint16_t(0xffff)};
    here.join(mine), here.join(block.global.heard);
  }
  block.global.heard.join(here);
}

std::string lane_of(const Read& r) { return std::to_string(r.group * 32u + unsigned(__builtin_ctz(r.lanes | 1u << 31))); }

void touch(Block& block, Cell& cell, const Allocation& a, size_t offset, const Access& access) {
  const auto tell = [&](bool elsewhere, bool wrote, const std::string& thread, uint64_t place) {
    report_at("race", access.place, Place::unpacked(place),
              "byte " + std::to_string(offset) + " of " + describe(a) + ": " + (access.writes ? "written" : "read") + ", and " + (wrote ? "written" : "read") +
                  " by thread " + thread + (elsewhere ? " of another block at " : " at ") + to_string(Place::unpacked(place)) +
                  ", with nothing that orders the two");
  };
  Write& w = cell.write;
  const bool both_atomic = w.state & Write::atomic && access.writes && access.write.state & Write::atomic;
  if (w.epoch >= block.launch_epoch && !both_atomic) {
    const bool elsewhere = w.epoch < block.first_epoch;
    if (elsewhere ? !block.global.heard.covers(w.epoch, w.thread) : !comes_before(block, w)) tell(elsewhere, true, std::to_string(w.thread), cell.write_place);
  }
  const auto ordered = [&](const Read& r) {
    if (r.epoch < block.launch_epoch) return true;
    return r.epoch < block.first_epoch ? block.global.heard.covers(r.epoch, uint16_t(r.group * 32u + unsigned(__builtin_ctz(r.lanes))))
                                       : comes_before(block, r);
  };
  if (access.writes) {
    for (Read& r : cell.read) {
      if (!ordered(r)) tell(r.epoch < block.first_epoch, false, lane_of(r), cell.read_place);
      r = Read{};
    }
    w = access.write, cell.write_place = access.place.packed();
    return;
  }
  cell.read_place = access.place.packed();
  for (Read& r : cell.read)
    if (r.epoch == access.read.epoch && r.clock == access.read.clock && r.group == access.read.group) return void(r.lanes |= access.read.lanes);
  for (Read& r : cell.read)
    if (ordered(r)) return void(r = access.read);
}

}  // namespace

void check_global_memory(Block& block, const void* p, size_t bytes, const Access& access) {
  Allocation* a = find(p, bytes);
  if (!a) {
    block.self().at = access.place;
    fail("out of bounds", "%s", access_error(p, bytes, access.writes).c_str());
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  if (address - scratch < unwritten.size()) {
    uint8_t* flags = unwritten.data() + (address - scratch);
    const size_t known = std::min(bytes, unwritten.size() - (address - scratch));
    if (access.writes && !(access.write.state & Write::atomic)) std::memset(flags, 0, known);
    else if (std::find(flags, flags + known, 1) != flags + known) {
      report_at("uninitialised", access.place, {}, "byte " + std::to_string(address - scratch) + " of the scratch memory is read before anyone has written it");
    }
  }
  if (opt.checks != Checks::Full) return;
  if (!a->shadow) {
    const Quiet quiet;
    a->shadow = std::make_unique<Shadow>();
    a->shadow->reserve(a->bytes);
  }
  if (access.writes && access.write.state & Write::atomic) {
    const Quiet quiet;
    publish(block, p);
  }
  a->shadow->each(address - a->address, bytes, [&](Cell& cell, size_t at) { touch(block, cell, *a, at, access); });
}

}  // namespace simt
}  // namespace attune
