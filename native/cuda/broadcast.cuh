// Numpy broadcasting: where the operands of an output's element lie. Axes that all operands step through alike are merged, so that equal shapes are one run,
// [C] against [B, H, W, C] is a matrix with repeated rows and [B, 1, 1, C] is three axes; a vector of lanes within one innermost row divides once, not per
// element.
#pragma once
#include "divide.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

/// N operands against one output shape. An operand's innermost stride is 1, or 0 where it repeats.
template <int N>
struct Walk {
  int rank = 0;
  Divider dims[kMaxRank];
  int64_t strides[N][kMaxRank] = {};

  /// Operand positions of output element i.
  ATTUNE_DEVICE void at(int64_t i, int64_t (&position)[N]) const {
    ATTUNE_UNROLL
    for (int k = 0; k < N; k++) position[k] = 0;
    ATTUNE_ROLLED
    for (int axis = rank - 1; axis >= 0; axis--) {
      const int64_t rest = axis > 0 ? dims[axis].quotient(i) : 0, index = i - rest * dims[axis].divisor;
      ATTUNE_UNROLL
      for (int k = 0; k < N; k++) position[k] += index * strides[k][axis];
      i = rest;
    }
  }
  ATTUNE_DEVICE bool repeats(int k) const { return rank == 0 || strides[k][rank - 1] == 0; }
  /// Whether every `lanes` elements, counted from the start, lie within one innermost row.
  bool in_rows(int lanes) const { return rank == 1 || (rank > 1 && dims[rank - 1].divisor % lanes == 0); }
};

template <int N>
Walk<N> walk_of(const TensorRef& out, const TensorRef* const (&inputs)[N]) {
  int64_t steps[N][kMaxRank], dims[kMaxRank];
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
    const int to = merges ? walk.rank - 1 : walk.rank++;
    dims[to] = merges ? dims[to] * dim : dim;
    for (int k = 0; k < N; k++) walk.strides[k][to] = steps[k][axis];
  }
  for (int axis = 0; axis < walk.rank; axis++) walk.dims[axis] = Divider(dims[axis]);
  return walk;
}

/// N lanes of an operand from position p on: a vector, or one repeated element.
template <int N, typename T>
ATTUNE_DEVICE void operand_lanes(const T* p, bool repeats, compute_t<T> (&v)[N] ATTUNE_HERE) {
  if (!repeats) return load_lanes<N>(p, v ATTUNE_HERE_ARGS);
  const compute_t<T> one = to_float(load(p ATTUNE_HERE_ARGS));
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) v[i] = one;
}

}  // namespace cuda
}  // namespace attune
