// Moving elements: slice, pad, concat, transpose, and copies for views that the planner could not share. Elements are moved as bits, so every dtype goes.
#include <cstring>

#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

constexpr int64_t kCopyGrain = 256 * 1024;  // bytes

void copy_bytes(ThreadPool& pool, void* to, const void* from, int64_t bytes) {
  if (to == from) return;
  parallel_ranges(pool, bytes, kCopyGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, size_t(end - begin));
  });
}

void copy_kernel(const OpArgs& args) { copy_bytes(args.pool, args.out[0].data, args.in[0].data, args.out[0].bytes()); }

/// A tensor cut at one axis: `outer` rows of `bytes` contiguous bytes, of which one step along the axis takes `step`.
struct Rows {
  int64_t outer, bytes, step;
};
Rows rows_at(const TensorRef& x, int axis) {
  int64_t outer = 1, step = int64_t(dtype_size(x.dtype));
  for (int i = 0; i < axis; i++) outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank; i++) step *= x.dims[i];
  return {outer, step * x.dims[axis], step};
}

/// Copies `bytes` from each of `outer` rows to each of as many others.
void copy_rows(ThreadPool& pool, int64_t outer, int64_t bytes, char* to, int64_t to_stride, const char* from, int64_t from_stride) {
  parallel_ranges(pool, outer, max_of(1, kCopyGrain / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) std::memcpy(to + row * to_stride, from + row * from_stride, size_t(bytes));
  });
}

void slice_kernel(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const Rows x = rows_at(args.in[0], axis), y = rows_at(args.out[0], axis);
  const char* from = args.in[0].as<const char>() + args.attrs.integer("start") * x.step;
  if (x.outer == 1) copy_bytes(args.pool, args.out[0].data, from, y.bytes);
  else copy_rows(args.pool, y.outer, y.bytes, args.out[0].as<char>(), y.bytes, from, x.bytes);
}

void pad_kernel(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const Rows x = rows_at(args.in[0], axis), y = rows_at(args.out[0], axis);
  const int64_t before = args.attrs.integer("before") * y.step;
  const char* from = args.in[0].as<const char>();
  char* to = args.out[0].as<char>();
  parallel_ranges(args.pool, y.outer, max_of(1, kCopyGrain / y.bytes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      char* at = to + row * y.bytes;
      std::memset(at, 0, size_t(before));
      std::memcpy(at + before, from + row * x.bytes, size_t(x.bytes));
      std::memset(at + before + x.bytes, 0, size_t(y.bytes - before - x.bytes));
    }
  });
}

void concat_kernel(const OpArgs& args) {
  const int axis = int(args.attrs.integer("axis"));
  const Rows y = rows_at(args.out[0], axis);
  char* to = args.out[0].as<char>();
  for (int i = 0; i < args.n_in; i++) {
    const Rows x = rows_at(args.in[i], axis);
    if (y.outer == 1) copy_bytes(args.pool, to, args.in[i].data, x.bytes);
    else copy_rows(args.pool, x.outer, x.bytes, to, y.bytes, args.in[i].as<const char>(), x.bytes);
    to += x.bytes;
  }
}

/// The output's axes with the input's element strides, merged where the input is contiguous across them.
struct Permuted {
  int rank = 0;
  int64_t dims[kMaxRank] = {}, strides[kMaxRank] = {}, out_strides[kMaxRank] = {};
};
Permuted permuted(const TensorRef& x, const std::vector<double>& permutation) {
  int64_t strides[kMaxRank] = {}, stride = 1;
  for (int axis = x.rank - 1; axis >= 0; axis--) strides[axis] = stride, stride *= x.dims[axis];
  Permuted p;
  for (int i = 0; i < x.rank; i++) {
    const int axis = int(permutation[size_t(i)]);
    if (x.dims[axis] == 1) continue;
    if (p.rank > 0 && p.strides[p.rank - 1] == strides[axis] * x.dims[axis]) {
      p.dims[p.rank - 1] *= x.dims[axis], p.strides[p.rank - 1] = strides[axis];
    } else {
      p.dims[p.rank] = x.dims[axis], p.strides[p.rank++] = strides[axis];
    }
  }
  stride = 1;
  for (int i = p.rank - 1; i >= 0; i--) p.out_strides[i] = stride, stride *= p.dims[i];
  return p;
}

/// Input and output offsets of position i among the axes in [0, rank) other than a and b.
void offsets_of(const Permuted& p, int64_t i, int a, int b, int64_t* in, int64_t* out) {
  *in = *out = 0;
  for (int axis = p.rank - 1; axis >= 0; axis--) {
    if (axis == a || axis == b) continue;
    *in += i % p.dims[axis] * p.strides[axis], *out += i % p.dims[axis] * p.out_strides[axis];
    i /= p.dims[axis];
  }
}

/// Two axes change places: `fast` is the input's innermost axis, the last one the output's. Tiles keep both sides in cache lines.
template <typename T>
void transpose_tiles(const OpArgs& args, const Permuted& p, int fast) {
  constexpr int64_t kTile = 32;
  const int last = p.rank - 1;
  const int64_t rows = p.dims[fast], columns = p.dims[last], in_stride = p.strides[last], out_stride = p.out_strides[fast];
  const int64_t row_tiles = ceil_div(rows, kTile), column_tiles = ceil_div(columns, kTile);
  const int64_t outer = args.out[0].numel() / (rows * columns), tasks = outer * row_tiles * column_tiles;
  const T* x = args.in[0].as<const T>();
  T* y = args.out[0].as<T>();
  parallel_ranges(args.pool, tasks, max_of(1, kGrain / min_of(rows * columns, kTile * kTile)), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      int64_t in, out;
      offsets_of(p, task / (row_tiles * column_tiles), fast, last, &in, &out);
      const int64_t r0 = task / column_tiles % row_tiles * kTile, c0 = task % column_tiles * kTile;
      const int64_t r1 = min_of(rows, r0 + kTile), c1 = min_of(columns, c0 + kTile);
      for (int64_t r = r0; r < r1; r++)
        for (int64_t c = c0; c < c1; c++) y[out + r * out_stride + c] = x[in + r + c * in_stride];
    }
  });
}

template <typename T>
void transpose(const OpArgs& args, const Permuted& p) {
  const int last = p.rank - 1;
  if (p.rank == 0 || p.strides[last] == 1) {
    const int64_t row = p.rank == 0 ? 1 : p.dims[last], rows = args.out[0].numel() / row;
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, rows, max_of(1, kGrain / row), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        int64_t in, out;
        offsets_of(p, i, last, last, &in, &out);
        std::memcpy(y + out, x + in, size_t(row) * sizeof(T));
      }
    });
    return;
  }
  int fast = 0;
  while (p.strides[fast] != 1) fast++;
  transpose_tiles<T>(args, p, fast);
}

void transpose_kernel(const OpArgs& args) {
  const Permuted p = permuted(args.in[0], args.attrs.list("permutation"));
  switch (dtype_size(args.in[0].dtype)) {
    case 8: return transpose<uint64_t>(args, p);
    case 4: return transpose<uint32_t>(args, p);
    case 2: return transpose<uint16_t>(args, p);
    default: return transpose<uint8_t>(args, p);
  }
}

}  // namespace

REGISTER_CPU(reshape, copy_kernel)
REGISTER_CPU(stop_gradient, copy_kernel)
REGISTER_CPU(slice, slice_kernel)
REGISTER_CPU(pad, pad_kernel)
REGISTER_CPU(concat, concat_kernel)
REGISTER_CPU(transpose, transpose_kernel)
ATTUNE_CPU_END
