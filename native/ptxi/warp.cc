// Exchanges within a warp: shfl, vote, match, redux, elect, activemask. All but the last run once every lane of their mask stands at them.
#include "lanes.h"

namespace attune {
namespace ptxi {

namespace {

enum Mode : uint32_t { up, down, bfly, idx };

/// operand: 0 d, 1 a, 2 b, 3 c, 4 p, 7 mask.
void shuffle(Machine& x, const Instruction& i, Mask m) {
  uint32_t *d = x.lanes<uint32_t>(i.operand[0]), from[32];
  std::memcpy(from, x.lanes<uint32_t>(i.operand[1]), sizeof from);
  const uint32_t *b = x.lanes<uint32_t>(i.operand[2]), *c = x.lanes<uint32_t>(i.operand[3]);
  const Mask known = x.warp->set[i.detail[1]];
  Mask in_range = 0;
  for (Mask rest = m; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest), segment = int(c[l] >> 8 & 31), clamp = int(c[l] & 31), n = int(b[l] & 31);
    const int most = (l & segment) | (clamp & ~segment);
    int source = 0;
    bool p = false;
    switch (i.detail[0]) {
      case up: source = l - n, p = source >= most; break;
      case down: source = l + n, p = source <= most; break;
      case bfly: source = l ^ n, p = source <= most; break;
      default: source = (l & segment) | (n & ~segment), p = source <= most; break;
    }
    if (!p) source = l;
    if (!(m >> source & 1)) x.fail(i, l, "reads lane " + std::to_string(source) + ", which takes no part");
    if (!(known >> source & 1)) x.fail(i, l, "reads a register of lane " + std::to_string(source) + " that has not been written");
    in_range |= Mask(p) << l;
    d[l] = from[source];
  }
  if (i.detail[2]) assign(x.predicate(i.operand[4]), m, in_range);
}
bool build_shfl(Build& b) {
  if (!b.take("sync") || b.type() != Type::b32) return false;
  const int mode = b.take_one({"up", "down", "bfly", "idx"});
  if (mode < 0) return false;
  Term first = b.term(0), second;
  second.spelling = first.second, first.second = {};
  b.write(0, first, Type::b32);
  if (!second.spelling.empty()) b.write(4, second, Type::pred), b.out.detail[2] = 1;
  const Place a = b.names.place(b.term(1), Type::b32);  // not among the reads: lanes that nobody reads may lack it
  if (a.bytes != 4 || a.predicate) return false;
  b.out.operand[1] = a.at, b.out.detail[1] = a.index;
  b.read(2, 2, Type::b32), b.read(3, 3, Type::b32), b.read(7, 4, Type::b32);
  b.out.detail[0] = uint32_t(mode), b.out.flow = Flow::together;
  b.out.run = shuffle;
  return true;
}

/// detail[0]: 0 all, 1 any, 2 uni, 3 ballot.
void vote(Machine& x, const Instruction& i, Mask m) {
  const Mask p = (i.detail[1] ? ~x.predicate(i.operand[1]) : x.predicate(i.operand[1])) & m;
  if (i.detail[0] == 3) {
    uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
    return each(m, [&](int l) { d[l] = p; });
  }
  const bool holds = i.detail[0] == 0 ? p == m : i.detail[0] == 1 ? p != 0 : p == m || p == 0;
  assign(x.predicate(i.operand[0]), m, holds ? kAllLanes : 0);
}
bool build_vote(Build& b) {
  if (!b.take("sync")) return false;
  const int op = b.take_one({"all", "any", "uni", "ballot"});
  if (op < 0) return false;
  b.write(0, 0, op == 3 ? Type::b32 : Type::pred), b.read(1, 1, Type::pred), b.read(7, 2, Type::b32);
  b.out.detail[0] = uint32_t(op), b.out.detail[1] = b.term(1).negated, b.out.flow = Flow::together;
  b.out.run = vote;
  return true;
}

template <typename T>
void match(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  Mask agrees = kAllLanes;
  for (Mask rest = m; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const Mask same = m & collect([&](int k) { return a[k] == a[l]; });
    if (i.detail[0]) d[l] = same;
    else if (same != m) agrees = 0;
  }
  if (i.detail[0]) return;
  each(m, [&](int l) { d[l] = agrees ? m : 0; });
  if (i.detail[2]) assign(x.predicate(i.operand[4]), m, agrees);
}
bool build_match(Build& b) {
  if (!b.take("sync")) return false;
  b.out.detail[0] = b.take("any");
  if (!b.out.detail[0] && !b.take("all")) return false;
  Term first = b.term(0), second;
  second.spelling = first.second, first.second = {};
  b.write(0, first, Type::b32);
  if (!second.spelling.empty()) b.write(4, second, Type::pred), b.out.detail[2] = 1;
  b.read(1, 1, b.type()), b.read(7, 2, Type::b32);
  b.out.flow = Flow::together;
  b.out.run = bytes_of(b.type()) == 4 ? match<uint32_t> : match<uint64_t>;
  return true;
}

template <typename T>
void reduce(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  T r = a[__builtin_ctz(m)];
  for (Mask rest = m & (m - 1); rest; rest &= rest - 1) {
    const T v = a[__builtin_ctz(rest)];
    switch (i.detail[0]) {
      case 0: r = T(uint32_t(r) + uint32_t(v)); break;
      case 1: r = v < r ? v : r; break;
      case 2: r = v > r ? v : r; break;
      case 3: r = T(r & v); break;
      case 4: r = T(r | v); break;
      default: r = T(r ^ v); break;
    }
  }
  each(m, [&](int l) { d[l] = r; });
}
bool build_redux(Build& b) {
  const int op = b.take_one({"add", "min", "max", "and", "or", "xor"});
  if (!b.take("sync") || op < 0 || is_float(b.type()) || bytes_of(b.type()) != 4) return false;
  b.write(0, 0, b.type()), b.read(1, 1, b.type()), b.read(7, 2, Type::b32);
  b.out.detail[0] = uint32_t(op), b.out.flow = Flow::together;
  b.out.run = b.type() == Type::s32 ? reduce<int32_t> : reduce<uint32_t>;
  return true;
}

/// The lowest lane of the mask is elected.
void elect(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  each(m, [&](int l) { d[l] = uint32_t(__builtin_ctz(m)); });
  assign(x.predicate(i.operand[4]), m, m & (~m + 1));
}
bool build_elect(Build& b) {
  if (!b.take("sync")) return false;
  Term first = b.term(0), second;
  second.spelling = first.second, first.second = {};
  b.write(0, first, Type::b32), b.write(4, second, Type::pred), b.read(7, 1, Type::b32);
  b.out.flow = Flow::together;
  b.out.run = elect;
  return true;
}

void active(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  each(m, [&](int l) { d[l] = m; });
}
bool build_activemask(Build& b) {
  b.write(0, 0, Type::b32);
  b.out.run = active;
  return true;
}

}  // namespace

void add_warp(Families& f) {
  f.insert(
      {{"shfl", build_shfl}, {"vote", build_vote}, {"match", build_match}, {"redux", build_redux}, {"elect", build_elect}, {"activemask", build_activemask}});
}

}  // namespace ptxi
}  // namespace attune
