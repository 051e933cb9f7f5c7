// What ends, orders and synchronises threads: exit, ret, trap, bar, barrier, fences. (Branches and calls are the body's.)
#include "lanes.h"

namespace attune {
namespace ptxi {

namespace {

void nothing(Machine&, const Instruction&, Mask) {}

bool build_exit(Build& b) {
  b.take("uni");
  b.out.flow = Flow::exit;
  return true;
}

void trap(Machine& x, const Instruction& i, Mask m) { x.fail(i, __builtin_ctz(m), "the kernel traps"); }
bool build_trap(Build& b) {
  b.out.run = trap;
  return true;
}

/// No instruction of these moves data, and here nothing is reordered.
bool build_nothing(Build& b) {
  b.take_all_from("");
  b.out.run = nothing;
  return true;
}

void fence_async_proxy(Machine& x, const Instruction&, Mask) { x.shadow.fence(x.warp->index); }
bool build_fence(Build& b) {
  b.out.run = b.take("proxy") && b.take("async") ? fence_async_proxy : nothing;
  b.take_all_from("");
  return true;
}

// ---- bar -------------------------------------------------------------------------------------------------------------------------------------------------

/// operand[1]: which barrier; operand[2]: how many threads, if detail[1]; all lanes must say the same.
uint32_t uniform(Machine& x, const Instruction& i, int slot, Mask m) {
  const uint32_t* v = x.lanes<uint32_t>(i.operand[slot]);
  const uint32_t first = v[__builtin_ctz(m)];
  for (Mask rest = m; rest; rest &= rest - 1)
    if (v[__builtin_ctz(rest)] != first) x.fail(i, __builtin_ctz(rest), "the lanes of a warp name different barriers or counts");
  return first;
}
uint32_t threads_of(Machine& x, const Instruction& i, Mask m) {
  if (!i.detail[1]) return 0;
  const uint32_t threads = uniform(x, i, 2, m);
  if (threads == 0) x.fail(i, 0, "a barrier of no threads");
  return threads;
}

void synchronise(Machine& x, const Instruction& i, Mask m) { x.arrive(i, int(uniform(x, i, 1, m)), threads_of(x, i, m), true); }
void arrive_only(Machine& x, const Instruction& i, Mask m) { x.arrive(i, int(uniform(x, i, 1, m)), threads_of(x, i, m), false); }

/// detail[0]: 0 popc, 1 and, 2 or; the result is delivered when the barrier lets its warps go.
void reduce(Machine& x, const Instruction& i, Mask m) {
  const uint32_t index = uniform(x, i, 1, m);
  Barrier& b = x.barriers[index & 15];
  const Mask p = (i.detail[2] ? ~x.predicate(i.operand[3]) : x.predicate(i.operand[3])) & m;
  b.popc += uint32_t(__builtin_popcount(p));
  b.all = b.all && p == m, b.any = b.any || p != 0;
  b.results.push_back({x.warp->index, &i});
  x.arrive(i, int(index), threads_of(x, i, m), true);
}

void synchronise_warp(Machine& x, const Instruction&, Mask) { x.shadow.tick(x.warp->index); }

bool build_bar(Build& b) {
  b.take("cta"), b.take("aligned");
  if (b.take("warp")) {
    if (!b.take("sync")) return false;
    b.out.flow = Flow::together;
    b.read(7, 0, Type::b32);
    b.out.run = synchronise_warp;
    return true;
  }
  if (b.take("cluster")) {  // a cluster is one block here
    for (const char* m : {"release", "relaxed", "acquire"}) b.take(m);
    b.constant(1, 15, Type::u32);
    b.out.flow = Flow::barrier, b.out.all_lanes = true;
    b.out.run = b.take("arrive") ? nothing : synchronise;
    b.take("wait");
    return true;
  }
  b.out.flow = Flow::barrier, b.out.all_lanes = true;
  size_t k = 0;
  const bool reduces = b.take("red");
  if (reduces) {
    const int op = b.take_one({"popc", "and", "or"});
    if (op < 0) return false;
    b.out.detail[0] = uint32_t(op);
    b.write(0, k++, op == 0 ? Type::u32 : Type::pred);
  }
  b.read(1, k++, Type::u32);
  const size_t behind = reduces ? 1 : 0;
  if (b.operands() > k + behind) b.read(2, k++, Type::u32), b.out.detail[1] = 1;
  if (reduces) b.read(3, k, Type::pred), b.out.detail[2] = b.term(k).negated;
  b.out.run = reduces ? reduce : b.take("arrive") ? arrive_only : synchronise;
  b.take("sync");
  return true;
}

}  // namespace

void add_control(Families& f) {
  f.insert({{"exit", build_exit}, {"ret", build_exit}, {"trap", build_trap}, {"bar", build_bar}, {"barrier", build_bar}});
  f.insert({{"membar", build_nothing}, {"fence", build_fence}, {"nanosleep", build_nothing}, {"griddepcontrol", build_nothing}, {"setmaxnreg", build_nothing}});
  f.insert({{"pmevent", build_nothing}});
}

}  // namespace ptxi
}  // namespace attune
