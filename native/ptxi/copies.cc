// cp.async: copies from global to shared memory that land some time between issue and wait. From issue to wait the bytes belong to the copy: any use is an
// error.
#include "hopper.h"
#include "memory.h"

namespace attune {
namespace ptxi {

namespace {

/// operand: 0 to, 1 from, 2 bytes, 3 valid bytes if detail[0] is 1, a predicate "copy nothing" if it is 2; detail[1], [2]: widths of the two addresses.
void issue(Machine& x, const Instruction& i, Mask m) {
  Warp& w = *x.warp;
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const uint64_t to = (i.detail[1] == 8 ? x.lanes<uint64_t>(i.operand[0])[l] : x.lanes<uint32_t>(i.operand[0])[l]) + uint64_t(i.offset);
    const uint64_t from = x.lanes<uint64_t>(i.operand[1])[l] + uint64_t(int64_t(int32_t(i.detail[2])));
    const uint32_t bytes = i.detail[3];
    uint32_t valid = bytes;
    if (i.detail[0] == 1) valid = x.lanes<uint32_t>(i.operand[3])[l];
    if (i.detail[0] == 2) valid = x.predicate(i.operand[3]) >> l & 1 ? 0 : bytes;
    if (valid > bytes) x.fail(i, l, "a copy of " + std::to_string(bytes) + " bytes with " + std::to_string(valid) + " valid ones");
    const uint64_t size = uint64_t(x.entry.static_shared + x.start.shared_bytes);
    if (to % bytes) x.fail(i, l, "a misaligned copy to byte " + std::to_string(to) + " of shared memory");
    if (to + bytes > size) x.fail(i, l, "a copy to byte " + std::to_string(to) + " of shared memory, which has " + std::to_string(size));
    const unsigned char* source = valid ? x.global(i, l, from, valid, bytes, false) : nullptr;
    x.shadow.begin_copy(i, l, uint32_t(to), bytes);
    const bool early = x.options.copies == Arrival::early || (x.options.copies == Arrival::random && x.random() % 2);
    unsigned char* at = x.shared.data() + to;
    if (early) {
      if (valid) std::memcpy(at, source, valid);
      std::memset(at + valid, 0, bytes - valid);
    } else std::memset(at, 0xFF, bytes);
    static const unsigned char kNowhere = 0;
    w.copies.push_back({l, w.open_group[l], uint32_t(to), bytes, valid, early ? nullptr : source ? source : &kNowhere, &i});
  }
}

void commit(Machine& x, const Instruction&, Mask m) {
  for (; m; m &= m - 1) x.warp->open_group[__builtin_ctz(m)]++;
}
void wait_group(Machine& x, const Instruction& i, Mask m) { x.land(m, i.detail[0]); }
void wait_all(Machine& x, const Instruction& i, Mask m) {
  commit(x, i, m);
  x.land(m, 0);
}
/// The arrival happens when the lane's copies have landed; they land here.
void arrive_on_copies(Machine& x, const Instruction& i, Mask m) {
  commit(x, i, m);
  x.land(m, 0);
  x.hopper->arrive_for_copies(i, m);
}

bool build(Build& b) {
  if (!b.take("async") || b.take("bulk") || b.take("reduce")) return false;
  if (b.take("commit_group")) b.out.run = commit;
  else if (b.take("wait_group")) b.out.detail[0] = uint32_t(b.literal(0)), b.out.run = wait_group;
  else if (b.take("wait_all")) b.out.run = wait_all;
  else if (b.take("mbarrier")) {
    b.take("arrive"), b.take("shared"), b.take("shared::cta");
    b.out.detail[0] = b.take("noinc");
    b.address(0, 0);
    b.out.run = arrive_on_copies;
  } else {
    b.take("ca"), b.take("cg"), b.take("global"), b.take_all_from("L2::");
    if (!b.take("shared") && !b.take("shared::cta")) return false;
    b.address(1, 1);
    if (b.out.detail[3] != 8) b.fail("a global address has 64 bits");
    b.out.detail[2] = uint32_t(b.out.offset);
    b.address(0, 0);
    b.out.detail[1] = b.out.detail[3];
    const uint32_t bytes = uint32_t(b.literal(2));
    if (bytes != 4 && bytes != 8 && bytes != 16) b.fail("a copy of 4, 8 or 16 bytes");
    b.out.detail[3] = bytes;
    if (b.operands() > 3) {
      const bool number = b.term(3).kind == Term::number;
      const bool predicate = !number && b.names.place(b.term(3), Type::none).predicate;
      if (number || predicate || b.bytes(3) == 4) b.read(3, 3, predicate ? Type::pred : Type::u32), b.out.detail[0] = predicate ? 2 : 1;
    }
    b.out.space = Space::shared;
    note_grain(b, int(bytes));
    b.out.run = issue;
  }
  return true;
}

}  // namespace

void add_copies(Families& f) { f.insert({{"cp", build}}); }

}  // namespace ptxi
}  // namespace attune
