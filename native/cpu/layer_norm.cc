// Layer normalisation over the last axis (Ba, Kiros & Hinton 2016, arXiv:1607.06450) and its gradient. A row is read twice while it is in cache: mean, then
// squares about it, in double.
#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

/// Rows whose shares of dgamma and dbeta are added up in T before the sum goes on in double.
constexpr int64_t kFlush = 16;

template <typename T>
void layer_norm_row(const T* x, const T* gamma, const T* beta, double eps, int64_t n, T* y, T* mean, T* rstd) {
  double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += double(x[i]);
  const T mu = T(sum / double(n));
  const double rounding = sum / double(n) - double(mu);
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; i++) {
    const double d = double(x[i] - mu);
    squares += d * d;
  }
  const T r = T(1.0 / std::sqrt(squares / double(n) - rounding * rounding + eps));
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mu) * r * gamma[i] + beta[i];
  *mean = mu, *rstd = r;
}

void layer_norm_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = args.in[0].dim(-1);
    const double eps = args.attrs.number("eps");
    const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
    T *y = args.out[0].as<T>(), *mean = args.out[1].as<T>(), *rstd = args.out[2].as<T>();
    parallel_ranges(args.pool, args.in[0].rows(), kGrain / n, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) layer_norm_row(x + row * n, gamma, beta, eps, n, y + row * n, mean + row, rstd + row);
    });
  });
}

/// dx of one row; adds the row's share of dgamma and dbeta.
template <typename T>
void layer_norm_vjp_row(const T* dy, const T* x, const T* gamma, T mean, T rstd, int64_t n, T* dx, T* dgamma, T* dbeta) {
  double level = 0, slope = 0;
#pragma omp simd reduction(+ : level, slope)
  for (int64_t i = 0; i < n; i++) {
    const T normal = (x[i] - mean) * rstd, g = dy[i] * gamma[i];
    level += double(g);
    slope += double(g) * double(normal);
  }
  const T a = T(level / double(n)), b = T(slope / double(n));
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const T normal = (x[i] - mean) * rstd, up = dy[i];
    dgamma[i] += up * normal;
    dbeta[i] += up;
    dx[i] = rstd * (up * gamma[i] - a - normal * b);
  }
}

template <typename T>
void layer_norm_vjp(const OpArgs& args) {
  const int64_t n = args.in[0].dim(-1), rows = args.in[0].rows();
  const T *dy = args.in[0].as<const T>(), *x = args.in[1].as<const T>(), *gamma = args.in[2].as<const T>();
  const T *mean = args.in[3].as<const T>(), *rstd = args.in[4].as<const T>();
  T *dx = args.out[0].as<T>(), *dgamma = args.out[1].as<T>(), *dbeta = args.out[2].as<T>();
  const int64_t each = max_of(kFlush, max_of(kGrain / n, rows / 128)), chunks = ceil_div(rows, each);
  const size_t sum_bytes = size_t(chunks * 2 * n) * sizeof(double), thread_bytes = size_t(2 * n) * sizeof(T);
  char* memory = static_cast<char*>(args.workspace.get(sum_bytes + thread_bytes * size_t(args.pool.size())));
  double* sums = reinterpret_cast<double*>(memory);
  parallel_threads(args.pool, chunks, [&](int64_t chunk, int thread) {
    double* to = sums + chunk * 2 * n;
    for (int64_t i = 0; i < 2 * n; i++) to[i] = 0;
    T *scale = reinterpret_cast<T*>(memory + sum_bytes + thread_bytes * size_t(thread)), *shift = scale + n;
    for (int64_t row = chunk * each; row < min_of(rows, (chunk + 1) * each); row += kFlush) {
      for (int64_t i = 0; i < n; i++) scale[i] = shift[i] = 0;
      for (int64_t r = row; r < min_of(min_of(rows, (chunk + 1) * each), row + kFlush); r++)
        layer_norm_vjp_row(dy + r * n, x + r * n, gamma, mean[r], rstd[r], n, dx + r * n, scale, shift);
      for (int64_t i = 0; i < n; i++) to[i] += double(scale[i]), to[n + i] += double(shift[i]);
    }
  });
  for (int64_t i = 0; i < n; i++) {
    double scale = 0, shift = 0;
    for (int64_t c = 0; c < chunks; c++) scale += sums[c * 2 * n + i], shift += sums[c * 2 * n + n + i];
    dgamma[i] = T(scale), dbeta[i] = T(shift);
  }
}

void layer_norm_vjp_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) { layer_norm_vjp<decltype(tag)>(args); });
}

}  // namespace

REGISTER_CPU(layer_norm, layer_norm_kernel)
REGISTER_CPU(layer_norm_vjp, layer_norm_vjp_kernel)
ATTUNE_CPU_END
