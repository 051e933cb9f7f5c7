// How time passes on the machine: blocks, warps in turns, groups of lanes. What instructions do is in their families' files.
#include <algorithm>
#include <numeric>

#include "../core/error.h"
#include "hopper.h"
#include "machine.h"
#include "module.h"

namespace attune {
namespace ptxi {

void interpret(const Module& module, const Entry& entry, const Start& start, const Options& options) { Machine(module, entry, start, options).run(); }

Machine::Machine(const Module& module, const Entry& entry, const Start& start, const Options& options)
    : module(module), entry(entry), start(start), options(options), shadow(*this), hopper(std::make_unique<Hopper>(*this)) {
  random_ = options.seed * 0x9E3779B97F4A7C15ull | 1;
  const size_t threads = start.block.count();
  warps.resize((threads + 31) / 32);
  for (size_t w = 0; w < warps.size(); w++) {
    Warp& warp = warps[w];
    warp.index = int(w);
    warp.file.resize(entry.file_bytes);
    warp.set.assign(entry.registers, 0), warp.spoiled.assign(entry.registers, nullptr);
    warp.local.resize(size_t(entry.local_bytes) * 32);
    if (entry.wgmma) warp.written.assign(entry.registers, 0), warp.held.assign(entry.registers, false);
    fill_presets(warp, true);
  }
  shared.resize(size_t(entry.static_shared + start.shared_bytes) + 1024);
}

Machine::~Machine() = default;

uint64_t Machine::random() {
  random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
  return random_ >> 16;
}

void Machine::run() {
  std::vector<uint64_t> order(start.grid.count());
  std::iota(order.begin(), order.end(), 0);
  if (options.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (options.order == Order::random)
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random() % i]);
  for (const uint64_t b : order) {
    block_index = {uint32_t(b % start.grid.x), uint32_t(b / start.grid.x % start.grid.y), uint32_t(b / start.grid.x / start.grid.y)};
    begin_block();
    run_block();
    end_block();
  }
}

void Machine::begin_block() {
  const uint32_t bytes = uint32_t(entry.static_shared + start.shared_bytes);
  std::fill(shared.begin(), shared.begin() + bytes, 0xFF);  // NaN to whoever reads too early
  shadow.begin(bytes, uint32_t(entry.grain), int(warps.size()));
  barriers.fill(Barrier{});
  hopper->begin();
  left_ = uint64_t(1) << 32;
  const uint32_t threads = uint32_t(start.block.count());
  for (Warp& w : warps) {
    const uint32_t first = uint32_t(w.index) * 32;
    w.live = threads - first >= 32 ? kAllLanes : (1u << (threads - first)) - 1;
    w.parked = w.refused = w.carry = 0, w.state = Warp::ready, w.barrier = -1;
    std::fill(w.pc, w.pc + 32, 0);
    std::fill(w.set.begin(), w.set.end(), 0);
    std::fill(w.held.begin(), w.held.end(), false);
    for (const Preset& p : entry.presets) w.set[p.index] = kAllLanes;
    std::fill(w.open_group, w.open_group + 32, 0);
    std::fill(w.local.begin(), w.local.end(), 0xFF);
    w.copies.clear(), w.products.clear();
    w.count = w.fenced = w.wgmma_group = 0;
    fill_presets(w, false);
  }
}

void Machine::end_block() {
  hopper->end();
  for (Barrier& b : barriers)
    if (b.arrived) fail(entry.code.back(), 0, "the block ends, and " + std::to_string(b.arrived) + " threads have arrived at a barrier in vain");
}

void Machine::fill_presets(Warp& w, bool first) {
  for (const Preset& p : entry.presets) {
    const bool by_block = p.special && p.which >= Special::ctaid_x && p.which <= Special::ctaid_z;
    if (first == by_block) continue;  // the others stay from block to block
    for (uint32_t lane = 0; lane < 32; lane++) {
      const uint32_t thread = uint32_t(w.index) * 32 + lane, bit = 1u << lane;
      const Dim &n = start.block, &g = start.grid, &b = block_index;
      uint64_t v = p.value;
      if (p.special) switch (p.which) {
          case Special::tid_x: v = thread % n.x; break;
          case Special::tid_y: v = thread / n.x % n.y; break;
          case Special::tid_z: v = thread / n.x / n.y; break;
          case Special::ctaid_x: v = b.x; break;
          case Special::ctaid_y: v = b.y; break;
          case Special::ctaid_z: v = b.z; break;
          case Special::ntid_x: v = n.x; break;
          case Special::ntid_y: v = n.y; break;
          case Special::ntid_z: v = n.z; break;
          case Special::nctaid_x: v = g.x; break;
          case Special::nctaid_y: v = g.y; break;
          case Special::nctaid_z: v = g.z; break;
          case Special::laneid: v = lane; break;
          case Special::warpid: v = uint64_t(w.index); break;
          case Special::nwarpid: v = warps.size(); break;
          case Special::lanemask_eq: v = bit; break;
          case Special::lanemask_lt: v = bit - 1; break;
          case Special::lanemask_le: v = (bit - 1) | bit; break;
          case Special::lanemask_gt: v = ~((bit - 1) | bit); break;
          case Special::lanemask_ge: v = ~(bit - 1); break;
          case Special::dynamic_smem_size: v = uint64_t(start.shared_bytes); break;
          case Special::zero: v = 0; break;
          case Special::one: v = 1; break;
        }
      unsigned char* at = w.file.data() + p.at;
      if (p.bytes == 0) *reinterpret_cast<Mask*>(at) = v ? kAllLanes : 0;
      else std::memcpy(at + lane * uint32_t(p.bytes), &v, size_t(p.bytes));
    }
  }
}

void Machine::run_block() {
  std::vector<size_t> turn(warps.size());
  std::iota(turn.begin(), turn.end(), 0);
  if (options.order == Order::reverse) std::reverse(turn.begin(), turn.end());
  for (;;) {
    if (options.order == Order::random)
      for (size_t i = turn.size(); i > 1; i--) std::swap(turn[i - 1], turn[random() % i]);
    bool ran = false, alive = false;
    for (const size_t t : turn) {
      Warp& w = warps[t];
      if (w.state == Warp::polling && w.events_at_refusal != events) w.state = Warp::ready;
      if (w.state == Warp::ready) {
        run_warp(w, options.order == Order::random ? 1 + random() % 200 : UINT64_MAX);
        ran = true;
      }
      alive |= w.state != Warp::done;
    }
    if (!alive) return;
    const bool landed = options.copies == Arrival::random && random() % 4 == 0 && hopper->land_one();  // the last one, perhaps: that is progress too
    if (!ran && !landed && !hopper->land_one()) deadlock();
  }
}

/// The lanes at the lowest instruction that wait for nobody; 0 if there are none.
Mask Machine::next_group(Warp& w, uint32_t& pc) {
  const Mask free = w.live & ~w.parked;
  Mask group = 0;
  pc = UINT32_MAX;
  for (int lane = 0; lane < 32; lane++)
    if (free >> lane & 1 && w.pc[lane] <= pc) {
      if (w.pc[lane] < pc) pc = w.pc[lane], group = 0;
      group |= 1u << lane;
    }
  return group;
}

/// Whether all lanes that a collective speaks for stand at it; if not, those in m are parked there. m grows to the lanes that run it.
bool Machine::gather(const Instruction& i, Mask active, Mask& m, uint32_t pc) {
  Warp& w = *warp;
  Mask wanted = w.live;
  if (!i.all_lanes) {
    const uint32_t* named = lanes<uint32_t>(i.operand[7]);
    const int first = __builtin_ctz(m);
    wanted = named[first];
    for (int lane = first; lane < 32; lane++) {
      if (!(m >> lane & 1)) continue;
      if (!(named[lane] >> lane & 1)) fail(i, lane, "this lane takes part, and is not in the mask of those that do");
      if (named[lane] != wanted) fail(i, lane, "the lanes name different masks");
    }
    if (wanted & ~w.live) fail(i, __builtin_ctz(wanted & ~w.live), "the mask names a lane that has exited");
  }
  if (m == wanted) return true;
  for (int lane = 0; lane < 32; lane++) {
    if (m >> lane & 1) w.pc[lane] = pc;
    else if (active >> lane & 1) w.pc[lane] = pc + 1;
  }
  w.parked |= m;
  Mask here = 0;
  for (int lane = 0; lane < 32; lane++)
    if (w.parked >> lane & 1 && w.pc[lane] == pc) here |= 1u << lane;
  if (here != wanted) return false;
  w.parked &= ~here;
  m = here;
  return true;
}

/// An instruction of which some lanes' sources have not been written.
void Machine::run_partly(const Instruction& i, Mask m) {
  Warp& w = *warp;
  const uint32_t* const uses = entry.uses.data();
  uint32_t first = i.reads;
  while (!(m & ~w.set[uses[first]])) first++;
  if (i.unset == Unset::error) unset(i, m & ~w.set[uses[first]], uses[first]);
  Mask known = m;
  if (i.unset == Unset::spreads)
    for (uint32_t u = i.reads; u < i.writes; u++) known &= w.set[uses[u]];
  else {
    const Mask a = w.set[uses[i.reads]], b = w.set[uses[i.reads + 1]];
    if (i.unset == Unset::chosen) {
      const Mask p = i.detail[0] ? ~predicate(i.operand[3]) : predicate(i.operand[3]);
      known &= w.set[uses[i.reads + 2]] & ((p & a) | (~p & b));
    } else {
      const Mask flip = i.unset == Unset::conjunction ? kAllLanes : 0, va = predicate(i.operand[1]) ^ flip, vb = predicate(i.operand[2]) ^ flip;
      known &= (a & b) | (a & va) | (b & vb);
    }
  }
  i.run(*this, i, i.unset == Unset::spreads ? known : m);
  for (uint32_t u = i.writes; u < i.uses_end; u++) {
    w.set[uses[u]] = (w.set[uses[u]] & ~m) | known;
    w.spoiled[uses[u]] = w.spoiled[uses[first]] ? w.spoiled[uses[first]] : &i;
  }
}

void Machine::run_warp(Warp& w, uint64_t budget) {
  warp = &w, file = w.file.data();
  const Instruction* const code = entry.code.data();
  const uint32_t* const uses = entry.uses.data();
  Mask* const set = w.set.data();
  uint32_t pc = 0;
  Mask active = next_group(w, pc);
  const auto keep = [&](Mask lanes, uint32_t at) {
    for (int lane = 0; lane < 32; lane++)
      if (lanes >> lane & 1) w.pc[lane] = at;
  };
  for (; budget > 0 && left_ > 0; budget--, left_--) {
    if (!active) {
      if (w.live) diverged(w);
      w.state = Warp::done;
      for (Barrier& b : barriers)
        if (b.arrived && !b.expected) release(b);  // those who have exited are not waited for
      return;
    }
    const Instruction& i = code[pc];
    Mask m = active;
    if (i.guard >= 0) {
      if (active & ~set[i.guard_register]) unset(i, active & ~set[i.guard_register], i.guard_register);
      m &= i.guard_not ? ~predicate(uint32_t(i.guard)) : predicate(uint32_t(i.guard));
    }
    bool together = active == (w.live & ~w.parked);  // no lane of this warp stands elsewhere
    if (i.flow >= Flow::together && i.flow <= Flow::barrier && m) {
      const Mask before = m;
      if (!gather(i, active, m, pc)) {
        active = next_group(w, pc);
        continue;
      }
      if (m != before) together = false;
    }
    Mask known = m;
    for (uint32_t u = i.reads; u < i.writes; u++) known &= set[uses[u]];
    if (known == m) {
      if (m && i.run) i.run(*this, i, m);
      for (uint32_t u = i.writes; u < i.uses_end; u++) set[uses[u]] |= m;
    } else run_partly(i, m);
    if (entry.wgmma) {
      w.count++;
      for (uint32_t u = i.writes; u < i.uses_end; u++) {
        w.written[uses[u]] = w.count;
        if (m && w.held[uses[u]]) held(i, uses[u]);
      }
    }
    switch (i.flow) {
      case Flow::next: pc++; break;
      case Flow::branch:
        if (m == active) pc = i.target;
        else if (m == 0) pc++;
        else {
          keep(m, i.target), keep(active & ~m, pc + 1);
          active = next_group(w, pc);
          continue;
        }
        break;
      case Flow::table:
        keep(active & ~m, pc + 1);
        for (int lane = 0; lane < 32; lane++) {
          if (!(m >> lane & 1)) continue;
          const uint32_t index = lanes<uint32_t>(i.operand[0])[lane];
          if (index >= i.detail[1]) fail(i, lane, "entry " + std::to_string(index) + " of a branch table of " + std::to_string(i.detail[1]));
          w.pc[lane] = entry.lists[i.detail[0] + index].at;
        }
        active = next_group(w, pc);
        continue;
      case Flow::exit:
        w.live &= ~m;
        keep(active & ~m, pc + 1);
        active = next_group(w, pc);
        continue;
      case Flow::together:
        pc++;
        if (together && m == active) break;
        keep(m | active, pc);
        active = next_group(w, pc);
        continue;
      case Flow::barrier:
        keep(m | active, pc + 1);
        if (w.state == Warp::waiting) return;
        active = next_group(w, pc);
        continue;
      case Flow::poll:
        pc++;
        if (w.refused) {
          w.refused = 0;
          keep(active, pc);
          w.state = Warp::polling, w.events_at_refusal = events, w.stands_at = &i;
          return;
        }
        break;
    }
    if (!together && code[pc].label) {
      keep(active, pc);
      active = next_group(w, pc);
    }
  }
  keep(active, pc);
  if (left_ == 0) fail(code[pc], active ? __builtin_ctz(active) : 0, "a block of more than 2^32 instructions: a loop that does not end");
}

}  // namespace ptxi
}  // namespace attune
