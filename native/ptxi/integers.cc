// Integer arithmetic: add, sub, mul, mad, div, rem, min, max, abs, neg, sad, and the chains that carry (add.cc, addc).
#include <limits>

#include "lanes.h"

namespace attune {
namespace ptxi {

namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;
template <typename T>
struct Twice;
template <>
struct Twice<int16_t> {
  using type = int32_t;
};
template <>
struct Twice<uint16_t> {
  using type = uint32_t;
};
template <>
struct Twice<int32_t> {
  using type = int64_t;
};
template <>
struct Twice<uint32_t> {
  using type = uint64_t;
};
template <>
struct Twice<int64_t> {
  using type = __int128;
};
template <>
struct Twice<uint64_t> {
  using type = unsigned __int128;
};
template <typename T>
using Wide = typename Twice<T>::type;

// Overflow wraps around: computed without a sign, in a type that is not promoted to int.
template <typename T>
using Ring = std::conditional_t<(sizeof(T) < 4), uint32_t, Unsigned<T>>;

struct Add {
  template <typename T>
  static T of(T a, T b) {
    return T(Ring<T>(a) + Ring<T>(b));
  }
};
struct Sub {
  template <typename T>
  static T of(T a, T b) {
    return T(Ring<T>(a) - Ring<T>(b));
  }
};
struct AddSat {
  static int32_t of(int32_t a, int32_t b) { return int32_t(std::min<int64_t>(std::max<int64_t>(int64_t(a) + b, INT32_MIN), INT32_MAX)); }
};
struct SubSat {
  static int32_t of(int32_t a, int32_t b) { return int32_t(std::min<int64_t>(std::max<int64_t>(int64_t(a) - b, INT32_MIN), INT32_MAX)); }
};
struct MulLow {
  template <typename T>
  static T of(T a, T b) {
    return T(Ring<T>(a) * Ring<T>(b));
  }
};
struct MulHigh {
  template <typename T>
  static T of(T a, T b) {
    return T((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T)));
  }
};
struct MulWide {
  template <typename T>
  static Wide<T> of(T a, T b) {
    return Wide<T>(a) * Wide<T>(b);
  }
};
struct MadLow {
  template <typename T>
  static T of(T a, T b, T c) {
    return T(Ring<T>(a) * Ring<T>(b) + Ring<T>(c));
  }
};
struct MadHigh {
  template <typename T>
  static T of(T a, T b, T c) {
    return Add::of(MulHigh::of(a, b), c);
  }
};
struct MadWide {
  template <typename T>
  static Wide<T> of(T a, T b, Wide<T> c) {
    return Add::of(MulWide::of(a, b), c);
  }
};
struct Min {
  template <typename T>
  static T of(T a, T b) {
    return a < b ? a : b;
  }
};
struct Max {
  template <typename T>
  static T of(T a, T b) {
    return a > b ? a : b;
  }
};
struct Abs {
  template <typename T>
  static T of(T a) {
    return a < 0 ? T(Ring<T>(0) - Ring<T>(a)) : a;
  }
};
struct Neg {
  template <typename T>
  static T of(T a) {
    return T(Ring<T>(0) - Ring<T>(a));
  }
};
struct Sad {
  template <typename T>
  static T of(T a, T b, T c) {
    return Add::of(c, a < b ? Sub::of(b, a) : Sub::of(a, b));
  }
};
struct Div {
  template <typename T>
  static T of(T a, T b) {
    return b == T(-1) && std::is_signed<T>::value ? T(Ring<T>(0) - Ring<T>(a)) : T(a / b);
  }
};
struct Rem {
  template <typename T>
  static T of(T a, T b) {
    return b == T(-1) && std::is_signed<T>::value ? T(0) : T(a % b);
  }
};

/// Division by zero gives what the hardware pleases; here it is an error.
template <typename Op, typename T>
void divide(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    if (b[l] == 0) x.fail(i, l, "an integer division by zero");
    d[l] = Op::of(a[l], b[l]);
  }
}

#define ATTUNE_BY_INTEGER(handler, ...)                                                 \
  [](Build& b, Type t) -> Handler {                                                     \
    switch (t) {                                                                        \
      case Type::u16: return handler<__VA_ARGS__, uint16_t>;                            \
      case Type::s16: return handler<__VA_ARGS__, int16_t>;                             \
      case Type::u32: return handler<__VA_ARGS__, uint32_t>;                            \
      case Type::s32: return handler<__VA_ARGS__, int32_t>;                             \
      case Type::u64: return handler<__VA_ARGS__, uint64_t>;                            \
      case Type::s64: return handler<__VA_ARGS__, int64_t>;                             \
      default: b.fail("ptxi does not know this opcode of ." + std::string(name_of(t))); \
    }                                                                                   \
  }

template <typename Op, typename T>
void plain1(Machine& x, const Instruction& i, Mask m) {
  unary<Op, T>(x, i, m);
}
template <typename Op, typename T>
void plain2(Machine& x, const Instruction& i, Mask m) {
  binary<Op, T>(x, i, m);
}
template <typename Op, typename T>
void plain3(Machine& x, const Instruction& i, Mask m) {
  ternary<Op, T>(x, i, m);
}

template <typename Op>
bool build2(Build& b) {
  if (!is_integer(b.type())) return false;
  operands(b, b.type(), 2);
  b.out.run = ATTUNE_BY_INTEGER(plain2, Op)(b, b.type());
  return true;
}

/// d = a + b (+ carry); kSub: a - b (- borrow). .cc sets the carry, which for a subtraction is "no borrow".
template <typename T, bool kSub>
void add_with_carry(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  const bool takes = i.detail[0] & 1, gives = i.detail[0] & 2;
  Mask carry = x.warp->carry;
  for (Mask rest = m; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const T other = kSub ? T(~b[l]) : b[l];
    const unsigned __int128 sum = (unsigned __int128)(a[l]) + other + (takes ? carry >> l & 1 : kSub ? 1 : 0);
    d[l] = T(sum);
    if (gives) carry = (carry & ~(1u << l)) | Mask(sum >> (8 * sizeof(T)) & 1) << l;
  }
  x.warp->carry = carry;
}

template <bool kSub, bool kTakes>
bool build_carry(Build& b) {
  const bool gives = b.take("cc");
  if (!is_integer(b.type()) || (!kTakes && !gives)) return false;
  operands(b, b.type(), 2);
  b.out.detail[0] = (kTakes ? 1 : 0) | (gives ? 2 : 0);
  b.out.run = bytes_of(b.type()) == 8 ? add_with_carry<uint64_t, kSub> : add_with_carry<uint32_t, kSub>;
  return true;
}

/// mad{c}.{lo,hi}{.cc}: the product's half plus c plus the carry.
template <typename T>
void mad_with_carry(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]), *c = x.lanes<T>(i.operand[3]);
  const bool takes = i.detail[0] & 1, gives = i.detail[0] & 2, high = i.detail[0] & 4;
  using U = Unsigned<T>;
  Mask carry = x.warp->carry;
  for (Mask rest = m; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const U half = U(high ? MulHigh::of(a[l], b[l]) : MulLow::of(a[l], b[l]));
    const unsigned __int128 sum = (unsigned __int128)(half) + U(c[l]) + (takes ? carry >> l & 1 : 0);
    d[l] = T(sum);
    if (gives) carry = (carry & ~(1u << l)) | Mask(sum >> (8 * sizeof(T)) & 1) << l;
  }
  x.warp->carry = carry;
}

template <bool kTakes>
bool build_mad(Build& b) {
  if (!is_integer(b.type())) return false;
  const Type t = b.type();
  const bool gives = b.take("cc"), high = b.take("hi"), wide = b.take("wide");
  if (!high && !wide) b.take("lo");
  if (wide) {
    if (gives || kTakes) return false;
    const Type twice = t == Type::s16 ? Type::s32 : t == Type::u16 ? Type::u32 : t == Type::s32 ? Type::s64 : Type::u64;
    b.write(0, 0, twice), b.read(1, 1, t), b.read(2, 2, t), b.read(3, 3, twice);
    b.out.run = t == Type::s16   ? ternary<MadWide, int32_t, int16_t, int16_t, int32_t>
                : t == Type::u16 ? ternary<MadWide, uint32_t, uint16_t, uint16_t, uint32_t>
                : t == Type::s32 ? ternary<MadWide, int64_t, int32_t, int32_t, int64_t>
                                 : ternary<MadWide, uint64_t, uint32_t, uint32_t, uint64_t>;
    return bytes_of(t) <= 4;
  }
  operands(b, t, 3);
  if (gives || kTakes) {
    b.out.detail[0] = (kTakes ? 1 : 0) | (gives ? 2 : 0) | (high ? 4 : 0);
    b.out.run = t == Type::s32   ? mad_with_carry<int32_t>
                : t == Type::u32 ? mad_with_carry<uint32_t>
                : t == Type::s64 ? mad_with_carry<int64_t>
                                 : mad_with_carry<uint64_t>;
  } else b.out.run = high ? ATTUNE_BY_INTEGER(plain3, MadHigh)(b, t) : ATTUNE_BY_INTEGER(plain3, MadLow)(b, t);
  return true;
}

bool build_mul(Build& b) {
  if (!is_integer(b.type())) return false;
  const Type t = b.type();
  if (b.take("wide")) {
    const Type twice = t == Type::s16 ? Type::s32 : t == Type::u16 ? Type::u32 : t == Type::s32 ? Type::s64 : Type::u64;
    b.write(0, 0, twice), b.read(1, 1, t), b.read(2, 2, t);
    b.out.run = t == Type::s16   ? binary<MulWide, int32_t, int16_t>
                : t == Type::u16 ? binary<MulWide, uint32_t, uint16_t>
                : t == Type::s32 ? binary<MulWide, int64_t, int32_t>
                                 : binary<MulWide, uint64_t, uint32_t>;
    return bytes_of(t) <= 4;
  }
  operands(b, t, 2);
  b.out.run = b.take("hi") ? ATTUNE_BY_INTEGER(plain2, MulHigh)(b, t) : ATTUNE_BY_INTEGER(plain2, MulLow)(b, t);
  b.take("lo");
  return true;
}

template <bool kSub>
bool build_add(Build& b) {
  if (!is_integer(b.type())) return false;
  if (b.take("cc")) return build_carry<kSub, false>(b);
  if (b.take("sat")) {
    if (b.type() != Type::s32) return false;
    operands(b, b.type(), 2);
    b.out.run = kSub ? binary<SubSat, int32_t> : binary<AddSat, int32_t>;
    return true;
  }
  return build2<std::conditional_t<kSub, Sub, Add>>(b);
}

template <typename Op>
bool build_divide(Build& b) {
  if (!is_integer(b.type())) return false;
  operands(b, b.type(), 2);
  b.out.run = ATTUNE_BY_INTEGER(divide, Op)(b, b.type());
  return true;
}

template <typename Op>
bool build1(Build& b) {
  if (!is_integer(b.type())) return false;
  operands(b, b.type(), 1);
  b.out.run = b.type() == Type::s16 ? unary<Op, int16_t> : b.type() == Type::s32 ? unary<Op, int32_t> : unary<Op, int64_t>;
  return is_signed(b.type());
}

bool build_sad(Build& b) {
  operands(b, b.type(), 3);
  b.out.run = ATTUNE_BY_INTEGER(plain3, Sad)(b, b.type());
  return true;
}

}  // namespace

void add_integers(Families& f) {
  f.insert({{"add", build_add<false>}, {"sub", build_add<true>}, {"addc", build_carry<false, true>}, {"subc", build_carry<true, true>}});
  f.insert({{"mul", build_mul}, {"mad", build_mad<false>}, {"madc", build_mad<true>}, {"sad", build_sad}});
  f.insert({{"div", build_divide<Div>}, {"rem", build_divide<Rem>}, {"min", build2<Min>}, {"max", build2<Max>}, {"abs", build1<Abs>}, {"neg", build1<Neg>}});
}

}  // namespace ptxi
}  // namespace attune
