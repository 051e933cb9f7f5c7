// Group normalisation (Wu & He 2018, arXiv:1803.08494), optionally with SiLU fused behind it, and its gradient. Variances are a second pass over x,
// not E[x^2] - mean^2, which keeps no digits in float once |mean| / std nears 2^12. A large sample is cut into chunks of pixels that stay in cache
// for both passes; chunks are merged in double by Chan, Golub & LeVeque 1983.
#include "parallel.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

/// Elements per chunk of a sample. A sample up to kWhole of a batch of kEnough is one chunk: it stays in a second-level cache, and its task needs no other.
constexpr int64_t kNormChunk = 32768, kWhole = 131072, kEnough = 8;
/// Rows added up in T before the sum goes on in double.
constexpr int64_t kFlush = 16;
/// Narrow pixels are taken several at a time, as one row about this wide: what is kept per channel is then repeated along the row.
constexpr int64_t kRow = 256;

struct Groups {
  int64_t batch, pixels, channels, groups, size;  // size: channels of a group
  int64_t chunk, chunks;                          // pixels of a chunk, chunks of a sample
  int64_t fold, row;                              // pixels and elements of a row

  Groups(const TensorRef& x, int64_t groups) : batch(x.dims[0]), channels(x.dim(-1)), groups(groups), size(channels / groups) {
    pixels = x.numel() / (batch * channels);
    fold = max_of(1, kRow / channels), row = fold * channels;
    const int64_t limit = batch >= kEnough ? kWhole : kNormChunk;
    chunk = pixels * channels <= limit ? pixels : max_of(kFlush, kNormChunk / channels);
    chunks = ceil_div(pixels, chunk);
  }
  int64_t count(int64_t c) const { return min_of(chunk, pixels - c * chunk); }
  int64_t elements(int64_t c) const { return count(c) * channels; }
  int64_t at(int64_t b, int64_t c) const { return (b * pixels + c * chunk) * channels; }
  /// Samples of one task, where a sample is one chunk.
  int64_t samples() const { return max_of(1, kMathGrain / (pixels * channels)); }

  /// to[i] = f(group, channel) along a row.
  template <typename T, typename F>
  void repeat(T* to, F&& f) const {
    for (int64_t g = 0; g < groups; g++)
      for (int64_t c = g * size; c < (g + 1) * size; c++) to[c] = f(g, c);
    for (int64_t i = channels; i < row; i++) to[i] = to[i - channels];
  }
};

/// Scratch memory of one thread: two rows of double, eight of T.
template <typename T>
struct Scratch {
  double* sums;
  T* rows[8];
  static size_t bytes(int64_t row) { return size_t(row + 16) * (2 * sizeof(double) + 8 * sizeof(T)); }
  Scratch(char* memory, int64_t row) : sums(reinterpret_cast<double*>(memory)) {
    for (int i = 0; i < 8; i++) rows[i] = reinterpret_cast<T*>(sums + 2 * (row + 16)) + i * (row + 16);
  }
};

/// total[i] += sum over rows of f(element, i): kFlush rows in T, then on in double.
template <typename T, typename F>
ATTUNE_INLINE void add_rows(int64_t elements, int64_t row, T* buffer, double* total, F&& f) {
  for (int64_t first = 0; first < elements; first += kFlush * row) {
    const int64_t end = min_of(elements, first + kFlush * row), width = min_of(row, end - first);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) buffer[i] = f(first + i, i);
    for (int64_t at = first + row; at < end; at += row) {
      const int64_t n = min_of(row, end - at);
#pragma omp simd
      for (int64_t i = 0; i < n; i++) buffer[i] += f(at + i, i);
    }
#pragma omp simd
    for (int64_t i = 0; i < width; i++) total[i] += double(buffer[i]);
  }
}

/// Sum over group g of a row of per-channel sums.
inline double group_sum(const Groups& s, const double* row, int64_t g) {
  double sum = 0;
  for (int64_t f = 0; f < s.fold; f++)
    for (int64_t c = g * s.size; c < (g + 1) * s.size; c++) sum += row[f * s.channels + c];
  return sum;
}

/// Mean and sum of squared deviations of each group over one chunk.
struct Moments {
  double mean, squares;
};

template <typename T>
void chunk_moments(const Groups& s, const T* x, int64_t elements, const Scratch<T>& scratch, Moments* moments) {
  double* sums = scratch.sums;
  T *buffer = scratch.rows[0], *mean = scratch.rows[1];
  const double count = double(elements / s.groups);
  for (int64_t i = 0; i < s.row; i++) sums[i] = 0;
  add_rows(elements, s.row, buffer, sums, [=](int64_t at, int64_t) { return x[at]; });
  for (int64_t g = 0; g < s.groups; g++) moments[g].mean = group_sum(s, sums, g) / count;
  s.repeat(mean, [=](int64_t g, int64_t) { return T(moments[g].mean); });
  for (int64_t i = 0; i < s.row; i++) sums[i] = 0;
  add_rows(elements, s.row, buffer, sums, [=](int64_t at, int64_t i) {
    const T d = x[at] - mean[i];
    return d * d;
  });
  for (int64_t g = 0; g < s.groups; g++) {
    const double rounding = moments[g].mean - double(mean[g * s.size]);  // the squares are about the rounded mean
    moments[g].squares = group_sum(s, sums, g) - count * rounding * rounding;
  }
}

/// Mean and 1 / sqrt(variance + eps) of each group of a sample from its chunks' moments [chunks, groups].
template <typename T>
void finish_moments(const Groups& s, const Moments* moments, double eps, T* mean, T* rstd) {
  const double count = double(s.pixels * s.size);
  for (int64_t g = 0; g < s.groups; g++) {
    double mu = 0, squares = 0;
    for (int64_t c = 0; c < s.chunks; c++) mu += moments[c * s.groups + g].mean * double(s.count(c) * s.size);
    mu /= count;
    for (int64_t c = 0; c < s.chunks; c++) {
      const Moments& m = moments[c * s.groups + g];
      squares += m.squares + (m.mean - mu) * (m.mean - mu) * double(s.count(c) * s.size);
    }
    mean[g] = T(mu), rstd[g] = T(1.0 / std::sqrt(squares / count + eps));
  }
}

template <bool kSilu, typename T>
void normalise(const Groups& s, const T* x, T* y, int64_t elements, const T* gamma, const T* beta, const T* group_mean, const T* group_rstd,
               const Scratch<T>& scratch) {
  T *mean = scratch.rows[0], *scale = scratch.rows[1], *shift = scratch.rows[2];
  s.repeat(mean, [=](int64_t g, int64_t) { return group_mean[g]; });
  s.repeat(scale, [=](int64_t g, int64_t c) { return group_rstd[g] * gamma[c]; });
  s.repeat(shift, [=](int64_t, int64_t c) { return beta[c]; });
  for (int64_t at = 0; at < elements; at += s.row) {
    const T* from = x + at;
    T* to = y + at;
    const int64_t n = min_of(s.row, elements - at);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const T z = (from[i] - mean[i]) * scale[i] + shift[i];
      to[i] = kSilu ? silu_op::apply(z) : z;
    }
  }
}

template <bool kSilu, typename T>
void group_norm(const OpArgs& args) {
  const Groups s(args.in[0], args.attrs.integer("groups"));
  const double eps = args.attrs.number("eps");
  const T *x = args.in[0].as<const T>(), *gamma = args.in[1].as<const T>(), *beta = args.in[2].as<const T>();
  T *y = args.out[0].as<T>(), *mean = args.out[1].as<T>(), *rstd = args.out[2].as<T>();
  const size_t moment_bytes = size_t(s.batch * s.chunks * s.groups) * sizeof(Moments), thread_bytes = Scratch<T>::bytes(s.row);
  char* memory = static_cast<char*>(args.workspace.get(moment_bytes + thread_bytes * size_t(args.pool.size())));
  Moments* moments = reinterpret_cast<Moments*>(memory);
  const auto scratch = [&](int thread) { return Scratch<T>(memory + moment_bytes + thread_bytes * size_t(thread), s.row); };
  const auto measure = [&](int64_t b, int64_t c, int thread) {
    chunk_moments(s, x + s.at(b, c), s.elements(c), scratch(thread), moments + (b * s.chunks + c) * s.groups);
  };
  const auto finish = [&](int64_t b) { finish_moments(s, moments + b * s.chunks * s.groups, eps, mean + b * s.groups, rstd + b * s.groups); };
  const auto write = [&](int64_t b, int64_t c, int thread) {
    normalise<kSilu>(s, x + s.at(b, c), y + s.at(b, c), s.elements(c), gamma, beta, mean + b * s.groups, rstd + b * s.groups, scratch(thread));
  };
  if (s.chunks == 1) {
    parallel_threads(args.pool, ceil_div(s.batch, s.samples()), [&](int64_t task, int thread) {
      for (int64_t b = task * s.samples(); b < min_of(s.batch, (task + 1) * s.samples()); b++) measure(b, 0, thread), finish(b), write(b, 0, thread);
    });
    return;
  }
  parallel_threads(args.pool, s.batch * s.chunks, [&](int64_t task, int thread) { measure(task / s.chunks, task % s.chunks, thread); });
  for (int64_t b = 0; b < s.batch; b++) finish(b);
  parallel_threads(args.pool, s.batch * s.chunks, [&](int64_t task, int thread) { write(task / s.chunks, task % s.chunks, thread); });
}

/// What the gradient needs along a row.
template <typename T>
struct RowParameters {
  T *mean, *rstd, *gamma, *beta;
  RowParameters(const Groups& s, const Scratch<T>& scratch, const T* group_mean, const T* group_rstd, const T* channel_gamma, const T* channel_beta)
      : mean(scratch.rows[0]), rstd(scratch.rows[1]), gamma(scratch.rows[2]), beta(scratch.rows[3]) {
    s.repeat(mean, [=](int64_t g, int64_t) { return group_mean[g]; });
    s.repeat(rstd, [=](int64_t g, int64_t) { return group_rstd[g]; });
    s.repeat(gamma, [=](int64_t, int64_t c) { return channel_gamma[c]; });
    s.repeat(beta, [=](int64_t, int64_t c) { return channel_beta[c]; });
  }
};

/// The gradient at the normalised, affine value z, from dy at the output.
template <bool kSilu, typename T>
ATTUNE_INLINE T before_silu(T dy, T z) {
  return kSilu ? silu_vjp_op::apply(dy, z) : dy;
}

/// sums[c] = sum dz, sums[channels + c] = sum dz * normalised over one chunk, dz being the gradient behind the affine map. kKeep: dz goes to `kept`,
/// which may be dy.
template <bool kSilu, bool kKeep, typename T>
void chunk_gradients(const Groups& s, const T* dy, const T* x, T* kept, int64_t elements, const RowParameters<T>& p, const Scratch<T>& scratch, double* sums) {
  T *mean = p.mean, *rstd = p.rstd, *gamma = p.gamma, *beta = p.beta, *dz_sum = scratch.rows[4], *dot_sum = scratch.rows[5];
  double *total = scratch.sums, *total_dot = scratch.sums + s.row;
  for (int64_t i = 0; i < 2 * s.row; i++) total[i] = 0;
  for (int64_t first = 0; first < elements; first += kFlush * s.row) {
    for (int64_t i = 0; i < s.row; i++) dz_sum[i] = dot_sum[i] = 0;
    for (int64_t at = first; at < min_of(elements, first + kFlush * s.row); at += s.row) {
      const T *up = dy + at, *from = x + at;
      T* keep = kept + at;
      const int64_t n = min_of(s.row, elements - at);
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        const T normal = (from[i] - mean[i]) * rstd[i];
        const T dz = before_silu<kSilu>(up[i], normal * gamma[i] + beta[i]);
        dz_sum[i] += dz;
        dot_sum[i] += dz * normal;
        if (kKeep) keep[i] = dz;
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < s.row; i++) total[i] += double(dz_sum[i]), total_dot[i] += double(dot_sum[i]);
  }
  for (int64_t c = 0; c < s.channels; c++) {
    sums[c] = sums[s.channels + c] = 0;
    for (int64_t i = c; i < s.row; i += s.channels) sums[c] += total[i], sums[s.channels + c] += total_dot[i];
  }
}

/// dx = rstd (gamma dz - mean(gamma dz) - normalised * mean(gamma dz * normalised)), means over the group. totals: a sample's sums, as above. kKept: dx holds
/// dz.
template <bool kSilu, bool kKept, typename T>
void chunk_dx(const Groups& s, const T* dy, const T* x, T* dx, int64_t elements, const RowParameters<T>& p, const Scratch<T>& scratch, const double* totals) {
  T *mean = p.mean, *rstd = p.rstd, *gamma = p.gamma, *beta = p.beta, *level = scratch.rows[4], *slope = scratch.rows[5];
  const double count = double(s.pixels * s.size);
  for (int64_t g = 0; g < s.groups; g++) {
    double a = 0, b = 0;
    for (int64_t c = g * s.size; c < (g + 1) * s.size; c++) a += double(gamma[c]) * totals[c], b += double(gamma[c]) * totals[s.channels + c];
    for (int64_t c = g * s.size; c < (g + 1) * s.size; c++) level[c] = T(a / count), slope[c] = T(b / count);
  }
  for (int64_t i = s.channels; i < s.row; i++) level[i] = level[i - s.channels], slope[i] = slope[i - s.channels];
  for (int64_t at = 0; at < elements; at += s.row) {
    const T *up = kKept ? dx + at : dy + at, *from = x + at;
    T* to = dx + at;
    const int64_t n = min_of(s.row, elements - at);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const T normal = (from[i] - mean[i]) * rstd[i];
      const T dz = kKept ? up[i] : before_silu<kSilu>(up[i], normal * gamma[i] + beta[i]);
      to[i] = rstd[i] * (gamma[i] * dz - level[i] - normal * slope[i]);
    }
  }
}

template <bool kSilu, typename T>
void group_norm_vjp(const OpArgs& args) {
  const Groups s(args.in[1], args.attrs.integer("groups"));
  const T *dy = args.in[0].as<const T>(), *x = args.in[1].as<const T>(), *gamma = args.in[2].as<const T>(), *beta = args.in[3].as<const T>();
  const T *mean = args.in[4].as<const T>(), *rstd = args.in[5].as<const T>();
  T *dx = args.out[0].as<T>(), *dgamma = args.out[1].as<T>(), *dbeta = args.out[2].as<T>();
  const int64_t width = 2 * s.channels;  // one chunk's sums
  const size_t sum_bytes = size_t(s.batch * s.chunks * width) * sizeof(double), thread_bytes = Scratch<T>::bytes(s.row);
  char* memory = static_cast<char*>(args.workspace.get(sum_bytes + thread_bytes * size_t(args.pool.size())));
  double* sums = reinterpret_cast<double*>(memory);
  const auto scratch = [&](int thread) { return Scratch<T>(memory + sum_bytes + thread_bytes * size_t(thread), s.row); };
  const auto parameters = [&](int64_t b, int thread) { return RowParameters<T>(s, scratch(thread), mean + b * s.groups, rstd + b * s.groups, gamma, beta); };
  if (s.chunks == 1) {  // the sample is in cache: dz is kept where dx will be
    parallel_threads(args.pool, ceil_div(s.batch, s.samples()), [&](int64_t task, int thread) {
      for (int64_t b = task * s.samples(); b < min_of(s.batch, (task + 1) * s.samples()); b++) {
        const RowParameters<T> p = parameters(b, thread);
        const int64_t at = s.at(b, 0), n = s.elements(0);
        chunk_gradients<kSilu, true>(s, dy + at, x + at, dx + at, n, p, scratch(thread), sums + b * width);
        chunk_dx<kSilu, true>(s, dy + at, x + at, dx + at, n, p, scratch(thread), sums + b * width);
      }
    });
  } else {
    parallel_threads(args.pool, s.batch * s.chunks, [&](int64_t task, int thread) {
      const int64_t b = task / s.chunks, c = task % s.chunks, at = s.at(b, c);
      chunk_gradients<kSilu, false>(s, dy + at, x + at, dx + at, s.elements(c), parameters(b, thread), scratch(thread), sums + task * width);
    });
    parallel_tasks(args.pool, s.batch, [&](int64_t b) {  // a sample's sums, into those of its first chunk
      double* to = sums + b * s.chunks * width;
      for (int64_t c = 1; c < s.chunks; c++)
        for (int64_t i = 0; i < width; i++) to[i] += to[c * width + i];
    });
    parallel_threads(args.pool, s.batch * s.chunks, [&](int64_t task, int thread) {
      const int64_t b = task / s.chunks, c = task % s.chunks, at = s.at(b, c);
      chunk_dx<kSilu, false>(s, dy + at, x + at, dx + at, s.elements(c), parameters(b, thread), scratch(thread), sums + b * s.chunks * width);
    });
  }
  for (int64_t c = 0; c < s.channels; c++) {
    double scale = 0, shift = 0;
    for (int64_t b = 0; b < s.batch; b++) shift += sums[b * s.chunks * width + c], scale += sums[b * s.chunks * width + s.channels + c];
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

}  // namespace

REGISTER_CPU(group_norm, group_norm_kernel)
REGISTER_CPU(group_norm_vjp, group_norm_vjp_kernel)
ATTUNE_CPU_END
