// Arithmetic of f16 and bf16, alone and in pairs: add, sub, mul, fma, min, max, neg, abs, ex2, tanh. Each result is the exact one, rounded once.
#include "narrow.h"

namespace attune {
namespace ptxi {

namespace {

struct Add {
  static double of(double a, double b, double) { return odd_sum(a, b); }
};
struct Sub {
  static double of(double a, double b, double) { return odd_sum(a, -b); }
};
struct Mul {
  static double of(double a, double b, double) { return a * b; }
};
struct Fma {
  static double of(double a, double b, double c) { return odd_sum(a * b, c); }
};
struct Min {
  static double of(double a, double b, double) { return MinNumber::of(a, b); }
};
struct Max {
  static double of(double a, double b, double) { return MaxNumber::of(a, b); }
};
struct MinOrNan {
  static double of(double a, double b, double) { return a != a || b != b ? NAN : MinNumber::of(a, b); }
};
struct MaxOrNan {
  static double of(double a, double b, double) { return a != a || b != b ? NAN : MaxNumber::of(a, b); }
};
struct Ex2 {
  static double of(double a, double, double) { return std::exp2(a); }
};
struct Tanh {
  static double of(double a, double, double) { return std::tanh(a); }
};

/// kPair: two numbers in 32 bits, each by itself.
template <typename Op, typename Half, int kSources, bool kPair>
void run(Machine& x, const Instruction& i, Mask m) {
  using T = std::conditional_t<kPair, uint32_t, uint16_t>;
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]), *c = x.lanes<T>(i.operand[3]);
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    T result = 0;
    for (int part = 0; part < (kPair ? 2 : 1); part++) {
      const int s = 16 * part;
      double r =
          Op::of(Half::wide(uint16_t(a[l] >> s)), kSources > 1 ? Half::wide(uint16_t(b[l] >> s)) : 0, kSources > 2 ? Half::wide(uint16_t(c[l] >> s)) : 0);
      if (i.detail[0]) r = saturate(r);
      if (i.detail[1] && r < 0) r = 0;  // .relu; NaN stays
      result = T(result | T(T(Half::narrow(r, Narrowing::nearest)) << s));
    }
    d[l] = result;
  }
}

template <typename Op, int kSources>
bool build(Build& b) {
  const Type t = b.type();
  if (t != Type::f16 && t != Type::bf16 && t != Type::f16x2 && t != Type::bf16x2) return false;
  b.take("rn"), b.take("approx"), b.take("ftz");  // bf16 has no subnormals worth a flag in our kernels; f16's are kept
  b.out.detail[0] = b.take("sat"), b.out.detail[1] = b.take("relu");
  operands(b, t, kSources);
  b.out.run = t == Type::f16     ? run<Op, F16, kSources, false>
              : t == Type::bf16  ? run<Op, Bf16, kSources, false>
              : t == Type::f16x2 ? run<Op, F16, kSources, true>
                                 : run<Op, Bf16, kSources, true>;
  return true;
}
template <typename Op, typename OrNan>
bool build_extreme(Build& b) {
  return is_float(b.type()) && bytes_of(b.type()) <= 4 && b.take("NaN") ? build<OrNan, 2>(b) : build<Op, 2>(b);
}

// Sign bits alone.
template <typename T, uint32_t kFlip, uint32_t kKeep>
struct Sign {
  static T of(T a) { return T((a & kKeep) ^ kFlip); }
};
template <bool kAbs>
bool build_sign(Build& b) {
  const Type t = b.type();
  if (t != Type::f16 && t != Type::bf16 && t != Type::f16x2 && t != Type::bf16x2) return false;
  b.take("ftz");
  operands(b, t, 1);
  if (bytes_of(t) == 2) b.out.run = kAbs ? unary<Sign<uint16_t, 0, 0x7fff>, uint16_t> : unary<Sign<uint16_t, 0x8000, 0xffff>, uint16_t>;
  else b.out.run = kAbs ? unary<Sign<uint32_t, 0, 0x7fff7fff>, uint32_t> : unary<Sign<uint32_t, 0x80008000, 0xffffffff>, uint32_t>;
  return true;
}

}  // namespace

void add_halves(Families& f) {
  f.insert({{"add", build<Add, 2>}, {"sub", build<Sub, 2>}, {"mul", build<Mul, 2>}, {"fma", build<Fma, 3>}, {"ex2", build<Ex2, 1>}, {"tanh", build<Tanh, 1>}});
  f.insert({{"min", build_extreme<Min, MinOrNan>}, {"max", build_extreme<Max, MaxOrNan>}, {"neg", build_sign<false>}, {"abs", build_sign<true>}});
}

}  // namespace ptxi
}  // namespace attune
