// Group normalisation (Wu & He 2018, arXiv:1803.08494), optionally with SiLU fused behind it, layer normalisation, and their gradients.
// Variances are a second pass over x, not E[x^2] - mean^2, which keeps no digits in float once |mean| / std nears 2^12. A large sample is cut into chunks
// of pixels that stay in cache for both passes; chunks are merged in double by Chan, Golub & LeVeque 1983.
#include "parallel.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

/// Elements per chunk of a sample; samples up to this size are normalised by one task while they are in cache.
constexpr int64_t kNormChunk = 32768;
/// Rows added up in T before the sum goes on in double.
constexpr int64_t kFlush = 16;

struct Groups {
  int64_t batch, pixels, channels, groups, size;  // size: channels of a group
  int64_t chunk, chunks;                           // pixels of a chunk, chunks of a sample

  Groups(const TensorRef& x, int64_t groups) : batch(x.dims[0]), channels(x.dim(-1)), groups(groups), size(channels / groups) {
    pixels = x.numel() / (batch * channels);
    chunk = min_of(pixels, max_of(kFlush, kNormChunk / channels));
    chunks = ceil_div(pixels, chunk);
  }
  int64_t first(int64_t c) const { return c * chunk; }
  int64_t count(int64_t c) const { return min_of(chunk, pixels - c * chunk); }
  int64_t at(int64_t b, int64_t c) const { return (b * pixels + first(c)) * channels; }
};

/// total[c] += sum over rows of f(row, c).
template <typename T, typename F>
ATTUNE_INLINE void add_rows(int64_t rows, int64_t channels, T* buffer, double* total, F&& f) {
  for (int64_t row = 0; row < rows; row += kFlush) {
    const int64_t last = min_of(rows, row + kFlush);
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) buffer[c] = f(row, c);
    for (int64_t r = row + 1; r < last; r++) {
#pragma omp simd
      for (int64_t c = 0; c < channels; c++) buffer[c] += f(r, c);
    }
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) total[c] += double(buffer[c]);
  }
}

inline double group_sum(const double* x, int64_t n) {
  double s = 0;
  for (int64_t i = 0; i < n; i++) s += x[i];
  return s;
}

/// Mean and sum of squared deviations of each group over one chunk.
struct Moments {
  double mean, squares;
};

/// Per-thread scratch: channel sums in double, and rows of T.
template <typename T>
struct Scratch {
  double *sum, *sum2;
  T *buffer, *buffer2, *mean, *scale, *gate, *rest;
  static size_t bytes(int64_t channels) { return size_t(channels + 8) * (2 * sizeof(double) + 6 * sizeof(T)); }
  Scratch(char* memory, int64_t channels) {
    const int64_t n = channels + 8;
    sum = reinterpret_cast<double*>(memory), sum2 = sum + n;
    buffer = reinterpret_cast<T*>(sum2 + n), buffer2 = buffer + n, mean = buffer2 + n, scale = mean + n, gate = scale + n, rest = gate + n;
  }
};

template <typename T>
void chunk_moments(const Groups& g, const T* x, int64_t pixels, const Scratch<T>& s, Moments* moments) {
  const int64_t channels = g.channels;
  for (int64_t c = 0; c < channels; c++) s.sum[c] = 0;
  add_rows(pixels, channels, s.buffer, s.sum, [=](int64_t r, int64_t c) { return x[r * channels + c]; });
  const double count = double(pixels * g.size);
  for (int64_t i = 0; i < g.groups; i++) {
    moments[i].mean = group_sum(s.sum + i * g.size, g.size) / count;
    for (int64_t c = i * g.size; c < (i + 1) * g.size; c++) s.mean[c] = T(moments[i].mean), s.sum[c] = 0;
  }
  const T* mean = s.mean;
  add_rows(pixels, channels, s.buffer, s.sum, [=](int64_t r, int64_t c) {
    const T d = x[r * channels + c] - mean[c];
    return d * d;
  });
  for (int64_t i = 0; i < g.groups; i++) {
    const double rounding = moments[i].mean - double(mean[i * g.size]);  // the squares are about the rounded mean
    moments[i].squares = group_sum(s.sum + i * g.size, g.size) - count * rounding * rounding;
  }
}

/// Mean and 1 / sqrt(variance + eps) of each group of a sample from its chunks' moments [chunks, groups].
template <typename T>
void finish_moments(const Groups& g, const Moments* moments, double eps, T* mean, T* rstd) {
  const double count = double(g.pixels * g.size);
  for (int64_t i = 0; i < g.groups; i++) {
    double mu = 0, squares = 0;
    for (int64_t c = 0; c < g.chunks; c++) mu += moments[c * g.groups + i].mean * double(g.count(c) * g.size);
    mu /= count;
    for (int64_t c = 0; c < g.chunks; c++) {
      const Moments& m = moments[c * g.groups + i];
      squares += m.squares + (m.mean - mu) * (m.mean - mu) * double(g.count(c) * g.size);
    }
    mean[i] = T(mu), rstd[i] = T(1.0 / std::sqrt(squares / count + eps));
  }
}

template <bool kSilu, typename T>
void normalise(const Groups& g, const T* x, T* y, int64_t pixels, const T* gamma, const T* beta, const T* group_mean, const T* group_rstd,
               const Scratch<T>& s) {
  T *mean = s.mean, *scale = s.scale;
  for (int64_t i = 0; i < g.groups; i++)
    for (int64_t c = i * g.size; c < (i + 1) * g.size; c++) mean[c] = group_mean[i], scale[c] = group_rstd[i] * gamma[c];
  for (int64_t r = 0; r < pixels; r++) {
    const T* from = x + r * g.channels;
    T* to = y + r * g.channels;
#pragma omp simd
    for (int64_t c = 0; c < g.channels; c++) {
      const T z = (from[c] - mean[c]) * scale[c] + beta[c];
      to[c] = kSilu ? silu_op::apply(z) : z;
    }
  }
}

template <bool kSilu, typename T>
void group_norm(const OpArgs& args) {
  const Groups g(args.in[0], args.attrs.integer("groups"));
  const double eps = args.attrs.number("eps");
  const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
  T *y = args.out[0].as<T>(), *mean = args.out[1].as<T>(), *rstd = args.out[2].as<T>();
  const size_t moment_bytes = size_t(g.batch * g.chunks * g.groups) * sizeof(Moments), thread_bytes = Scratch<T>::bytes(g.channels);
  char* memory = static_cast<char*>(args.workspace.get(moment_bytes + thread_bytes * size_t(args.pool.size())));
  Moments* moments = reinterpret_cast<Moments*>(memory);
  const auto scratch = [&](int thread) { return Scratch<T>(memory + moment_bytes + thread_bytes * size_t(thread), g.channels); };
  const auto measure = [&](int64_t b, int64_t c, int thread) {
    chunk_moments(g, x + g.at(b, c), g.count(c), scratch(thread), moments + (b * g.chunks + c) * g.groups);
  };
  const auto finish = [&](int64_t b) { finish_moments(g, moments + b * g.chunks * g.groups, eps, mean + b * g.groups, rstd + b * g.groups); };
  const auto write = [&](int64_t b, int64_t c, int thread) {
    normalise<kSilu>(g, x + g.at(b, c), y + g.at(b, c), g.count(c), gamma, beta, mean + b * g.groups, rstd + b * g.groups, scratch(thread));
  };
  if (g.chunks == 1) {
    const int64_t each = max_of(1, kMathGrain / (g.pixels * g.channels));
    parallel_threads(args.pool, ceil_div(g.batch, each), [&](int64_t task, int thread) {
      for (int64_t b = task * each; b < min_of(g.batch, (task + 1) * each); b++) measure(b, 0, thread), finish(b), write(b, 0, thread);
    });
    return;
  }
  parallel_threads(args.pool, g.batch * g.chunks, [&](int64_t task, int thread) { measure(task / g.chunks, task % g.chunks, thread); });
  for (int64_t b = 0; b < g.batch; b++) finish(b);
  parallel_threads(args.pool, g.batch * g.chunks, [&](int64_t task, int thread) { write(task / g.chunks, task % g.chunks, thread); });
}

/// The gradient at the normalised, affine value z, from dy at the output.
template <bool kSilu, typename T>
ATTUNE_INLINE T before_silu(T dy, T z) {
  return kSilu ? silu_vjp_op::apply(dy, z) : dy;
}

/// sums[c] = sum dz, sums[channels + c] = sum dz * normalised, over one chunk.
template <bool kSilu, typename T>
void chunk_gradients(const Groups& g, const T* dy, const T* x, int64_t pixels, const T* gamma, const T* beta, const T* group_mean, const T* group_rstd,
                     const Scratch<T>& s, double* sums) {
  T *mean = s.mean, *scale = s.scale, *dz_sum = s.buffer, *dot_sum = s.buffer2;
  for (int64_t i = 0; i < g.groups; i++)
    for (int64_t c = i * g.size; c < (i + 1) * g.size; c++) mean[c] = group_mean[i], scale[c] = group_rstd[i];
  for (int64_t c = 0; c < 2 * g.channels; c++) sums[c] = 0;
  for (int64_t row = 0; row < pixels; row += kFlush) {
    for (int64_t c = 0; c < g.channels; c++) dz_sum[c] = dot_sum[c] = 0;
    for (int64_t r = row; r < min_of(pixels, row + kFlush); r++) {
      const T *up = dy + r * g.channels, *from = x + r * g.channels;
#pragma omp simd
      for (int64_t c = 0; c < g.channels; c++) {
        const T normal = (from[c] - mean[c]) * scale[c];
        const T dz = before_silu<kSilu>(up[c], normal * gamma[c] + beta[c]);
        dz_sum[c] += dz;
        dot_sum[c] += dz * normal;
      }
    }
#pragma omp simd
    for (int64_t c = 0; c < g.channels; c++) sums[c] += double(dz_sum[c]), sums[g.channels + c] += double(dot_sum[c]);
  }
}

/// dx = rstd (gamma dz - mean(gamma dz) - normalised * mean(gamma dz * normalised)), means over the group. totals: a sample's sums, as above.
template <bool kSilu, typename T>
void chunk_dx(const Groups& g, const T* dy, const T* x, T* dx, int64_t pixels, const T* gamma, const T* beta, const T* group_mean, const T* group_rstd,
              const Scratch<T>& s, const double* totals) {
  T *mean = s.mean, *scale = s.scale, *level = s.gate, *slope = s.rest;
  const double count = double(g.pixels * g.size);
  for (int64_t i = 0; i < g.groups; i++) {
    double a = 0, b = 0;
    for (int64_t c = i * g.size; c < (i + 1) * g.size; c++) a += double(gamma[c]) * totals[c], b += double(gamma[c]) * totals[g.channels + c];
    for (int64_t c = i * g.size; c < (i + 1) * g.size; c++) mean[c] = group_mean[i], scale[c] = group_rstd[i], level[c] = T(a / count), slope[c] = T(b / count);
  }
  for (int64_t r = 0; r < pixels; r++) {
    const T *up = dy + r * g.channels, *from = x + r * g.channels;
    T* to = dx + r * g.channels;
#pragma omp simd
    for (int64_t c = 0; c < g.channels; c++) {
      const T normal = (from[c] - mean[c]) * scale[c];
      const T dz = before_silu<kSilu>(up[c], normal * gamma[c] + beta[c]);
      to[c] = scale[c] * (gamma[c] * dz - level[c] - normal * slope[c]);
    }
  }
}

template <bool kSilu, typename T>
void group_norm_vjp(const OpArgs& args) {
  const Groups g(args.in[1], args.attrs.integer("groups"));
  const T *dy = args.in[0].as<const T>(), *x = args.in[1].as<const T>(), *gamma = args.in[2].as<const T>(), *beta = args.in[3].as<const T>();
  const T *mean = args.in[4].as<const T>(), *rstd = args.in[5].as<const T>();
  T *dx = args.out[0].as<T>(), *dgamma = args.out[1].as<T>(), *dbeta = args.out[2].as<T>();
  const int64_t row = 2 * g.channels;  // one chunk's sums
  const size_t sum_bytes = size_t(g.batch * g.chunks * row) * sizeof(double), thread_bytes = Scratch<T>::bytes(g.channels);
  char* memory = static_cast<char*>(args.workspace.get(sum_bytes + thread_bytes * size_t(args.pool.size())));
  double* sums = reinterpret_cast<double*>(memory);
  const auto scratch = [&](int thread) { return Scratch<T>(memory + sum_bytes + thread_bytes * size_t(thread), g.channels); };
  const auto gradients = [&](int64_t b, int64_t c, int thread) {
    chunk_gradients<kSilu>(g, dy + g.at(b, c), x + g.at(b, c), g.count(c), gamma, beta, mean + b * g.groups, rstd + b * g.groups, scratch(thread),
                           sums + (b * g.chunks + c) * row);
  };
  const auto total = [&](int64_t b) {  // into the sample's first chunk
    double* to = sums + b * g.chunks * row;
    for (int64_t c = 1; c < g.chunks; c++)
      for (int64_t i = 0; i < row; i++) to[i] += to[c * row + i];
  };
  const auto write = [&](int64_t b, int64_t c, int thread) {
    chunk_dx<kSilu>(g, dy + g.at(b, c), x + g.at(b, c), dx + g.at(b, c), g.count(c), gamma, beta, mean + b * g.groups, rstd + b * g.groups,
                    scratch(thread), sums + b * g.chunks * row);
  };
  if (g.chunks == 1) {
    const int64_t each = max_of(1, kMathGrain / (g.pixels * g.channels));
    parallel_threads(args.pool, ceil_div(g.batch, each), [&](int64_t task, int thread) {
      for (int64_t b = task * each; b < min_of(g.batch, (task + 1) * each); b++) gradients(b, 0, thread), write(b, 0, thread);
    });
  } else {
    parallel_threads(args.pool, g.batch * g.chunks, [&](int64_t task, int thread) { gradients(task / g.chunks, task % g.chunks, thread); });
    parallel_tasks(args.pool, g.batch, [&](int64_t b) { total(b); });
    parallel_threads(args.pool, g.batch * g.chunks, [&](int64_t task, int thread) { write(task / g.chunks, task % g.chunks, thread); });
  }
  for (int64_t c = 0; c < g.channels; c++) {
    double scale = 0, shift = 0;
    for (int64_t b = 0; b < g.batch; b++) shift += sums[b * g.chunks * row + c], scale += sums[b * g.chunks * row + g.channels + c];
    dgamma[c] = T(scale), dbeta[c] = T(shift);
  }
}

void group_norm_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.attrs.flag("silu", false)) group_norm<true, T>(args);
    else group_norm<false, T>(args);
  });
}

void group_norm_vjp_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args.attrs.flag("silu", false)) group_norm_vjp<true, T>(args);
    else group_norm_vjp<false, T>(args);
  });
}

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
  const size_t sum_bytes = size_t(chunks * 2 * n) * sizeof(double), thread_bytes = Scratch<T>::bytes(n);
  char* memory = static_cast<char*>(args.workspace.get(sum_bytes + thread_bytes * size_t(args.pool.size())));
  double* sums = reinterpret_cast<double*>(memory);
  parallel_threads(args.pool, chunks, [&](int64_t chunk, int thread) {
    const Scratch<T> s(memory + sum_bytes + thread_bytes * size_t(thread), n);
    double* to = sums + chunk * 2 * n;
    for (int64_t i = 0; i < 2 * n; i++) to[i] = 0;
    for (int64_t row = chunk * each; row < min_of(rows, (chunk + 1) * each); row += kFlush) {
      for (int64_t i = 0; i < n; i++) s.buffer[i] = s.buffer2[i] = 0;
      for (int64_t r = row; r < min_of(min_of(rows, (chunk + 1) * each), row + kFlush); r++)
        layer_norm_vjp_row(dy + r * n, x + r * n, gamma, mean[r], rstd[r], n, dx + r * n, s.buffer, s.buffer2);
      for (int64_t i = 0; i < n; i++) to[i] += double(s.buffer[i]), to[n + i] += double(s.buffer2[i]);
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

REGISTER_CPU(group_norm, group_norm_kernel)
REGISTER_CPU(group_norm_vjp, group_norm_vjp_kernel)
REGISTER_CPU(layer_norm, layer_norm_kernel)
REGISTER_CPU(layer_norm_vjp, layer_norm_vjp_kernel)
ATTUNE_CPU_END
