// Softmax over the last axis and its gradient. Sums are taken in double, so a row's probabilities add up to 1 within rounding of T at any length.
#include "parallel.h"
#include "simd.h"

ATTUNE_CPU_BEGIN
namespace {

template <typename T>
T row_max(const T* x, int64_t n) {
  T m = x[0];
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
  return m;
}

template <typename T>
void softmax_row(const T* x, T* y, int64_t n) {
  const T m = row_max(x, n);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) {
    const T e = math::exp(x[i] - m);
    y[i] = e;
    sum += double(e);
  }
  const T scale = T(1.0 / sum);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] *= scale;
}

/// dx = y (dy - <dy, y>).
template <typename T>
void softmax_vjp_row(const T* dy, const T* y, T* dx, int64_t n) {
  double dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; i++) dot += double(dy[i]) * double(y[i]);
  const T shared = T(dot);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - shared);
}

void softmax_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = args.in[0].dim(-1);
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.in[0].rows(), kMathGrain / n, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) softmax_row(x + row * n, y + row * n, n);
    });
  });
}

void softmax_vjp_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = args.in[0].dim(-1);
    const T *dy = args.in[0].as<const T>(), *y = args.in[1].as<const T>();
    T* dx = args.out[0].as<T>();
    parallel_ranges(args.pool, args.in[0].rows(), kGrain / n, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) softmax_vjp_row(dy + row * n, y + row * n, dx + row * n, n);
    });
  });
}

}  // namespace

REGISTER_CPU(softmax, softmax_kernel)
REGISTER_CPU(softmax_vjp, softmax_vjp_kernel)
ATTUNE_CPU_END
