// The elementwise ops as functions of numbers, by the opcodes of lib/graph/tape-opcodes.ts: the elementwise kernels run one over tensors, the tape kernel
// chains them, and both get the same bits. Formulas are those of native/cpu/scalar_ops.h. What is stored as bf16 is computed in f32 with the fast exponential
// and division, whose errors (2^-20 or less of the result here) vanish in its rounding; f32 and f64 use the library's, within 2 ulp, and f32 its own
// polynomials for the normal distribution. Products that are added to are written as fma, so that no compiler decides about their rounding.
#pragma once
#include <cmath>

#include "kernel.h"

namespace attune {
namespace cuda {

// clang-format off
#define ATTUNE_OPCODES(X) \
  X(constant) X(add) X(sub) X(mul) X(div) X(maximum) X(minimum) X(greater) X(silu_vjp) X(gelu_vjp) X(gelu_tanh_vjp) X(quick_gelu_vjp) X(neg) X(exp) \
  X(log) X(log1p) X(sqrt) X(rsqrt) X(square) X(abs) X(sigmoid) X(softplus) X(tanh) X(relu) X(silu) X(gelu) X(gelu_tanh) X(quick_gelu) X(sin) X(cos) \
  X(reciprocal) X(select) X(affine) X(clamp)
// clang-format on
#define ATTUNE_OPCODE(name) op_##name,
enum Opcode : int { ATTUNE_OPCODES(ATTUNE_OPCODE) kOpcodes };
#undef ATTUNE_OPCODE

/// How many tensors an op reads; the rest of its operands are numbers.
ATTUNE_BOTH int operands_of(int opcode) {
  if (opcode == op_constant) return 0;
  if (opcode <= op_quick_gelu_vjp) return 2;
  return opcode == op_select ? 3 : 1;
}

ATTUNE_DEVICE float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
ATTUNE_DEVICE double fma_of(double a, double b, double c) { return fma(a, b, c); }

/// sin (kCosine: cos) of x in radians: x less a multiple of pi / 2 in three parts, then fdlibm's polynomials on [-pi/4, pi/4]; 1 ulp of double. Past 2^31,
/// where the three parts run out, NaN rather than digits that mean nothing.
template <bool kCosine>
ATTUNE_DEVICE double sine(double x) {
  const double n = rint(x * 0.63661977236758134308);
  double r = fma(n, -1.5707963267948966e+0, x);
  r = fma(n, -6.1232339957367574e-17, r);
  r = fma(n, -8.4784276603689000e-32, r);
  const double z = r * r;
  double s = fma(z, 1.58969099521155010221e-10, -2.50507602534068634195e-08);
  s = fma(z, s, 2.75573137070700676789e-06);
  s = fma(z, s, -1.98412698298579493134e-04);
  s = fma(z, s, 8.33333333332248946124e-03);
  s = fma(z, s, -1.66666666666666324348e-01);
  s = fma(z * r, s, r);
  double c = fma(z, -1.13596475577881948265e-11, 2.08757232129817482790e-09);
  c = fma(z, c, -2.75573143513906633035e-07);
  c = fma(z, c, 2.48015872894767294178e-05);
  c = fma(z, c, -1.38888888888741095749e-03);
  c = fma(z, c, 4.16666666666666019037e-02);
  const double half = 0.5 * z, one = 1.0 - half;
  c = one + fma(z * z, c, (1.0 - one) - half);
  if (!(fabs(x) <= 2147483648.0)) return NAN;
  const int quadrant = int(int64_t(n)) + (kCosine ? 1 : 0);
  const double y = quadrant & 1 ? c : s;
  return quadrant & 2 ? -y : y;
}

/// The functions that differ between the types that numbers are stored in.
template <typename T>
struct Math {  // f32, and bf16 below
  static ATTUNE_DEVICE float exp(float x) {
    if constexpr (std::is_same_v<T, bf16>) return __expf(x);
    else return expf(x);
  }
  /// For 1 <= b <= 2.
  static ATTUNE_DEVICE float divide(float a, float b) {
    if constexpr (std::is_same_v<T, bf16>) return __fdividef(a, b);
    else return a / b;
  }
  static ATTUNE_DEVICE float log(float x) { return logf(x); }
  static ATTUNE_DEVICE float log1p(float x) { return log1pf(x); }
  static ATTUNE_DEVICE float tanh(float x) { return tanhf(x); }
  static ATTUNE_DEVICE float sqrt(float x) { return sqrtf(x); }
  static ATTUNE_DEVICE float abs(float x) { return fabsf(x); }
  /// P(X <= x) of a standard normal X: (1 + erf(x / sqrt 2)) / 2, with erfc where that cancels. Polynomials of N. Juffa's erff: 1e-7
  /// of 1 everywhere, but digits are lost below -4, where 3e-5 of the result is of no weight beside 1.
  static ATTUNE_DEVICE float normal_cdf(float x) {
    const float a = x * 0.70710678118654752f, s = a * a;
    float t = fabsf(a);
    float r = fmaf(-5.96761703e-4f, s, 4.99119423e-3f);
    r = fmaf(r, s, -2.67681349e-2f);
    r = fmaf(r, s, 1.12819925e-1f);
    r = fmaf(r, s, -3.76125336e-1f);
    r = fmaf(r, s, 1.28379166e-1f);
    const float near = fmaf(0.5f, fmaf(r, a, a), 0.5f);
    t = t > 12.f ? 12.f : t;
    float q = fmaf(-1.72853470e-5f, t, 3.83197126e-4f);
    q = fmaf(q, t * t, fmaf(-3.88396438e-3f, t, 2.42546219e-2f));
    q = fmaf(q, t, -1.06777877e-1f);
    q = fmaf(q, t, -6.34846687e-1f);
    q = fmaf(q, t, -1.28717512e-1f);
    const float tail = 0.5f * exp(fmaf(q, t, -t));
    const float far = a < 0.f ? tail : 1.f - tail;
    return t > 0.927734375f ? far : near;
  }
};
template <>
struct Math<double> {
  static ATTUNE_DEVICE double exp(double x) { return ::exp(x); }
  static ATTUNE_DEVICE double divide(double a, double b) { return a / b; }
  static ATTUNE_DEVICE double log(double x) { return ::log(x); }
  static ATTUNE_DEVICE double log1p(double x) { return ::log1p(x); }
  static ATTUNE_DEVICE double tanh(double x) { return ::tanh(x); }
  static ATTUNE_DEVICE double sqrt(double x) { return ::sqrt(x); }
  static ATTUNE_DEVICE double abs(double x) { return fabs(x); }
  static ATTUNE_DEVICE double normal_cdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
};

/// sigmoid(x), and its slope sigmoid(x) sigmoid(-x): s (1 - s) would keep no digits of it where s is near 1, and x times it is a gradient.
template <typename C>
struct Sigmoid {
  C value, slope;
};
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE Sigmoid<C> sigmoid_with_slope(C x) {
  const C e = Math<T>::exp(-Math<T>::abs(x)), large = Math<T>::divide(C(1), C(1) + e), small = e * large;
  return {x < C(0) ? small : large, small * large};
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C sigmoid_of(C x) {
  const C e = Math<T>::exp(-Math<T>::abs(x));
  return Math<T>::divide(x < C(0) ? e : C(1), C(1) + e);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C silu_of(C x) {
  return x * sigmoid_of<T>(x);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C silu_slope(C x) {
  const Sigmoid<C> s = sigmoid_with_slope<T>(x);
  return fma_of(x, s.slope, s.value);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C gelu_of(C x) {
  return x * Math<T>::normal_cdf(x);
}
/// Density of a standard normal.
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C normal_pdf(C x) {
  return C(0.39894228040143267794) * Math<T>::exp(C(-0.5) * x * x);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C gelu_slope(C x) {
  return fma_of(x, normal_pdf<T>(x), Math<T>::normal_cdf(x));
}
/// (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
template <typename C>
ATTUNE_DEVICE C gelu_tanh_gate(C x) {
  return C(1.59576912160573071176) * fma_of(C(0.044715) * x * x, x, x);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C gelu_tanh_slope(C x) {
  const Sigmoid<C> s = sigmoid_with_slope<T>(gelu_tanh_gate(x));
  return fma_of(x * s.slope, C(1.59576912160573071176) * fma_of(C(0.134145) * x, x, C(1)), s.value);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C quick_gelu_slope(C x) {
  const Sigmoid<C> s = sigmoid_with_slope<T>(C(1.702) * x);
  return fma_of(C(1.702) * x, s.slope, s.value);
}
template <typename T, typename C = compute_t<T>>
ATTUNE_DEVICE C softplus_of(C x) {
  return (x < C(0) ? C(0) : x) + Math<T>::log1p(Math<T>::exp(-Math<T>::abs(x)));
}
template <typename C>
ATTUNE_DEVICE C clamp_of(C x, C low, C high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

/// y = opcode(a, b, c) lane by lane; p and q are its numbers: the value of constant, scale and shift of affine, the ends of clamp. One switch for all lanes: it
/// goes the same way in every thread of a grid.
template <typename T, int N, typename C = compute_t<T>>
ATTUNE_DEVICE void compute(int opcode, const C (&a)[N], const C (&b)[N], const C (&c)[N], C p, C q, C (&y)[N]) {
#define ATTUNE_CASE(name, expression)                \
  case op_##name:                                    \
    ATTUNE_UNROLL                                    \
    for (int k = 0; k < N; k++) y[k] = (expression); \
    break;
  switch (opcode) {
    ATTUNE_CASE(constant, p)
    ATTUNE_CASE(add, a[k] + b[k])
    ATTUNE_CASE(sub, a[k] - b[k])
    ATTUNE_CASE(mul, a[k] * b[k])
    ATTUNE_CASE(div, a[k] / b[k])
    ATTUNE_CASE(maximum, a[k] > b[k] || a[k] != a[k] ? a[k] : b[k])  // a NaN on either side stays
    ATTUNE_CASE(minimum, a[k] < b[k] || a[k] != a[k] ? a[k] : b[k])
    ATTUNE_CASE(greater, a[k] > b[k] ? C(1) : C(0))
    ATTUNE_CASE(silu_vjp, a[k] * silu_slope<T>(b[k]))
    ATTUNE_CASE(gelu_vjp, a[k] * gelu_slope<T>(b[k]))
    ATTUNE_CASE(gelu_tanh_vjp, a[k] * gelu_tanh_slope<T>(b[k]))
    ATTUNE_CASE(quick_gelu_vjp, a[k] * quick_gelu_slope<T>(b[k]))
    ATTUNE_CASE(neg, -a[k])
    ATTUNE_CASE(exp, Math<T>::exp(a[k]))
    ATTUNE_CASE(log, Math<T>::log(a[k]))
    ATTUNE_CASE(log1p, Math<T>::log1p(a[k]))
    ATTUNE_CASE(sqrt, Math<T>::sqrt(a[k]))
    ATTUNE_CASE(rsqrt, C(1) / Math<T>::sqrt(a[k]))
    ATTUNE_CASE(square, a[k] * a[k])
    ATTUNE_CASE(abs, Math<T>::abs(a[k]))
    ATTUNE_CASE(sigmoid, sigmoid_of<T>(a[k]))
    ATTUNE_CASE(softplus, softplus_of<T>(a[k]))
    ATTUNE_CASE(tanh, Math<T>::tanh(a[k]))
    ATTUNE_CASE(relu, a[k] < C(0) ? C(0) : a[k])
    ATTUNE_CASE(silu, silu_of<T>(a[k]))
    ATTUNE_CASE(gelu, gelu_of<T>(a[k]))
    ATTUNE_CASE(gelu_tanh, a[k] * sigmoid_of<T>(gelu_tanh_gate(a[k])))
    ATTUNE_CASE(quick_gelu, a[k] * sigmoid_of<T>(C(1.702) * a[k]))
    ATTUNE_CASE(sin, C(sine<false>(double(a[k]))))
    ATTUNE_CASE(cos, C(sine<true>(double(a[k]))))
    ATTUNE_CASE(reciprocal, C(1) / a[k])
    ATTUNE_CASE(select, a[k] != C(0) ? b[k] : c[k])
    ATTUNE_CASE(affine, fma_of(p, a[k], q))
    ATTUNE_CASE(clamp, clamp_of(a[k], p, q))
  }
#undef ATTUNE_CASE
}

}  // namespace cuda
}  // namespace attune
