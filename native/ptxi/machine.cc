// What the machine reports, the memory it guards, and its barriers.
#include "machine.h"

#include <cxxabi.h>

#include <cstdlib>

#include "../core/error.h"
#include "module.h"

namespace attune {
namespace ptxi {

namespace {
std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  const std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}
std::string triple(uint64_t x, uint64_t y, uint64_t z) { return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")"; }
int first_lane(Mask lanes) { return lanes ? __builtin_ctz(lanes) : 0; }
}  // namespace

std::string Machine::thread_name(int w, int lane) const {
  const uint32_t t = uint32_t(w) * 32 + uint32_t(lane);
  return triple(t % start.block.x, t / start.block.x % start.block.y, t / start.block.x / start.block.y);
}

void Machine::fail(const Instruction& i, int lane, const std::string& what) {
  throw Error("ERR_DEVICE", "ptxi: " + demangled(entry.name) + ", block " + triple(block_index.x, block_index.y, block_index.z) + ", thread " +
                                thread_name(warp ? warp->index : 0, lane) + ", line " + std::to_string(i.line) + " of " + entry.source->path + ": `" +
                                entry.text_of(i) + "`: " + what);
}

void Machine::held(const Instruction& i, uint32_t index) {
  for (const Warp::Product& p : warp->products)
    for (const auto* list : {&p.accumulators, &p.a})
      for (const Item& r : *list)
        if (r.index == index)
          fail(i, 0,
               std::string("writes ") + (list == &p.a ? "A" : "an accumulator") + " of the wgmma of line " + std::to_string(p.by->line) +
                   ", which has not been waited for");
  fail(i, 0, "writes a register of a wgmma in flight");
}

void Machine::unset(const Instruction& i, Mask lanes, uint32_t index) {
  for (const Warp::Product& p : warp->products)
    for (const Item& a : p.accumulators)
      if (a.index == index)
        fail(i, first_lane(lanes), "reads an accumulator of the wgmma of line " + std::to_string(p.by->line) + ", which has not been waited for");
  const Instruction* by = warp->spoiled[index];
  fail(i, first_lane(lanes),
       by ? "depends on a register that has not been written, through line " + std::to_string(by->line) + " (`" + entry.text_of(*by) + "`)"
          : "reads a register that has not been written");
}

void Machine::diverged(Warp& w) {
  const int lane = first_lane(w.live);
  std::string others;
  for (int l = 0; l < 32; l++)
    if (w.live >> l & 1 && w.pc[l] != w.pc[lane]) {
      others = "lane " + std::to_string(l) + " waits at line " + std::to_string(entry.code[w.pc[l]].line) + " (`" + entry.text_of(entry.code[w.pc[l]]) + "`)";
      break;
    }
  if (others.empty()) others = "the others have gone by or exited";
  fail(entry.code[w.pc[lane]], lane, "divergent: not all lanes that this instruction speaks for come to it; " + others);
}

void Machine::deadlock() {
  std::string text = "deadlock: no warp can go on";
  const Instruction* at = nullptr;
  int lane = 0;
  for (Warp& w : warps) {
    if (w.state == Warp::done || !w.stands_at) continue;
    text += "; warp " + std::to_string(w.index) + " waits at line " + std::to_string(w.stands_at->line) + " (`" + entry.text_of(*w.stands_at) + "`)";
    if (at) continue;
    at = w.stands_at, warp = &w, lane = first_lane(w.live);
  }
  fail(at ? *at : entry.code.back(), lane, text);
}

// ---- memory --------------------------------------------------------------------------------------------------------------------------------------------

unsigned char* Machine::global(const Instruction& i, int lane, uint64_t address, uint32_t bytes, uint32_t alignment, bool write) {
  if (address % alignment) fail(i, lane, "a misaligned access of " + std::to_string(bytes) + " bytes at address " + std::to_string(address));
  unsigned char* const at = reinterpret_cast<unsigned char*>(address);
  const std::string wrong = options.access_error(at, bytes, write);
  if (wrong.empty()) return at;
  const Variable* v = module.holding(address);
  if (!v) fail(i, lane, wrong);
  if (write && v->space == Space::constant) fail(i, lane, "a write to constant memory");
  if (address + bytes > v->address + uint64_t(v->bytes)) fail(i, lane, "an access past the end of a variable of " + std::to_string(v->bytes) + " bytes");
  return at;
}

unsigned char* Machine::memory(const Instruction& i, int lane, Space space, uint64_t address, uint32_t bytes, Use use) {
  if (space == Space::generic) {
    const uint64_t window = address & ~(kWindow - 1);
    space = window == kSharedWindow ? Space::shared : window == kLocalWindow ? Space::local : window == kParamWindow ? Space::param : Space::global;
    if (space != Space::global) address &= kWindow - 1;
  }
  const auto inside = [&](uint64_t size, const char* name) {
    if (address % bytes) fail(i, lane, "a misaligned access of " + std::to_string(bytes) + " bytes at byte " + std::to_string(address) + " of " + name);
    if (address + bytes > size || address + bytes < address)
      fail(i, lane,
           "an access of " + std::to_string(bytes) + " bytes at byte " + std::to_string(int64_t(address)) + " of " + name + ", which has " +
               std::to_string(size));
  };
  switch (space) {
    case Space::shared:
      inside(uint64_t(entry.static_shared + start.shared_bytes), "shared memory");
      shadow.use(i, lane, uint32_t(address), bytes, use);
      return shared.data() + address;
    case Space::local: inside(uint64_t(entry.local_bytes), "local memory"); return warp->local.data() + size_t(lane) * size_t(entry.local_bytes) + address;
    case Space::param:
      if (use != Use::read) fail(i, lane, "a write to the parameters of the kernel");
      inside(start.parameters.size(), "the parameters");
      return const_cast<unsigned char*>(start.parameters.data()) + address;
    default: return global(i, lane, address, bytes, bytes, use != Use::read);
  }
}

void Machine::land(Mask m, uint32_t open) {
  Warp& w = *warp;
  const uint32_t now = shadow.now(w.index);
  size_t kept = 0;
  for (const Copy& c : w.copies) {
    if (!(m >> c.lane & 1) || c.group + open >= w.open_group[c.lane]) {
      w.copies[kept++] = c;
      continue;
    }
    if (c.from) {
      std::memcpy(shared.data() + c.to, c.from, c.valid);
      std::memset(shared.data() + c.to + c.valid, 0, c.bytes - c.valid);
    }
    shadow.end_copy(w.index, c.lane, c.to, c.bytes, now);
  }
  w.copies.resize(kept);
}

// ---- barriers ------------------------------------------------------------------------------------------------------------------------------------------

/// The current warp arrives. threads: how many must; 0 for all warps that have not exited.
void Machine::arrive(const Instruction& i, int index, uint32_t threads, bool wait) {
  if (index < 0 || index > 15) fail(i, 0, "there are barriers 0 to 15, not " + std::to_string(index));
  if (threads % 32) fail(i, 0, "a barrier counts whole warps, not " + std::to_string(threads) + " threads");
  Barrier& b = barriers[size_t(index)];
  if (b.arrived && b.expected != threads) fail(i, 0, "the barrier waits for " + std::to_string(b.expected) + " threads, not " + std::to_string(threads));
  Warp& w = *warp;
  b.expected = threads;
  b.arrived += 32;
  b.clock.join(shadow.knowledge(w.index));
  shadow.tick(w.index);
  w.stands_at = &i;
  if (wait) w.state = Warp::waiting, w.barrier = index;
  release(b);
}

void Machine::release(Barrier& b) {
  uint32_t needed = b.expected;
  if (!needed)
    for (const Warp& w : warps) needed += w.state == Warp::done ? 0 : 32;
  if (b.arrived < needed) return;
  const int index = int(&b - barriers.data());
  for (Warp& w : warps) {
    if (w.state != Warp::waiting || w.barrier != index) continue;
    w.state = Warp::ready, w.barrier = -1;
    shadow.hear(w.index, b.clock);
  }
  for (const Barrier::Result& r : b.results) {
    unsigned char* at = warps[size_t(r.warp)].file.data() + r.by->operand[0];
    if (r.by->detail[0] != 0) *reinterpret_cast<Mask*>(at) = (r.by->detail[0] == 1 ? b.all : b.any) ? kAllLanes : 0;
    else
      for (int lane = 0; lane < 32; lane++) reinterpret_cast<uint32_t*>(at)[lane] = b.popc;
  }
  b = Barrier{};
  events++;
}

}  // namespace ptxi
}  // namespace attune
