// cvt: between integers, floats and both, in every rounding; floats to 16 bits, alone and in pairs; to tf32.
#include "narrow.h"

#include <limits>

namespace attune {
namespace ptxi {

namespace {

// ---- the common ones: registers as wide as the types -----------------------------------------------------------------------------------------------------

template <typename D, typename S>
struct Cast {
  static D of(S a) { return D(a); }
};
template <typename D>
Handler cast_from(Type s) {
  switch (s) {
    case Type::u16: return unary<Cast<D, uint16_t>, D, uint16_t>;
    case Type::s16: return unary<Cast<D, int16_t>, D, int16_t>;
    case Type::u32: return unary<Cast<D, uint32_t>, D, uint32_t>;
    case Type::s32: return unary<Cast<D, int32_t>, D, int32_t>;
    case Type::u64: return unary<Cast<D, uint64_t>, D, uint64_t>;
    case Type::s64: return unary<Cast<D, int64_t>, D, int64_t>;
    default: return nullptr;
  }
}
Handler cast(Type d, Type s) {
  if (d == Type::f64 && s == Type::f32) return unary<Cast<double, float>, double, float>;
  switch (d) {
    case Type::u16:
    case Type::s16: return cast_from<uint16_t>(s);
    case Type::u32:
    case Type::s32: return cast_from<uint32_t>(s);
    case Type::u64:
    case Type::s64: return cast_from<uint64_t>(s);
    case Type::f32: return cast_from<float>(s);
    case Type::f64: return cast_from<double>(s);
    default: return nullptr;
  }
}

// ---- all of them, a lane at a time ----------------------------------------------------------------------------------------------------------------------

struct Plan {  // what detail[0] and [1] hold
  Type d, s;
  uint8_t d_bytes, s_bytes;  // of the registers
  uint8_t rounding;          // 0 none, 1..4 rn rz rm rp, 5..8 rni rzi rmi rpi, 9 rna
  bool ftz, sat, relu;
};

Narrowing narrowing(uint8_t rounding) { return rounding == 9 ? Narrowing::away : rounding == 0 ? Narrowing::nearest : Narrowing((rounding - 1) % 4); }

double round_integral(double v, uint8_t rounding) {
  switch (rounding) {
    case 5: return std::nearbyint(v);
    case 6: return std::trunc(v);
    case 7: return std::floor(v);
    case 8: return std::ceil(v);
    default: return v;
  }
}

uint64_t extended(uint64_t v, Type t) {
  switch (t) {
    case Type::s8: return uint64_t(int64_t(int8_t(v)));
    case Type::s16: return uint64_t(int64_t(int16_t(v)));
    case Type::s32: return uint64_t(int64_t(int32_t(v)));
    case Type::u8:
    case Type::b8: return uint8_t(v);
    case Type::u16:
    case Type::b16: return uint16_t(v);
    case Type::u32:
    case Type::b32: return uint32_t(v);
    default: return v;
  }
}

/// Saturates, as conversions of floats to integers always do; NaN is 0, or the highest bit alone where 64 bits are on one side.
uint64_t to_integer(double v, Type d, Type s) {
  const int width = 8 * bytes_of(d);
  if (v != v) return s != Type::f64 && width < 64 ? 0 : uint64_t(1) << (width - 1);
  const double low = is_signed(d) ? -std::ldexp(1.0, width - 1) : 0, high = std::ldexp(1.0, is_signed(d) ? width - 1 : width);
  if (v < low) v = low;
  if (v >= high) return is_signed(d) ? (uint64_t(1) << (width - 1)) - 1 : width == 64 ? ~uint64_t(0) : (uint64_t(1) << width) - 1;
  return is_signed(d) ? uint64_t(int64_t(v)) : uint64_t(v);
}

/// An integer to f32 or f64, rounded once.
uint64_t from_integer(uint64_t v, bool negative_possible, Type d, uint8_t rounding) {
  const RoundingScope scope(rounding >= 2 && rounding <= 4 ? Rounding(rounding - 1) : Rounding::nearest);
  if (d == Type::f64) {
    volatile int64_t s = int64_t(v);
    volatile uint64_t u = v;
    volatile double r = negative_possible ? double(s) : double(u);
    return bits<uint64_t>(double(r));
  }
  volatile int64_t s = int64_t(v);
  volatile uint64_t u = v;
  volatile float r = negative_possible ? float(s) : float(u);
  return bits<uint32_t>(float(r));
}

uint64_t float_result(double v, const Plan& p) {
  if (p.sat) v = saturate(v);
  if (p.relu && v < 0) v = 0;
  switch (p.d) {
    case Type::f64: return bits<uint64_t>(v);
    case Type::f16: return F16::narrow(v, narrowing(p.rounding));
    case Type::bf16: return Bf16::narrow(v, narrowing(p.rounding));
    case Type::tf32: return v != v ? 0x7fffffffu : bits<uint32_t>(float(round_digits(v, 11, -136, narrowing(p.rounding))));
    default: {
      const RoundingScope scope(p.rounding >= 2 && p.rounding <= 4 ? Rounding(p.rounding - 1) : Rounding::nearest);
      volatile double in = v;
      volatile float r = float(in);
      const float out = p.ftz ? flush(float(r)) : float(r);
      return out != out ? 0x7fffffffu : bits<uint32_t>(out);
    }
  }
}

uint64_t convert(uint64_t raw, const Plan& p) {
  if (!is_float(p.s)) {
    const uint64_t v = extended(raw, p.s);
    if (is_float(p.d)) {
      if (p.d == Type::f32 || p.d == Type::f64) return from_integer(v, is_signed(p.s), p.d, p.rounding);
      return float_result(is_signed(p.s) ? double(int64_t(v)) : double(v), p);
    }
    if (!p.sat) return extended(v, p.d);
    const __int128 wide = is_signed(p.s) ? __int128(int64_t(v)) : __int128(v);
    const int width = 8 * bytes_of(p.d);
    const __int128 low = is_signed(p.d) ? -(__int128(1) << (width - 1)) : 0, high = (__int128(1) << (is_signed(p.d) ? width - 1 : width)) - 1;
    return uint64_t(wide < low ? low : wide > high ? high : wide);
  }
  double v = p.s == Type::f64   ? bits<double>(raw)
             : p.s == Type::f32 ? double(bits<float>(uint32_t(raw)))
             : p.s == Type::f16 ? double(F16::wide(uint16_t(raw)))
                                : double(Bf16::wide(uint16_t(raw)));
  if (p.ftz && p.s == Type::f32) v = flush(bits<float>(uint32_t(raw)));
  v = round_integral(v, p.rounding);
  return is_float(p.d) ? float_result(v, p) : extended(to_integer(v, p.d, p.s), p.d);
}

uint64_t lane_of(Machine& x, uint32_t place, int bytes, int l) {
  return bytes == 2 ? x.lanes<uint16_t>(place)[l] : bytes == 4 ? x.lanes<uint32_t>(place)[l] : x.lanes<uint64_t>(place)[l];
}

Plan plan_of(const Instruction& i) {
  Plan p;
  static_assert(sizeof(Plan) <= 8, "fits two words of detail");
  std::memcpy(&p, i.detail, sizeof p);
  return p;
}

void any(Machine& x, const Instruction& i, Mask m) {
  const Plan p = plan_of(i);
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const uint64_t r = convert(lane_of(x, i.operand[1], p.s_bytes, l), p);
    if (p.d_bytes == 2) x.lanes<uint16_t>(i.operand[0])[l] = uint16_t(r);
    else if (p.d_bytes == 4) x.lanes<uint32_t>(i.operand[0])[l] = uint32_t(r);
    else x.lanes<uint64_t>(i.operand[0])[l] = r;
  }
}

/// cvt.rn.bf16x2.f32 d, a, b: a goes to the upper half.
template <typename Half>
void pack(Machine& x, const Instruction& i, Mask m) {
  const Plan p = plan_of(i);
  uint32_t* d = x.lanes<uint32_t>(i.operand[0]);
  const float *a = x.lanes<float>(i.operand[1]), *b = x.lanes<float>(i.operand[2]);
  if (p.rounding == 1 && !p.relu && std::is_same<Half, Bf16>::value)
    return each(m, [&](int l) { d[l] = uint32_t(Bf16::nearest(a[l])) << 16 | Bf16::nearest(b[l]); });
  const auto half = [&](float v) { return uint32_t(Half::narrow(p.relu && v < 0 ? 0 : v, narrowing(p.rounding))); };
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    d[l] = half(a[l]) << 16 | half(b[l]);
  }
}

/// cvt takes registers that are wider than its types; returns the width of operand k's.
int width(Build& b, size_t k, Type t) {
  if (b.term(k).kind == Term::number) return std::max(2, bytes_of(t));
  const int bytes = b.bytes(k);
  if (bytes < bytes_of(t)) b.fail("a register narrower than its type");
  return bytes;
}
Type bits_of(int bytes) { return bytes == 2 ? Type::b16 : bytes == 4 ? Type::b32 : Type::b64; }

bool build_cvt(Build& b) {
  Plan p{};
  p.d = b.type(0), p.s = b.type(1);
  p.rounding = uint8_t(b.take_one({"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"}) + 1);
  p.ftz = b.take("ftz"), p.sat = b.take("sat"), p.relu = b.take("relu");
  const bool pair = p.d == Type::bf16x2 || p.d == Type::f16x2;
  if (pair) {
    if (p.s != Type::f32) return false;
    b.write(0, 0, p.d), b.read(1, 1, Type::f32), b.read(2, 2, Type::f32);
    b.out.run = p.d == Type::bf16x2 ? pack<Bf16> : pack<F16>;
  } else {
    if (p.s == Type::f16x2 || p.s == Type::bf16x2 || p.s == Type::tf32) return false;
    p.d_bytes = uint8_t(width(b, 0, p.d)), p.s_bytes = uint8_t(width(b, 1, p.s));
    b.write(0, 0, bits_of(p.d_bytes)), b.read(1, 1, bits_of(p.s_bytes));
    const bool plain = !p.ftz && !p.sat && !p.relu && p.rounding <= 1 && p.d_bytes == bytes_of(p.d) && p.s_bytes == bytes_of(p.s);
    b.out.run = plain ? cast(p.d, p.s) : nullptr;
    if (!b.out.run) b.out.run = any;
  }
  std::memcpy(b.out.detail, &p, sizeof p);
  return true;
}

}  // namespace

void add_conversions(Families& f) { f.insert({{"cvt", build_cvt}}); }

}  // namespace ptxi
}  // namespace attune
