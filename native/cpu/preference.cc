// The sums every preference objective is made of, and their gradient: one pass over the predictions each, however the objective combines them.
// With d = prediction - target and p = prediction - reference over the N elements of a sample's segment (a contiguous run, as maps are [B, H, W, C]):
//   E = sum d^2 / N, C = sum d p / N, P = sum p^2 / N, D = E - sum (reference - target)^2 / N = 2 C - P.
// Differences and sums are taken in double: D is of the order of p while E is not, so in float the digits that decide the objective would be lost.
#include "parallel.h"
#include "simd.h"

ATTUNE_CPU_BEGIN
namespace {

/// Elements per partial sum.
constexpr int64_t kChunk = 16384;

struct Sums {
  double dd, dp, pp;
};

template <typename T>
Sums chunk_sums(const T* prediction, const T* target, const T* reference, int64_t n) {
  double dd = 0, dp = 0, pp = 0;
  if (!reference) {
#pragma omp simd reduction(+ : dd)
    for (int64_t i = 0; i < n; i++) {
      const double d = double(prediction[i]) - double(target[i]);
      dd += d * d;
    }
    return {dd, 0, 0};
  }
#pragma omp simd reduction(+ : dd, dp, pp)
  for (int64_t i = 0; i < n; i++) {
    const double d = double(prediction[i]) - double(target[i]), p = double(prediction[i]) - double(reference[i]);
    dd += d * d;
    dp += d * p;
    pp += p * p;
  }
  return {dd, dp, pp};
}

void pair_sums_kernel(const OpArgs& args) {
  const int64_t rows = args.out[0].numel(), n = args.in[0].numel() / rows, chunks = ceil_div(n, kChunk);
  Sums* partials = static_cast<Sums*>(args.workspace.get(size_t(rows * chunks) * sizeof(Sums)));
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const T *prediction = args.in[0].as<const T>(), *target = args.in[1].as<const T>();
    const T* reference = args.has(2) ? args.in[2].as<const T>() : nullptr;
    parallel_ranges(args.pool, rows * chunks, max_of(1, kChunk / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t at = i / chunks * n + i % chunks * kChunk, count = min_of(kChunk, n - i % chunks * kChunk);
        partials[i] = chunk_sums(prediction + at, target + at, reference ? reference + at : nullptr, count);
      }
    });
  });
  for (int64_t row = 0; row < rows; row++) {
    Sums s = {0, 0, 0};
    for (int64_t i = row * chunks; i < (row + 1) * chunks; i++) s.dd += partials[i].dd, s.dp += partials[i].dp, s.pp += partials[i].pp;
    args.out[0].as<double>()[row] = s.dd / double(n);
    args.out[1].as<double>()[row] = (2 * s.dp - s.pp) / double(n);
    args.out[2].as<double>()[row] = s.pp / double(n);
    args.out[3].as<double>()[row] = s.dp / double(n);
  }
}

/// dprediction = (2 dE d + 2 dD d + 2 dP p + dC (d + p)) / N: D's second term does not hold the prediction.
void pair_sums_vjp_kernel(const OpArgs& args) {
  const double *dE = args.in[0].as<const double>(), *dD = args.in[1].as<const double>(), *dP = args.in[2].as<const double>(),
               *dC = args.in[3].as<const double>();
  const int64_t rows = args.in[0].numel(), n = args.in[4].numel() / rows, chunks = ceil_div(n, kChunk);
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const T *prediction = args.in[4].as<const T>(), *target = args.in[5].as<const T>();
    const T* reference = args.has(6) ? args.in[6].as<const T>() : nullptr;
    T* dx = args.out[0].as<T>();
    parallel_ranges(args.pool, rows * chunks, max_of(1, kChunk / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t row = i / chunks, from = row * n + i % chunks * kChunk, to = min_of(from + kChunk, (row + 1) * n);
        if (reference) {
          const T a = T((2 * dE[row] + 2 * dD[row] + dC[row]) / double(n)), b = T((2 * dP[row] + dC[row]) / double(n));
#pragma omp simd
          for (int64_t k = from; k < to; k++) dx[k] = a * (prediction[k] - target[k]) + b * (prediction[k] - reference[k]);
        } else {
          const T a = T(2 * dE[row] / double(n));
#pragma omp simd
          for (int64_t k = from; k < to; k++) dx[k] = a * (prediction[k] - target[k]);
        }
      }
    });
  });
}

}  // namespace

REGISTER_CPU(pair_sums, pair_sums_kernel)
REGISTER_CPU(pair_sums_vjp, pair_sums_vjp_kernel)
ATTUNE_CPU_END
