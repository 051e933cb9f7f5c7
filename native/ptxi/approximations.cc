// The approximate instructions: ex2, lg2, sin, cos, tanh, rsqrt, and rcp.approx.ftz.f64. Computed by the host's library, thus within the errors that PTX
// grants, though not with the hardware's last bits.
#include "floats.h"

namespace attune {
namespace ptxi {

namespace {

struct Ex2 {
  static float of(float a) { return std::exp2(a); }
};
struct Lg2 {
  static float of(float a) { return std::log2(a); }
};
struct Sin {
  static float of(float a) { return std::sin(a); }
};
struct Cos {
  static float of(float a) { return std::cos(a); }
};
struct Tanh {
  static float of(float a) { return std::tanh(a); }
};
struct Rsqrt {
  static float of(float a) { return float(1.0 / std::sqrt(double(a))); }
  static double of(double a) { return 1.0 / std::sqrt(a); }
};
template <typename Op>
struct Flushing {
  static float of(float a) { return flush(Op::of(flush(a))); }
};
/// The upper word of the result; the lower one is zero, and subnormals are flushed.
struct RcpHigh {
  static double of(double a) { return bits<double>(bits<uint64_t>(flush(1.0 / flush(a))) & 0xffffffff00000000u); }
};
struct RsqrtHigh {
  static double of(double a) { return bits<double>(bits<uint64_t>(flush(1.0 / std::sqrt(flush(a)))) & 0xffffffff00000000u); }
};

template <typename Op>
bool build(Build& b) {
  if (b.types() != 1 || b.type() != Type::f32) return false;
  b.take("approx");
  operands(b, Type::f32, 1);
  b.out.run = b.take("ftz") ? unary<Flushing<Op>, float> : unary<Op, float>;
  return true;
}

bool build_rsqrt(Build& b) {
  if (b.type() != Type::f64) return build<Rsqrt>(b);
  b.take("approx");
  operands(b, Type::f64, 1);
  b.out.run = b.take("ftz") ? unary<RsqrtHigh, double> : unary<Rsqrt, double>;
  return true;
}
bool build_rcp(Build& b) {
  if (b.type() != Type::f64 || !b.take("approx")) return false;
  b.take("ftz");
  operands(b, Type::f64, 1);
  b.out.run = unary<RcpHigh, double>;
  return true;
}

}  // namespace

void add_approximations(Families& f) {
  f.insert({{"ex2", build<Ex2>}, {"lg2", build<Lg2>}, {"sin", build<Sin>}, {"cos", build<Cos>}, {"tanh", build<Tanh>}});
  f.insert({{"rsqrt", build_rsqrt}, {"rcp", build_rcp}});
}

}  // namespace ptxi
}  // namespace attune
