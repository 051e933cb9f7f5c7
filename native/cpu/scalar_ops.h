// The elementwise ops as functions of one element. elementwise.cc runs each over tensors, tape.cc chains them over blocks; both get the same bits.
#pragma once
#include "simd.h"

ATTUNE_CPU_BEGIN

// name, expression of a and b
#define ATTUNE_BINARY_OPS(X)              \
  X(add, a + b)                           \
  X(sub, a - b)                           \
  X(mul, a* b)                            \
  X(div, a / b)                           \
  X(maximum, (a > b) | (a != a) ? a : b)  \
  X(minimum, (a < b) | (a != a) ? a : b)  \
  X(greater, a > b ? T(1) : T(0))         \
  X(silu_vjp, a* silu_slope(b))           \
  X(gelu_vjp, a* gelu_slope(b))           \
  X(gelu_tanh_vjp, a* gelu_tanh_slope(b)) \
  X(quick_gelu_vjp, a* quick_gelu_slope(b))

// name, expression of x
#define ATTUNE_UNARY_OPS(X)                         \
  X(neg, -x)                                        \
  X(exp, math::exp(x))                              \
  X(log, math::log(x))                              \
  X(log1p, math::log1p(x))                          \
  X(sqrt, std::sqrt(x))                             \
  X(rsqrt, T(1) / std::sqrt(x))                     \
  X(square, x* x)                                   \
  X(abs, std::fabs(x))                              \
  X(sigmoid, math::sigmoid(x))                      \
  X(softplus, math::softplus(x))                    \
  X(tanh, math::tanh(x))                            \
  X(relu, x < T(0) ? T(0) : x)                      \
  X(silu, x* math::sigmoid(x))                      \
  X(gelu, x* math::normal_cdf(x))                   \
  X(gelu_tanh, x* math::sigmoid(gelu_tanh_gate(x))) \
  X(quick_gelu, x* math::sigmoid(T(1.702) * x))     \
  X(sin, std::sin(x))                               \
  X(cos, std::cos(x))                               \
  X(reciprocal, T(1) / x)

/// sigmoid(x), and its slope sigmoid(x) sigmoid(-x): s (1 - s) would keep no digits of it where s is near 1, and x times it is a gradient.
template <typename T>
struct Sigmoid {
  T value, slope;
};
template <typename T>
ATTUNE_INLINE Sigmoid<T> sigmoid_with_slope(T x) {
  const T e = math::exp_minus_abs(x), large = T(1) / (T(1) + e), small = e * large;
  return {x < T(0) ? small : large, small * large};
}
template <typename T>
ATTUNE_INLINE T silu_slope(T x) {
  const Sigmoid<T> s = sigmoid_with_slope(x);
  return s.value + x * s.slope;
}
template <typename T>
ATTUNE_INLINE T gelu_slope(T x) {
  return math::normal_cdf(x) + x * math::normal_pdf(x);
}
/// (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
template <typename T>
ATTUNE_INLINE T gelu_tanh_gate(T x) {
  return T(1.59576912160573071176) * (x + T(0.044715) * x * x * x);
}
template <typename T>
ATTUNE_INLINE T gelu_tanh_slope(T x) {
  const Sigmoid<T> s = sigmoid_with_slope(gelu_tanh_gate(x));
  return s.value + x * s.slope * T(1.59576912160573071176) * (T(1) + T(0.134145) * x * x);
}
template <typename T>
ATTUNE_INLINE T quick_gelu_slope(T x) {
  const Sigmoid<T> s = sigmoid_with_slope(T(1.702) * x);
  return s.value + T(1.702) * x * s.slope;
}

#define ATTUNE_DEFINE_BINARY(name, expression) \
  struct name##_op {                           \
    template <typename T>                      \
    ATTUNE_INLINE static T apply(T a, T b) {   \
      return expression;                       \
    }                                          \
  };
ATTUNE_BINARY_OPS(ATTUNE_DEFINE_BINARY)

#define ATTUNE_DEFINE_UNARY(name, expression) \
  struct name##_op {                          \
    template <typename T>                     \
    ATTUNE_INLINE static T apply(T x) {       \
      return expression;                      \
    }                                         \
  };
ATTUNE_UNARY_OPS(ATTUNE_DEFINE_UNARY)

template <typename T>
ATTUNE_INLINE T clamp_value(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

ATTUNE_CPU_END
