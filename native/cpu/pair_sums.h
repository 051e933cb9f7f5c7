// The sums every preference objective is made of, and their gradient: one pass over the predictions each, however the objective combines them.
// With d = prediction - target and p = prediction - reference over the N elements of a sample's segment (a contiguous run, as maps are [B, H, W, C]):
//   E = sum d^2 / N, C = sum d p / N, P = sum p^2 / N, D = E - sum (reference - target)^2 / N = 2 C - P.
// Differences and sums are taken in double: D is of the order of p while E is not, so in float the digits that decide the objective would be lost.
#pragma once
#include "parallel.h"
#include "reduced_float.h"

ATTUNE_CPU_BEGIN

/// Elements per partial sum, and per block where a map has to be widened first.
constexpr int64_t kChunk = 16384, kWidened = 256;

/// A map read as T: double for f64, float for f32 and bf16.
template <typename T>
struct MapReader {
  const T* direct = nullptr;
  const uint16_t* narrow = nullptr;

  explicit MapReader(const TensorRef* t) {
    if (!t) return;
    if (t->dtype == DType::bf16) narrow = t->as<const uint16_t>();
    else if ((t->dtype == DType::f64) == (sizeof(T) == 8)) direct = t->as<const T>();
    else throw Error("ERR_PROGRAM", std::string("expected maps in f64, or in f32 and bf16, received ") + dtype_name(t->dtype) + " beside another");
  }
  explicit operator bool() const { return direct || narrow; }

  const T* block(int64_t at, int64_t n, T* buffer) const {
    if (!narrow) return direct ? direct + at : nullptr;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) buffer[i] = T(BF16::load(narrow[at + i]));
    return buffer;
  }
};

struct Sums {
  double dd, dp, pp;
};

/// Rows of n elements of prediction, target and reference (null: none).
template <typename T>
struct PairMaps {
  MapReader<T> prediction, target, reference;
  int64_t rows, n;

  PairMaps(const TensorRef& prediction, const TensorRef& target, const TensorRef* reference, int64_t rows)
      : prediction(&prediction), target(&target), reference(reference), rows(rows), n(prediction.numel() / rows) {}

  int64_t chunks() const { return ceil_div(n, kChunk); }

  /// fn(place in the maps, count, prediction, target, reference) over [from, to), whole where nothing has to be widened.
  template <typename F>
  void blocks(int64_t from, int64_t to, F&& fn) const {
    T buffers[3][kWidened];
    const int64_t step = prediction.narrow || target.narrow || reference.narrow ? kWidened : kChunk;
    for (int64_t at = from; at < to; at += step) {
      const int64_t count = min_of(step, to - at);
      fn(at, count, prediction.block(at, count, buffers[0]), target.block(at, count, buffers[1]), reference.block(at, count, buffers[2]));
    }
  }

  /// fn(row, from, to) for chunks of every row, in parallel; `chunk` counts them.
  template <typename F>
  void each_chunk(ThreadPool& pool, F&& fn) const {
    const int64_t per_row = chunks(), length = n;
    parallel_ranges(pool, rows * per_row, max_of(1, kChunk / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t row = i / per_row, from = row * length + i % per_row * kChunk;
        fn(i, row, from, min_of(from + kChunk, (row + 1) * length));
      }
    });
  }
};

template <typename T>
inline void add_sums(Sums* sums, const T* prediction, const T* target, const T* reference, int64_t n) {
  double dd = 0, dp = 0, pp = 0;
  if (!reference) {
#pragma omp simd reduction(+ : dd)
    for (int64_t i = 0; i < n; i++) {
      const double d = double(prediction[i]) - double(target[i]);
      dd += d * d;
    }
  } else {
#pragma omp simd reduction(+ : dd, dp, pp)
    for (int64_t i = 0; i < n; i++) {
      const double d = double(prediction[i]) - double(target[i]), p = double(prediction[i]) - double(reference[i]);
      dd += d * d;
      dp += d * p;
      pp += p * p;
    }
  }
  sums->dd += dd, sums->dp += dp, sums->pp += pp;
}

/// E, D, P, C of every row, to[k][row]. `partials`: rows * chunks().
template <typename T>
inline void pair_sums_of(ThreadPool& pool, const PairMaps<T>& maps, Sums* partials, double* const (&to)[4]) {
  maps.each_chunk(pool, [&](int64_t chunk, int64_t, int64_t from, int64_t end) {
    partials[chunk] = {0, 0, 0};
    maps.blocks(from, end, [&](int64_t, int64_t count, const T* x, const T* y, const T* r) { add_sums(&partials[chunk], x, y, r, count); });
  });
  const int64_t chunks = maps.chunks();
  for (int64_t row = 0; row < maps.rows; row++) {
    Sums s = {0, 0, 0};
    for (int64_t i = row * chunks; i < (row + 1) * chunks; i++) s.dd += partials[i].dd, s.dp += partials[i].dp, s.pp += partials[i].pp;
    const double n = double(maps.n);
    to[0][row] = s.dd / n, to[1][row] = (2 * s.dp - s.pp) / n, to[2][row] = s.pp / n, to[3][row] = s.dp / n;
  }
}

/// dprediction = (2 dE d + 2 dD d + 2 dP p + dC (d + p)) / N, the gradients given as from[k][row]: D's second term does not hold the prediction.
template <typename T>
inline void pair_gradient(ThreadPool& pool, const PairMaps<T>& maps, const double* const (&from)[4], const TensorRef& dprediction) {
  const auto [dE, dD, dP, dC] = from;
  maps.each_chunk(pool, [&, dE = dE, dD = dD, dP = dP, dC = dC](int64_t, int64_t row, int64_t begin, int64_t end) {
    const double n = double(maps.n);
    const bool reference = bool(maps.reference);
    const T a = T((reference ? 2 * dE[row] + 2 * dD[row] + dC[row] : 2 * dE[row]) / n), b = reference ? T((2 * dP[row] + dC[row]) / n) : T(0);
    T buffer[kWidened];
    maps.blocks(begin, end, [&](int64_t at, int64_t count, const T* x, const T* y, const T* r) {
      const bool narrow = dprediction.dtype == DType::bf16;  // then the prediction is too, and blocks are short
      T* dx = narrow ? buffer : dprediction.as<T>() + at;
      if (r) {
#pragma omp simd
        for (int64_t k = 0; k < count; k++) dx[k] = a * (x[k] - y[k]) + b * (x[k] - r[k]);
      } else {
#pragma omp simd
        for (int64_t k = 0; k < count; k++) dx[k] = a * (x[k] - y[k]);
      }
      for (int64_t k = 0; narrow && k < count; k++) dprediction.as<uint16_t>()[at + k] = BF16::store(buffer[k]);
    });
  });
}

/// body(tag of what maps are read as).
template <typename Body>
inline void dispatch_maps(DType prediction, Body&& body) {
  if (prediction == DType::f64) body(double{});
  else body(float{});
}

ATTUNE_CPU_END
