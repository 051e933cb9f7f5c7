// Arithmetic of f32 and f64 that IEEE defines to the last bit: add, sub, mul, fma, div, rcp, sqrt in all four roundings, min, max, abs, neg, copysign, testp.
// A NaN that f32 arithmetic makes is PTX's canonical one.
#include "floats.h"

#include <cfenv>

namespace attune {
namespace ptxi {

RoundingScope::RoundingScope(Rounding r) : before_(std::fegetround()) {
  constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  std::fesetround(kModes[int(r)]);
}
RoundingScope::~RoundingScope() { std::fesetround(before_); }

namespace {

struct Add {
  template <typename T>
  static T of(T a, T b) {
    return a + b;
  }
};
struct Sub {
  template <typename T>
  static T of(T a, T b) {
    return a - b;
  }
};
struct Mul {
  template <typename T>
  static T of(T a, T b) {
    return a * b;
  }
};
struct Div {
  template <typename T>
  static T of(T a, T b) {
    return a / b;
  }
};
struct Rcp {
  template <typename T>
  static T of(T a) {
    return T(1) / a;
  }
};
struct Sqrt {
  template <typename T>
  static T of(T a) {
    return std::sqrt(a);
  }
};
struct Fma {
  template <typename T>
  static T of(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct MinOrNan {
  template <typename T>
  static T of(T a, T b) {
    return a != a || b != b ? canonical_nan(a) : MinNumber::of(a, b);
  }
};
struct MaxOrNan {
  template <typename T>
  static T of(T a, T b) {
    return a != a || b != b ? canonical_nan(a) : MaxNumber::of(a, b);
  }
};

template <typename Op, int kSources, typename T>
inline T apply(T a, T b, T c) {
  (void)b, (void)c;
  if constexpr (kSources == 1) return Op::of(a);
  else if constexpr (kSources == 2) return Op::of(a, b);
  else return Op::of(a, b, c);
}

template <typename Op, int kSources, typename T, bool kFtz, bool kSat>
void nearest(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const T *a = x.lanes<T>(i.operand[1]), *b = x.lanes<T>(i.operand[2]), *c = x.lanes<T>(i.operand[3]);
  each(m, [&](int l) {
    T r = kFtz ? flush(apply<Op, kSources>(flush(a[l]), flush(kSources > 1 ? b[l] : T(0)), flush(kSources > 2 ? c[l] : T(0))))
               : apply<Op, kSources>(a[l], kSources > 1 ? b[l] : T(0), kSources > 2 ? c[l] : T(0));
    if (kSat) r = saturate(r);
    if (sizeof(T) == 4) r = r == r ? r : canonical_nan(r);
    d[l] = r;
  });
}

template <typename Op, int kSources, typename T>
void directed(Machine& x, const Instruction& i, Mask m) {
  T* d = x.lanes<T>(i.operand[0]);
  const RoundingScope scope(Rounding(i.detail[0]));
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    T in[3] = {};
    for (int k = 0; k < kSources; k++) in[k] = x.lanes<T>(i.operand[k + 1])[l];
    if (i.detail[1])
      for (T& v : in) v = flush(v);
    volatile T a = in[0], b = in[1], c = in[2];
    volatile T r = apply<Op, kSources, T>(a, b, c);
    T result = r;
    if (i.detail[1]) result = flush(result);
    if (i.detail[2]) result = saturate(result);
    d[l] = result == result ? result : canonical_nan(result);
  }
}

// The one operation that a host without fma calls a library for, and that f32 kernels are made of: compiled twice.
template <typename T>
inline __attribute__((always_inline)) void fma_loop(T* d, const T* a, const T* b, const T* c, Mask m) {
  if (m == kAllLanes) {
#pragma GCC ivdep
    for (int l = 0; l < 32; l++) {
      const T r = sizeof(T) == 4 ? T(__builtin_fmaf(float(a[l]), float(b[l]), float(c[l]))) : T(__builtin_fma(double(a[l]), double(b[l]), double(c[l])));
      d[l] = sizeof(T) == 8 || r == r ? r : canonical_nan(r);
    }
    return;
  }
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const T r = sizeof(T) == 4 ? T(__builtin_fmaf(float(a[l]), float(b[l]), float(c[l]))) : T(__builtin_fma(double(a[l]), double(b[l]), double(c[l])));
    d[l] = sizeof(T) == 8 || r == r ? r : canonical_nan(r);
  }
}
template <typename T>
void fma_anywhere(Machine& x, const Instruction& i, Mask m) {
  fma_loop(x.lanes<T>(i.operand[0]), x.lanes<T>(i.operand[1]), x.lanes<T>(i.operand[2]), x.lanes<T>(i.operand[3]), m);
}
#if defined(__x86_64__)
template <typename T>
__attribute__((target("avx2,fma"))) void fma_on_avx2(Machine& x, const Instruction& i, Mask m) {
  fma_loop(x.lanes<T>(i.operand[0]), x.lanes<T>(i.operand[1]), x.lanes<T>(i.operand[2]), x.lanes<T>(i.operand[3]), m);
}
#endif
template <typename T>
Handler fma_handler() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fma_on_avx2<T>;
#endif
  return fma_anywhere<T>;
}

template <typename Op, int kSources>
bool build(Build& b) {
  const Type t = b.type();
  if (t != Type::f32 && t != Type::f64) return false;
  const Rounding rounding = take_rounding(b);
  b.take("full"), b.take("approx");  // of div: within 2 ulp
  const bool ftz = b.take("ftz"), sat = b.take("sat");
  operands(b, t, kSources);
  b.out.detail[0] = uint32_t(rounding), b.out.detail[1] = ftz, b.out.detail[2] = sat;
  if (rounding != Rounding::nearest) {
    b.out.run = t == Type::f32 ? directed<Op, kSources, float> : directed<Op, kSources, double>;
  } else if (std::is_same<Op, Fma>::value && !ftz && !sat) b.out.run = t == Type::f32 ? fma_handler<float>() : fma_handler<double>();
  else if (t == Type::f64) b.out.run = nearest<Op, kSources, double, false, false>;
  else if (ftz) b.out.run = sat ? nearest<Op, kSources, float, true, true> : nearest<Op, kSources, float, true, false>;
  else b.out.run = sat ? nearest<Op, kSources, float, false, true> : nearest<Op, kSources, float, false, false>;
  return true;
}

template <typename Op, typename OrNan>
bool build_extreme(Build& b) {
  const Type t = b.type();
  if (t != Type::f32 && t != Type::f64) return false;
  const bool nan = b.take("NaN"), ftz = b.take("ftz");
  operands(b, t, 2);
  if (t == Type::f64) b.out.run = nearest<Op, 2, double, false, false>;
  else if (nan) b.out.run = ftz ? nearest<OrNan, 2, float, true, false> : nearest<OrNan, 2, float, false, false>;
  else b.out.run = ftz ? nearest<Op, 2, float, true, false> : nearest<Op, 2, float, false, false>;
  return true;
}

// Sign bits alone: a NaN stays what it is.
struct Neg32 {
  static uint32_t of(uint32_t a) { return a ^ 0x80000000u; }
};
struct Abs32 {
  static uint32_t of(uint32_t a) { return a & 0x7fffffffu; }
};
struct Neg64 {
  static uint64_t of(uint64_t a) { return a ^ 0x8000000000000000u; }
};
struct Abs64 {
  static uint64_t of(uint64_t a) { return a & 0x7fffffffffffffffu; }
};
struct Copysign32 {
  static uint32_t of(uint32_t a, uint32_t b) { return (b & 0x7fffffffu) | (a & 0x80000000u); }
};
struct Copysign64 {
  static uint64_t of(uint64_t a, uint64_t b) { return (b & 0x7fffffffffffffffu) | (a & 0x8000000000000000u); }
};
template <typename Op>
struct Flushed {
  static uint32_t of(uint32_t a) { return Op::of(bits<uint32_t>(flush(bits<float>(a)))); }
};

template <typename On32, typename On64>
bool build_sign(Build& b) {
  const Type t = b.type();
  if (t != Type::f32 && t != Type::f64) return false;
  operands(b, t, 1);
  b.out.run = t == Type::f64 ? unary<On64, uint64_t> : b.take("ftz") ? unary<Flushed<On32>, uint32_t> : unary<On32, uint32_t>;
  return true;
}
bool build_copysign(Build& b) {
  operands(b, b.type(), 2);
  b.out.run = b.type() == Type::f32 ? binary<Copysign32, uint32_t> : binary<Copysign64, uint64_t>;
  return b.type() == Type::f32 || b.type() == Type::f64;
}

template <typename T>
void test(Machine& x, const Instruction& i, Mask m) {
  const T* a = x.lanes<T>(i.operand[1]);
  assign(x.predicate(i.operand[0]), m, collect([&](int l) {
           const int kind = std::fpclassify(a[l]);
           const bool is[] = {
               kind != FP_NAN && kind != FP_INFINITE, kind == FP_INFINITE, kind != FP_NAN, kind == FP_NAN, kind == FP_NORMAL, kind == FP_SUBNORMAL};
           return is[i.detail[0]];
         }));
}
bool build_testp(Build& b) {
  const int k = b.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (k < 0) return false;
  b.out.detail[0] = uint32_t(k);
  b.write(0, 0, Type::pred), b.read(1, 1, b.type());
  b.out.run = b.type() == Type::f32 ? test<float> : test<double>;
  return true;
}

}  // namespace

void add_floats(Families& f) {
  f.insert({{"add", build<Add, 2>}, {"sub", build<Sub, 2>}, {"mul", build<Mul, 2>}, {"div", build<Div, 2>}, {"fma", build<Fma, 3>}, {"mad", build<Fma, 3>}});
  f.insert({{"rcp", build<Rcp, 1>}, {"sqrt", build<Sqrt, 1>}, {"min", build_extreme<MinNumber, MinOrNan>}, {"max", build_extreme<MaxNumber, MaxOrNan>}});
  f.insert({{"neg", build_sign<Neg32, Neg64>}, {"abs", build_sign<Abs32, Abs64>}, {"copysign", build_copysign}, {"testp", build_testp}});
}

}  // namespace ptxi
}  // namespace attune
