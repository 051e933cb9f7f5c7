// A tensor as a kernel sees it: an address, a type and a dense row-major shape. It owns nothing.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace attune {

constexpr int kMaxRank = 6;

struct TensorRef {
  void* data = nullptr;  // nullptr: an optional input that was not given
  DType dtype = DType::f32;
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
  }
  int64_t bytes() const { return numel() * int64_t(dtype_size(dtype)); }
  /// Dimension i; negative counts from the end.
  int64_t dim(int i) const { return dims[i < 0 ? rank + i : i]; }
  /// Product of all dimensions but the last: rows of a token matrix.
  int64_t rows() const { return rank == 0 ? 1 : numel() / (dims[rank - 1] ? dims[rank - 1] : 1); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace attune
