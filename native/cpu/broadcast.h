// Numpy broadcasting: how inputs are read while the output is walked in row-major order. Axes that all inputs step through alike are merged, so that
// equal shapes are one run, [C] against [B, H, W, C] is a matrix with repeated rows, and the walk divides once per block and never per element.
#pragma once
#include "parallel.h"

ATTUNE_CPU_BEGIN

/// N inputs against one output shape. After collapsing, an input's innermost stride is 1, or 0 if it repeats there.
template <int N>
struct Walk {
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  int64_t strides[N][kMaxRank] = {};

  int64_t inner() const { return rank == 0 ? 1 : dims[rank - 1]; }
  int64_t inner_stride(int k) const { return rank == 0 ? 0 : strides[k][rank - 1]; }
};

template <int N>
inline Walk<N> collapse(const TensorRef& out, const TensorRef* const (&inputs)[N]) {
  int64_t steps[N][kMaxRank];
  for (int k = 0; k < N; k++) {
    int64_t stride = 1;
    for (int axis = out.rank - 1, mine = inputs[k]->rank - 1; axis >= 0; axis--, mine--) {
      const int64_t dim = mine >= 0 ? inputs[k]->dims[mine] : 1;
      steps[k][axis] = dim == 1 ? 0 : stride;
      stride *= dim;
    }
  }
  Walk<N> walk;
  for (int axis = 0; axis < out.rank; axis++) {
    const int64_t dim = out.dims[axis];
    if (dim == 1) continue;
    bool merges = walk.rank > 0;
    for (int k = 0; k < N && merges; k++) merges = walk.strides[k][walk.rank - 1] == steps[k][axis] * dim;
    const int at = merges ? walk.rank - 1 : walk.rank++;
    walk.dims[at] = merges ? walk.dims[at] * dim : dim;
    for (int k = 0; k < N; k++) walk.strides[k][at] = steps[k][axis];
  }
  return walk;
}

/// fn(n, position in the output, position in each input) for the runs of [begin, end) that lie within one innermost row.
template <int N, typename F>
inline void walk_runs(const Walk<N>& walk, int64_t begin, int64_t end, F&& fn) {
  int64_t index[kMaxRank] = {}, base[N] = {};
  const int last = walk.rank - 1;
  const int64_t row = walk.inner();
  int64_t column = begin % row, rest = begin / row;
  for (int axis = last - 1; axis >= 0; axis--) {
    index[axis] = rest % walk.dims[axis], rest /= walk.dims[axis];
    for (int k = 0; k < N; k++) base[k] += index[axis] * walk.strides[k][axis];
  }
  for (int64_t at = begin; at < end;) {
    const int64_t n = min_of(row - column, end - at);
    int64_t position[N];
    for (int k = 0; k < N; k++) position[k] = base[k] + column * walk.inner_stride(k);
    fn(n, at, position);
    at += n, column = 0;
    for (int axis = last - 1; axis >= 0; axis--) {
      for (int k = 0; k < N; k++) base[k] += walk.strides[k][axis];
      if (++index[axis] < walk.dims[axis]) break;
      for (int k = 0; k < N; k++) base[k] -= walk.strides[k][axis] * walk.dims[axis];
      index[axis] = 0;
    }
  }
}

/// One input as dense blocks of the output's elements.
template <typename T>
struct BlockReader {
  const T* data;
  Walk<1> walk;

  BlockReader(const TensorRef& in, const TensorRef& out) : data(in.as<const T>()), walk(collapse<1>(out, {&in})) {}
  BlockReader(const T* data, const Walk<1>& walk) : data(data), walk(walk) {}

  bool dense() const { return walk.rank <= 1 && walk.inner_stride(0) == 1; }
  bool constant() const { return walk.rank == 0 || (walk.rank == 1 && walk.inner_stride(0) == 0); }

  /// Elements [begin, begin + n) as the output numbers them: in place if they lie so, else gathered into `buffer`.
  const T* block(int64_t begin, int64_t n, T* buffer) const {
    if (dense()) return data + begin;
    gather(begin, n, buffer);
    return buffer;
  }

  void gather(int64_t begin, int64_t n, T* to) const {
    const bool repeats = walk.inner_stride(0) == 0;
    walk_runs<1>(walk, begin, begin + n, [&](int64_t run, int64_t at, const int64_t* position) {
      T* y = to + (at - begin);
      const T* x = data + position[0];
      if (repeats) {
        const T value = *x;
#pragma omp simd
        for (int64_t i = 0; i < run; i++) y[i] = value;
      } else {
#pragma omp simd
        for (int64_t i = 0; i < run; i++) y[i] = x[i];
      }
    });
  }
};

ATTUNE_CPU_END
