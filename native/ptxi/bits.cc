// Bits: and, or, xor, not, cnot, lop3, shl, shr, shf, prmt, bfe, bfi, bfind, bmsk, szext, popc, clz, brev. Of predicates too, which are masks.
#include "lanes.h"

namespace attune {
namespace ptxi {

namespace {

struct And {
  template <typename T>
  static T of(T a, T b) {
    return T(a & b);
  }
};
struct Or {
  template <typename T>
  static T of(T a, T b) {
    return T(a | b);
  }
};
struct Xor {
  template <typename T>
  static T of(T a, T b) {
    return T(a ^ b);
  }
};
struct Not {
  template <typename T>
  static T of(T a) {
    return T(~a);
  }
};
struct Cnot {
  template <typename T>
  static T of(T a) {
    return T(a == 0);
  }
};
struct Shl {  // amounts are clamped, not taken modulo the width
  template <typename T>
  static T of(T a, uint32_t n) {
    return n >= 8 * sizeof(T) ? T(0) : T(a << n);
  }
};
struct Shr {
  template <typename T>
  static T of(T a, uint32_t n) {
    if (n >= 8 * sizeof(T)) return a < 0 ? T(-1) : T(0);
    return T(a >> n);
  }
};
struct Popc {
  template <typename T>
  static uint32_t of(T a) {
    return uint32_t(__builtin_popcountll(a));
  }
};
struct Clz {
  static uint32_t of(uint32_t a) { return a ? uint32_t(__builtin_clz(a)) : 32; }
  static uint32_t of(uint64_t a) { return a ? uint32_t(__builtin_clzll(a)) : 64; }
};
struct Brev {
  template <typename T>
  static T of(T a) {
    T r = 0;
    for (size_t k = 0; k < 8 * sizeof(T); k++) r |= T(a >> k & 1) << (8 * sizeof(T) - 1 - k);
    return r;
  }
};
struct Lop3 {
  static uint32_t of(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t r = 0;
    for (uint32_t k = 0; k < 8; k++)
      if (table >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
  }
};

template <typename Op>
Handler by_width2(Type t) {
  return bytes_of(t) == 2 ? binary<Op, uint16_t> : bytes_of(t) == 4 ? binary<Op, uint32_t> : binary<Op, uint64_t>;
}
template <typename Op>
Handler by_width1(Type t) {
  return bytes_of(t) == 2 ? unary<Op, uint16_t> : bytes_of(t) == 4 ? unary<Op, uint32_t> : unary<Op, uint64_t>;
}

template <typename Op>
void masks(Machine& x, const Instruction& i, Mask m) {
  assign(x.predicate(i.operand[0]), m, Op::of(x.predicate(i.operand[1]), x.predicate(i.operand[2])));
}
void mask_not(Machine& x, const Instruction& i, Mask m) { assign(x.predicate(i.operand[0]), m, ~x.predicate(i.operand[1])); }

template <typename Op>
bool build_logic(Build& b) {
  operands(b, b.type(), 2);
  b.out.run = b.type() == Type::pred ? masks<Op> : by_width2<Op>(b.type());
  if (b.type() == Type::pred && !std::is_same<Op, Xor>::value) b.out.unset = std::is_same<Op, And>::value ? Unset::conjunction : Unset::disjunction;
  return b.type() == Type::pred || is_bits(b.type());
}
bool build_not(Build& b) {
  operands(b, b.type(), 1);
  b.out.run = b.type() == Type::pred ? mask_not : by_width1<Not>(b.type());
  return b.type() == Type::pred || is_bits(b.type());
}
bool build_cnot(Build& b) {
  operands(b, b.type(), 1);
  b.out.run = by_width1<Cnot>(b.type());
  return true;
}

bool build_shl(Build& b) {
  const Type t = b.type();
  b.write(0, 0, t), b.read(1, 1, t), b.read(2, 2, Type::u32);
  b.out.run = bytes_of(t) == 2   ? binary<Shl, uint16_t, uint16_t, uint32_t>
              : bytes_of(t) == 4 ? binary<Shl, uint32_t, uint32_t, uint32_t>
                                 : binary<Shl, uint64_t, uint64_t, uint32_t>;
  return true;
}
bool build_shr(Build& b) {
  const Type t = b.type();
  b.write(0, 0, t), b.read(1, 1, t), b.read(2, 2, Type::u32);
  if (is_signed(t))
    b.out.run = bytes_of(t) == 2   ? binary<Shr, int16_t, int16_t, uint32_t>
                : bytes_of(t) == 4 ? binary<Shr, int32_t, int32_t, uint32_t>
                                   : binary<Shr, int64_t, int64_t, uint32_t>;
  else
    b.out.run = bytes_of(t) == 2   ? binary<Shr, uint16_t, uint16_t, uint32_t>
                : bytes_of(t) == 4 ? binary<Shr, uint32_t, uint32_t, uint32_t>
                                   : binary<Shr, uint64_t, uint64_t, uint32_t>;
  return true;
}

/// The upper (left) or lower (right) word of b:a shifted by c, which is clamped to 32 or taken modulo 32.
template <bool kLeft>
void funnel(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const uint32_t *a = x.lanes<uint32_t>(i.operand[1]), *b = x.lanes<uint32_t>(i.operand[2]), *c = x.lanes<uint32_t>(i.operand[3]);
  const bool clamp = i.detail[0];
  each(m, [&](int l) {
    const uint32_t n = clamp ? (c[l] > 32 ? 32 : c[l]) : c[l] & 31;
    const uint64_t pair = uint64_t(b[l]) << 32 | a[l];
    d[l] = kLeft ? uint32_t((pair << n) >> 32) : uint32_t(pair >> n);
  });
}
bool build_shf(Build& b) {
  operands(b, Type::b32, 3);
  b.out.detail[0] = b.take("clamp");
  if (!b.out.detail[0] && !b.take("wrap")) return false;
  b.out.run = b.take("l") ? funnel<true> : funnel<false>;
  b.take("r");
  return b.type() == Type::b32;
}

void permute(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const uint32_t *a = x.lanes<uint32_t>(i.operand[1]), *b = x.lanes<uint32_t>(i.operand[2]), *c = x.lanes<uint32_t>(i.operand[3]);
  each(m, [&](int l) {
    const uint64_t pair = uint64_t(b[l]) << 32 | a[l];
    const uint32_t n = c[l] & 3;
    uint32_t r = 0;
    for (uint32_t k = 0; k < 4; k++) {
      uint32_t pick = 0;
      switch (i.detail[0]) {
        case 0: pick = c[l] >> 4 * k & 15; break;      // each byte by a nibble
        case 1: pick = (n + k) & 7; break;             // f4e: forward
        case 2: pick = (n - k) & 7; break;             // b4e: backward
        case 3: pick = n; break;                       // rc8: one byte everywhere
        case 4: pick = k > n ? k : n; break;           // ecl
        case 5: pick = k < n ? k : n; break;           // ecr
        default: pick = (n & 1) * 2 + (k & 1); break;  // rc16: one half twice
      }
      uint32_t byte = uint32_t(pair >> 8 * (pick & 7)) & 0xff;
      if (pick & 8) byte = byte & 0x80 ? 0xff : 0;  // the sign, all over the byte
      r |= byte << 8 * k;
    }
    d[l] = r;
  });
}
bool build_prmt(Build& b) {
  operands(b, Type::b32, 3);
  b.out.detail[0] = uint32_t(b.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1);
  b.out.run = permute;
  return b.type() == Type::b32;
}

void lop3(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const uint32_t *a = x.lanes<uint32_t>(i.operand[1]), *b = x.lanes<uint32_t>(i.operand[2]), *c = x.lanes<uint32_t>(i.operand[3]);
  each(m, [&](int l) { d[l] = Lop3::of(a[l], b[l], c[l], i.detail[0]); });
}
bool build_lop3(Build& b) {
  operands(b, Type::b32, 3);
  b.out.detail[0] = uint32_t(b.literal(4));
  b.out.run = lop3;
  return b.type() == Type::b32;
}

/// Field of `n` bits from bit `at`; a signed one is filled with its highest bit.
template <typename T>
void extract(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  const uint32_t *at = x.lanes<uint32_t>(i.operand[2]), *n = x.lanes<uint32_t>(i.operand[3]);
  constexpr uint32_t kBits = 8 * sizeof(T);
  each(m, [&](int l) {
    const uint32_t p = at[l] & 0xff, length = n[l] & 0xff;
    if (length == 0) {
      d[l] = 0;
      return;
    }
    const uint32_t top = std::min(p + length - 1, kBits - 1);
    const bool fill = std::is_signed<T>::value && (uint64_t(a[l]) >> top & 1);
    T r = 0;
    for (uint32_t k = 0; k < kBits; k++) {
      const bool bit = k < length && p + k < kBits ? (uint64_t(a[l]) >> (p + k) & 1) != 0 : fill;
      r = T(r | T(T(bit) << k));
    }
    d[l] = r;
  });
}
bool build_bfe(Build& b) {
  const Type t = b.type();
  b.write(0, 0, t), b.read(1, 1, t), b.read(2, 2, Type::u32), b.read(3, 3, Type::u32);
  b.out.run = t == Type::u32 ? extract<uint32_t> : t == Type::s32 ? extract<int32_t> : t == Type::u64 ? extract<uint64_t> : extract<int64_t>;
  return true;
}

template <typename T>
void insert(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]);
  const uint32_t *at = x.lanes<uint32_t>(i.operand[3]), *n = x.lanes<uint32_t>(i.operand[4]);
  each(m, [&](int l) {
    const uint32_t p = at[l] & 0xff, length = n[l] & 0xff;
    const T field = T(length >= 8 * sizeof(T) ? ~T(0) : T((T(1) << length) - 1)), mask = Shl::of(field, p);
    d[l] = T((b[l] & ~mask) | (Shl::of(a[l], p) & mask));
  });
}
bool build_bfi(Build& b) {
  const Type t = b.type();
  b.write(0, 0, t), b.read(1, 1, t), b.read(2, 2, t), b.read(3, 3, Type::u32), b.read(4, 4, Type::u32);
  b.out.run = bytes_of(t) == 4 ? insert<uint32_t> : insert<uint64_t>;
  return true;
}

/// The place of the highest bit that differs from the sign; all ones if there is none.
template <typename T>
void find_bit(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  each(m, [&](int l) {
    const std::make_unsigned_t<T> v = std::make_unsigned_t<T>(a[l] < 0 ? T(~a[l]) : a[l]);
    d[l] = v == 0 ? 0xffffffffu : i.detail[0] ? Clz::of(v) : uint32_t(8 * sizeof(T) - 1) - Clz::of(v);
  });
}
bool build_bfind(Build& b) {
  const Type t = b.type();
  b.out.detail[0] = b.take("shiftamt");
  b.write(0, 0, Type::u32), b.read(1, 1, t);
  b.out.run = t == Type::u32 ? find_bit<uint32_t> : t == Type::s32 ? find_bit<int32_t> : t == Type::u64 ? find_bit<uint64_t> : find_bit<int64_t>;
  return true;
}

template <typename Op>
bool build_count(Build& b) {
  const Type t = b.type();
  b.write(0, 0, Type::u32), b.read(1, 1, t);
  b.out.run = bytes_of(t) == 4 ? unary<Op, uint32_t, uint32_t> : unary<Op, uint32_t, uint64_t>;
  return true;
}
bool build_brev(Build& b) {
  operands(b, b.type(), 1);
  b.out.run = bytes_of(b.type()) == 4 ? unary<Brev, uint32_t> : unary<Brev, uint64_t>;
  return true;
}

void bit_mask(Machine& x, const Instruction& i, Mask m) {
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const uint32_t *a = x.lanes<uint32_t>(i.operand[1]), *n = x.lanes<uint32_t>(i.operand[2]);
  each(m, [&](int l) {
    const uint32_t at = i.detail[0] ? a[l] & 31 : a[l], length = i.detail[0] ? n[l] & 31 : n[l];
    d[l] = Shl::of(length >= 32 ? ~0u : (1u << length) - 1, at);
  });
}
bool build_bmsk(Build& b) {
  operands(b, Type::b32, 2);
  b.out.detail[0] = b.take("wrap");
  if (!b.out.detail[0] && !b.take("clamp")) return false;
  b.out.run = bit_mask;
  return true;
}

template <typename T>
void extend(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T* a = x.lanes<T>(i.operand[1]);
  const uint32_t* n = x.lanes<uint32_t>(i.operand[2]);
  each(m, [&](int l) {
    const uint32_t length = i.detail[0] ? n[l] & 31 : n[l];
    d[l] = length >= 32 ? a[l] : length == 0 ? 0 : T(T(uint32_t(a[l]) << (32 - length)) >> (32 - length));
  });
}
bool build_szext(Build& b) {
  operands(b, b.type(), 2);
  b.out.detail[0] = b.take("wrap");
  if (!b.out.detail[0] && !b.take("clamp")) return false;
  b.out.run = is_signed(b.type()) ? extend<int32_t> : extend<uint32_t>;
  return bytes_of(b.type()) == 4;
}

}  // namespace

void add_bits(Families& f) {
  f.insert({{"and", build_logic<And>}, {"or", build_logic<Or>}, {"xor", build_logic<Xor>}, {"not", build_not}, {"cnot", build_cnot}});
  f.insert({{"shl", build_shl}, {"shr", build_shr}, {"shf", build_shf}, {"prmt", build_prmt}, {"lop3", build_lop3}});
  f.insert({{"bfe", build_bfe}, {"bfi", build_bfi}, {"bfind", build_bfind}, {"bmsk", build_bmsk}, {"szext", build_szext}});
  f.insert({{"popc", build_count<Popc>}, {"clz", build_count<Clz>}, {"brev", build_brev}});
}

}  // namespace ptxi
}  // namespace attune
