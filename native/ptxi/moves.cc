// mov, cvta and isspacep.
#include "memory.h"

namespace attune {
namespace ptxi {

namespace {

template <typename T>
void copy(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  each(m, [&](int l) { d[l] = a[l]; });
}
void copy_mask(Machine& x, const Instruction& i, Mask m) { assign(x.predicate(i.operand[0]), m, x.predicate(i.operand[1])); }

/// One wide register from several narrow ones, the first in the lowest bits.
template <typename Whole, typename Part>
void join(Machine& x, const Instruction& i, Mask m) {
  const Item* parts = x.entry.lists.data() + i.operand[1];
  Whole* d = x.lanes<Whole>(i.operand[0]);
  each(m, [&](int l) {
    Whole v = 0;
    for (size_t k = 0; k < sizeof(Whole) / sizeof(Part); k++) v = Whole(v | Whole(x.lanes<Part>(parts[k].at)[l]) << (8 * sizeof(Part) * k));
    d[l] = v;
  });
}
template <typename Whole, typename Part>
void split(Machine& x, const Instruction& i, Mask m) {
  const Item* parts = x.entry.lists.data() + i.operand[0];
  const Whole* a = x.lanes<Whole>(i.operand[1]);
  each(m, [&](int l) {
    const Whole v = a[l];
    for (size_t k = 0; k < sizeof(Whole) / sizeof(Part); k++) x.lanes<Part>(parts[k].at)[l] = Part(v >> (8 * sizeof(Part) * k));
  });
}

bool build_mov(Build& b) {
  const Type t = b.type();
  const bool joins = b.term(1).kind == Term::vector, splits = b.term(0).kind == Term::vector;
  if (!joins && !splits) {
    operands(b, t, 1);
    b.out.run = t == Type::pred ? copy_mask : bytes_of(t) == 2 ? copy<uint16_t> : bytes_of(t) == 4 ? copy<uint32_t> : copy<uint64_t>;
    return true;
  }
  const size_t count = b.term(joins ? 1 : 0).items.size();
  const int part = bytes_of(t) / int(count);
  const Type narrow = part == 2 ? Type::b16 : Type::b32;
  if (joins) b.write(0, 0, t), b.read_list(1, 1, narrow, count);
  else b.write_list(0, 0, narrow, count), b.read(1, 1, t);
  if (bytes_of(t) == 4 && part == 2) b.out.run = joins ? join<uint32_t, uint16_t> : split<uint32_t, uint16_t>;
  else if (bytes_of(t) == 8 && part == 2) b.out.run = joins ? join<uint64_t, uint16_t> : split<uint64_t, uint16_t>;
  else if (bytes_of(t) == 8 && part == 4) b.out.run = joins ? join<uint64_t, uint32_t> : split<uint64_t, uint32_t>;
  else return false;
  return true;
}

uint64_t window_of(Space space) {
  return space == Space::shared ? kSharedWindow : space == Space::local ? kLocalWindow : space == Space::param ? kParamWindow : 0;
}
/// cvta.to.space: from the generic space; cvta.space: into it. An address of another space becomes one that no access accepts.
template <typename T>
void convert_address(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  const uint64_t window = window_of(i.space);
  const bool to = i.detail[0];
  each(m, [&](int l) {
    const uint64_t v = a[l];
    if (window == 0) d[l] = T(v);
    else if (!to) d[l] = T(v | window);
    else d[l] = T((v & ~(kWindow - 1)) == window ? v & (kWindow - 1) : v | kWindow);
  });
}
bool build_cvta(Build& b) {
  b.out.detail[0] = b.take("to");
  b.out.space = take_space(b, Space::generic);
  operands(b, b.type(), 1);
  b.out.run = convert_address<uint64_t>;
  return bytes_of(b.type()) == 8;
}

void is_space(Machine& x, const Instruction& i, Mask m) {
  const uint64_t* a = x.lanes<uint64_t>(i.operand[1]);
  const uint64_t window = window_of(i.space);
  assign(x.predicate(i.operand[0]), m, collect([&](int l) {
           const uint64_t v = a[l] & ~(kWindow - 1);
           return window ? v == window : v != kSharedWindow && v != kLocalWindow && v != kParamWindow;
         }));
}
bool build_isspacep(Build& b) {
  b.out.space = take_space(b, Space::generic);
  b.write(0, 0, Type::pred), b.read(1, 1, Type::u64);
  b.out.run = is_space;
  return true;
}

}  // namespace

void add_moves(Families& f) { f.insert({{"mov", build_mov}, {"cvta", build_cvta}, {"isspacep", build_isspacep}}); }

}  // namespace ptxi
}  // namespace attune
