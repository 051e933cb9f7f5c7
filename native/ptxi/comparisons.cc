// setp, set, selp, slct: comparisons into predicates or registers, and choices by them.
#include "lanes.h"

namespace attune {
namespace ptxi {

namespace {

enum Compare : uint32_t { eq, ne, lt, le, gt, ge, lo, ls, hi, hs, equ, neu, ltu, leu, gtu, geu, num, nan };

template <typename T, uint32_t kCompare>
inline bool holds(T a, T b) {
  const bool unordered = a != a || b != b;
  switch (kCompare) {
    case eq: return a == b;
    case ne: return !unordered && a != b;
    case lt:
    case lo: return a < b;
    case le:
    case ls: return a <= b;
    case gt:
    case hi: return a > b;
    case ge:
    case hs: return a >= b;
    case equ: return unordered || a == b;
    case neu: return unordered || a != b;
    case ltu: return unordered || a < b;
    case leu: return unordered || a <= b;
    case gtu: return unordered || a > b;
    case geu: return unordered || a >= b;
    case num: return !unordered;
    default: return unordered;
  }
}

/// detail[1]: what the comparison is combined with (1 and, 2 or, 3 xor operand[3]); detail[2]: that operand is negated.
inline void conclude(Machine& x, const Instruction& i, Mask m, Mask result) {
  Mask c = i.detail[1] ? x.predicate(i.operand[3]) : 0;
  if (i.detail[2]) c = ~c;
  const auto with = [&](Mask r) { return i.detail[1] == 1 ? r & c : i.detail[1] == 2 ? r | c : i.detail[1] == 3 ? r ^ c : r; };
  assign(x.predicate(i.operand[0]), m, with(result));
  if (i.detail[0]) assign(x.predicate(i.operand[4]), m, with(~result));  // p|q: q is of the opposite comparison
}

template <typename T, uint32_t kCompare>
void setp(Machine& x, const Instruction& i, Mask m) {
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  conclude(x, i, m, collect([&](int l) { return holds<T, kCompare>(a[l], b[l]); }));
}
template <typename T, uint32_t kCompare>
void set(Machine& x, const Instruction& i, Mask m) {
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  Mask c = i.detail[1] ? x.predicate(i.operand[3]) : 0;
  if (i.detail[2]) c = ~c;
  each(m, [&](int l) {
    const bool r = holds<T, kCompare>(a[l], b[l]), other = c >> l & 1;
    const bool all = i.detail[1] == 1 ? r && other : i.detail[1] == 2 ? r || other : i.detail[1] == 3 ? r != other : r;
    d[l] = !all ? 0 : i.detail[0] ? 0x3f800000u : 0xffffffffu;
  });
}

template <template <typename, uint32_t> class Use, typename T>
Handler pick(uint32_t compare) {
  constexpr Handler table[] = {Use<T, 0>::run,  Use<T, 1>::run,  Use<T, 2>::run,  Use<T, 3>::run,  Use<T, 4>::run,  Use<T, 5>::run,
                               Use<T, 6>::run,  Use<T, 7>::run,  Use<T, 8>::run,  Use<T, 9>::run,  Use<T, 10>::run, Use<T, 11>::run,
                               Use<T, 12>::run, Use<T, 13>::run, Use<T, 14>::run, Use<T, 15>::run, Use<T, 16>::run, Use<T, 17>::run};
  return table[compare];
}
template <typename T, uint32_t kCompare>
struct Setp {
  static constexpr Handler run = setp<T, kCompare>;
};
template <typename T, uint32_t kCompare>
struct Set {
  static constexpr Handler run = set<T, kCompare>;
};

template <template <typename, uint32_t> class Use>
Handler of_type(Build& b, Type t, uint32_t compare) {
  switch (t) {
    case Type::b16:
    case Type::u16: return pick<Use, uint16_t>(compare);
    case Type::s16: return pick<Use, int16_t>(compare);
    case Type::b32:
    case Type::u32: return pick<Use, uint32_t>(compare);
    case Type::s32: return pick<Use, int32_t>(compare);
    case Type::b64:
    case Type::u64: return pick<Use, uint64_t>(compare);
    case Type::s64: return pick<Use, int64_t>(compare);
    case Type::f32: return pick<Use, float>(compare);
    case Type::f64: return pick<Use, double>(compare);
    default: b.fail("ptxi does not compare ." + std::string(name_of(t)));
  }
}

/// Comparison, combination and its operand, which stands behind a and b.
uint32_t read_comparison(Build& b) {
  const int compare = b.take_one({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  if (compare < 0) b.fail("expected a comparison");
  b.out.detail[1] = uint32_t(b.take_one({"and", "or", "xor"}) + 1);
  if (b.out.detail[1]) {
    b.read(3, 3, Type::pred);
    b.out.detail[2] = b.term(3).negated;
  }
  return uint32_t(compare);
}

bool build_setp(Build& b) {
  const Type t = b.type();
  const uint32_t compare = read_comparison(b);
  Term first = b.term(0), second;
  second.spelling = first.second;
  first.second = {};
  b.write(0, first, Type::pred);
  if (!second.spelling.empty()) b.write(4, second, Type::pred), b.out.detail[0] = 1;
  b.read(1, 1, t), b.read(2, 2, t);
  b.out.run = of_type<Setp>(b, t, compare);
  return true;
}
bool build_set(Build& b) {
  const Type d = b.type(0), t = b.type(1);
  const uint32_t compare = read_comparison(b);
  b.write(0, 0, d), b.read(1, 1, t), b.read(2, 2, t);
  b.out.detail[0] = d == Type::f32;
  b.out.run = of_type<Set>(b, t, compare);
  return bytes_of(d) == 4;
}

template <typename T>
void select(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  const Mask p = i.detail[0] ? ~x.predicate(i.operand[3]) : x.predicate(i.operand[3]);
  each(m, [&](int l) { d[l] = p >> l & 1 ? a[l] : b[l]; });
}
void select_predicate(Machine& x, const Instruction& i, Mask m) {
  const Mask p = i.detail[0] ? ~x.predicate(i.operand[3]) : x.predicate(i.operand[3]);
  assign(x.predicate(i.operand[0]), m, (x.predicate(i.operand[1]) & p) | (x.predicate(i.operand[2]) & ~p));
}
bool build_selp(Build& b) {
  const Type t = b.type();
  operands(b, t, 2);
  b.read(3, 3, Type::pred);
  b.out.detail[0] = b.term(3).negated;
  b.out.unset = Unset::chosen;
  b.out.run = t == Type::pred ? select_predicate : bytes_of(t) == 2 ? select<uint16_t> : bytes_of(t) == 4 ? select<uint32_t> : select<uint64_t>;
  return true;
}

/// d = c >= 0 ? a : b
template <typename T, typename C>
void choose(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  const C* c = x.lanes<C>(i.operand[3]);
  each(m, [&](int l) { d[l] = c[l] >= 0 ? a[l] : b[l]; });
}
bool build_slct(Build& b) {
  const Type t = b.type(0), c = b.type(1);
  if (c != Type::s32 && c != Type::f32) return false;
  operands(b, t, 2);
  b.read(3, 3, c);
  if (bytes_of(t) == 4) b.out.run = c == Type::s32 ? choose<uint32_t, int32_t> : choose<uint32_t, float>;
  else b.out.run = c == Type::s32 ? choose<uint64_t, int32_t> : choose<uint64_t, float>;
  return bytes_of(t) >= 4;
}

}  // namespace

void add_comparisons(Families& f) { f.insert({{"setp", build_setp}, {"set", build_set}, {"selp", build_selp}, {"slct", build_slct}}); }

}  // namespace ptxi
}  // namespace attune
