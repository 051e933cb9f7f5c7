// The instructions of sm_90's barriers and bulk copies: mbarrier.*, cp.async.bulk.tensor, prefetch.tensormap.
#include "hopper.h"
#include "memory.h"

namespace attune {
namespace ptxi {

namespace {

void init(Machine& x, const Instruction& i, Mask m) {
  for (; m; m &= m - 1) x.hopper->init(i, __builtin_ctz(m), x.address(i, 0, __builtin_ctz(m)), x.lanes<uint32_t>(i.operand[1])[__builtin_ctz(m)]);
}
void invalidate(Machine& x, const Instruction& i, Mask m) {
  for (; m; m &= m - 1) x.hopper->invalidate(i, __builtin_ctz(m), x.address(i, 0, __builtin_ctz(m)));
}
/// operand: 0 state, 1 address, 2 a count; detail[0]: it counts bytes (expect_tx); detail[1]: nobody arrives.
void arrive(Machine& x, const Instruction& i, Mask m) {
  uint64_t* state = x.lanes<uint64_t>(i.operand[0]);
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const uint32_t count = x.lanes<uint32_t>(i.operand[2])[l];
    const uint64_t phase = x.hopper->arrive(i, l, x.address(i, 1, l), i.detail[1] ? 0 : i.detail[0] ? 1 : count, i.detail[0] ? count : 0);
    if (!i.detail[1]) state[l] = phase;
  }
}
/// operand: 0 predicate, 1 address, 2 parity (detail[0]) or state.
void wait(Machine& x, const Instruction& i, Mask m) {
  Mask ended = 0;
  for (Mask rest = m; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const uint64_t address = x.address(i, 1, l), phase = x.hopper->phase(i, l, address);
    const bool over = i.detail[0] ? (phase & 1) != (x.lanes<uint32_t>(i.operand[2])[l] & 1) : phase > x.lanes<uint64_t>(i.operand[2])[l];
    if (over) x.hopper->hear(i, l, address), ended |= 1u << l;
  }
  assign(x.predicate(i.operand[0]), m, ended);
  x.warp->refused = m & ~ended;
}

bool build_mbarrier(Build& b) {
  take_hints(b);
  for (const char* m : {"shared", "shared::cta"}) b.take(m);
  b.out.space = Space::shared;
  note_grain(b, 8);
  if (b.take("init")) {
    b.address(0, 0), b.read(1, 1, Type::u32);
    b.out.run = init;
  } else if (b.take("inval")) {
    b.address(0, 0);
    b.out.run = invalidate;
  } else if (b.take("arrive")) {
    b.out.detail[0] = b.take("expect_tx");
    b.write(0, 0, Type::b64), b.address(1, 1);
    if (b.operands() > 2) b.read(2, 2, Type::u32);
    else b.constant(2, 1, Type::u32);
    b.out.run = arrive;
  } else if (b.take("expect_tx")) {
    b.out.detail[0] = b.out.detail[1] = 1;
    b.address(1, 0), b.read(2, 1, Type::u32);
    b.out.run = arrive;
  } else if (b.take("try_wait") || b.take("test_wait")) {
    b.out.detail[0] = b.take("parity");
    b.write(0, 0, Type::pred), b.address(1, 1), b.read(2, 2, b.out.detail[0] ? Type::u32 : Type::b64);
    b.out.flow = Flow::poll;
    b.out.run = wait;
  } else return false;
  return true;
}

/// operand: 0 to, 1 map, 2 barrier, 3 list of coordinates; detail[0]: rank; detail[1], [2]: bytes of the two shared addresses.
void load_box(Machine& x, const Instruction& i, Mask m) {
  const Item* coordinates = x.entry.lists.data() + i.operand[3];
  const auto shared_address = [&](int slot, uint32_t bytes, int l) {
    return bytes == 8 ? x.lanes<uint64_t>(i.operand[slot])[l] : x.lanes<uint32_t>(i.operand[slot])[l];
  };
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    int32_t at[5];
    for (uint32_t k = 0; k < i.detail[0]; k++) at[k] = x.lanes<int32_t>(coordinates[k].at)[l];
    x.hopper->load_box(i, l, shared_address(0, i.detail[1], l), x.lanes<uint64_t>(i.operand[1])[l], shared_address(2, i.detail[2], l), at, i.detail[0]);
  }
}
bool build_bulk(Build& b) {
  if (!b.take("async") || !b.take("bulk") || !b.take("tensor")) return false;
  const int rank = b.take_one({"1d", "2d", "3d", "4d", "5d"}) + 1;
  if (rank == 0 || !(b.take("shared::cluster") || b.take("shared::cta")) || !b.take("global") || !b.take("mbarrier::complete_tx::bytes")) return false;
  b.take("tile"), b.take_all_from("L2::");
  const auto plain = [&](size_t k, int slot) {
    b.address(slot, k);
    if (b.out.offset) b.fail("ptxi knows no offsets here");
    return b.out.detail[3];
  };
  b.out.detail[1] = plain(0, 0), b.out.detail[2] = plain(2, 2);
  if (plain(1, 1) != 8 || b.term(1).items.size() != 2) b.fail("expected [map, {coordinates}]");
  b.read_list(3, b.term(1).items[1], Type::s32, size_t(rank));
  b.out.detail[0] = uint32_t(rank), b.out.space = Space::shared;
  note_grain(b, 16);
  b.out.run = load_box;
  return true;
}

}  // namespace

void add_hopper(Families& f) { f.insert({{"mbarrier", build_mbarrier}, {"cp", build_bulk}}); }

}  // namespace ptxi
}  // namespace attune
