// Sums (accumulated in double) and maxima over any axes, and repeating. The reduced extent is cut into chunks by the problem's shape alone, a chunk gives one
// partial result, and partials are combined in chunk order: the bits do not depend on threads.
#include "broadcast.h"
#include "simd.h"

ATTUNE_CPU_BEGIN
namespace {

/// Elements that one partial result covers.
constexpr int64_t kChunk = 16384;
/// Columns accumulated together in registers or first-level cache.
constexpr int64_t kColumns = 256;

/// Sum of f(i) over [0, n) in double, as four sums of a quarter each: one chain of additions waits for itself.
template <typename F>
ATTUNE_INLINE double sum_of(int64_t n, F&& f) {
  const int64_t quarter = n < 256 ? 0 : n / 4;
  double a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < quarter; i++) a += f(i), b += f(i + quarter), c += f(i + 2 * quarter), d += f(i + 3 * quarter);
  double rest = 0;
#pragma omp simd reduction(+ : rest)
  for (int64_t i = 4 * quarter; i < n; i++) rest += f(i);
  return (a + b) + (c + d) + rest;
}

template <typename T>
struct Sum {
  using Acc = double;
  static constexpr Acc first() { return 0.0; }
  ATTUNE_INLINE static Acc load(T x) { return double(x); }
  ATTUNE_INLINE static Acc combine(Acc a, Acc b) { return a + b; }
  static Acc run(const T* x, int64_t n) {
    return sum_of(n, [=](int64_t i) { return double(x[i]); });
  }
};

template <typename T>
struct SumSquares : Sum<T> {
  static double run(const T* x, int64_t n) {
    return sum_of(n, [=](int64_t i) { return double(x[i]) * double(x[i]); });
  }
};

template <typename T>
struct Max {
  using Acc = T;
  static constexpr Acc first() { return -T(__builtin_inf()); }
  ATTUNE_INLINE static Acc load(T x) { return x; }
  ATTUNE_INLINE static Acc combine(Acc a, Acc b) { return (b > a) | (b != b) ? b : a; }  // NaN stays
  static Acc run(const T* x, int64_t n) {
    constexpr int64_t kLanes = 16;
    T m[kLanes];
    for (int64_t l = 0; l < kLanes; l++) m[l] = first();
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (int64_t l = 0; l < kLanes; l++) m[l] = combine(m[l], x[i + l]);
    for (; i < n; i++) m[0] = combine(m[0], x[i]);
    for (int64_t l = 1; l < kLanes; l++) m[0] = combine(m[0], m[l]);
    return m[0];
  }
};

/// x as alternating kept and reduced extents, neighbours merged; element strides.
struct Plan {
  int kept = 0, reduced = 0;
  int64_t kept_dims[kMaxRank] = {}, kept_strides[kMaxRank] = {}, reduced_dims[kMaxRank] = {}, reduced_strides[kMaxRank] = {};
  int64_t outer = 1, rows = 1;  // products of the kept and of the reduced dims, without the innermost axis
  int64_t inner = 1;            // the innermost axis
  bool inner_reduced = true;
};

Plan plan_of(const TensorRef& x, const bool (&reduces)[kMaxRank]) {
  int64_t dims[kMaxRank];
  bool flags[kMaxRank];
  int n = 0;
  for (int axis = 0; axis < x.rank; axis++) {
    if (x.dims[axis] == 1) continue;
    if (n > 0 && flags[n - 1] == reduces[axis]) dims[n - 1] *= x.dims[axis];
    else dims[n] = x.dims[axis], flags[n++] = reduces[axis];
  }
  Plan p;
  if (n == 0) return p;
  p.inner = dims[n - 1], p.inner_reduced = flags[n - 1];
  int64_t stride = p.inner;
  int64_t strides[kMaxRank];
  for (int i = n - 2; i >= 0; i--) strides[i] = stride, stride *= dims[i];
  for (int i = 0; i < n - 1; i++) {
    if (flags[i]) p.reduced_dims[p.reduced] = dims[i], p.reduced_strides[p.reduced++] = strides[i], p.rows *= dims[i];
    else p.kept_dims[p.kept] = dims[i], p.kept_strides[p.kept++] = strides[i], p.outer *= dims[i];
  }
  return p;
}

int64_t position_of(int64_t i, int rank, const int64_t* dims, const int64_t* strides) {
  int64_t position = 0;
  for (int axis = rank - 1; axis >= 0; axis--) position += i % dims[axis] * strides[axis], i /= dims[axis];
  return position;
}

/// Reduces rows [begin, end) of one output whose elements are `inner` long and innermost.
template <typename R, typename T>
typename R::Acc reduce_rows(const Plan& p, const T* x, int64_t begin, int64_t end, int64_t column, int64_t columns) {
  auto acc = R::first();
  for (int64_t row = begin; row < end; row++)
    acc = R::combine(acc, R::run(x + position_of(row, p.reduced, p.reduced_dims, p.reduced_strides) + column, columns));
  return acc;
}

/// Innermost axis reduced: outputs are scalars [outer].
template <typename R, typename T, typename Y>
void reduce_inner(const OpArgs& args, const Plan& p, const T* x, Y* y) {
  using Acc = typename R::Acc;
  const auto base = [&](int64_t o) { return x + position_of(o, p.kept, p.kept_dims, p.kept_strides); };
  const int64_t size = p.rows * p.inner;
  if (size <= kChunk) {
    parallel_ranges(args.pool, p.outer, max_of(1, kChunk / size), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) y[o] = Y(reduce_rows<R>(p, base(o), 0, p.rows, 0, p.inner));
    });
    return;
  }
  const int64_t rows_each = max_of(1, kChunk / p.inner), row_chunks = ceil_div(p.rows, rows_each);
  const int64_t columns_each = min_of(p.inner, kChunk), column_chunks = ceil_div(p.inner, columns_each);
  const int64_t chunks = row_chunks * column_chunks;
  Acc* partials = static_cast<Acc*>(args.workspace.get(size_t(p.outer * chunks) * sizeof(Acc)));
  parallel_tasks(args.pool, p.outer * chunks, [&](int64_t task) {
    const int64_t o = task / chunks, row = task % chunks / column_chunks * rows_each, column = task % column_chunks * columns_each;
    partials[task] = reduce_rows<R>(p, base(o), row, min_of(p.rows, row + rows_each), column, min_of(columns_each, p.inner - column));
  });
  for (int64_t o = 0; o < p.outer; o++) {
    Acc acc = R::first();
    for (int64_t i = 0; i < chunks; i++) acc = R::combine(acc, partials[o * chunks + i]);
    y[o] = Y(acc);
  }
}

/// Rows [begin, end) of columns [0, columns) into acc. Narrow contiguous rows are taken several at a time, as one wide row.
template <typename R, typename T>
void reduce_columns(const Plan& p, const T* x, int64_t begin, int64_t end, int64_t columns, typename R::Acc* acc) {
  using Acc = typename R::Acc;
  for (int64_t c = 0; c < columns; c++) acc[c] = R::first();
  int64_t row = begin;
  if (p.reduced == 1 && columns == p.inner && columns <= kColumns / 4) {
    const int64_t fold = kColumns / columns, wide = fold * columns;
    Acc lanes[kColumns];
    for (int64_t c = 0; c < wide; c++) lanes[c] = R::first();
    for (; row + fold <= end; row += fold) {
      const T* from = x + row * columns;
#pragma omp simd
      for (int64_t c = 0; c < wide; c++) lanes[c] = R::combine(lanes[c], R::load(from[c]));
    }
    for (int64_t f = 0; f < fold; f++)
      for (int64_t c = 0; c < columns; c++) acc[c] = R::combine(acc[c], lanes[f * columns + c]);
  }
  for (; row < end; row++) {
    const T* from = x + position_of(row, p.reduced, p.reduced_dims, p.reduced_strides);
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) acc[c] = R::combine(acc[c], R::load(from[c]));
  }
}

/// Innermost axis kept: outputs are rows [outer, inner].
template <typename R, typename T, typename Y>
void reduce_outer(const OpArgs& args, const Plan& p, const T* x, Y* y) {
  using Acc = typename R::Acc;
  const int64_t tile = min_of(p.inner, kColumns), tiles = ceil_div(p.inner, tile);
  const int64_t rows_each = max_of(1, kChunk / tile), chunks = ceil_div(p.rows, rows_each);
  Acc* partials = chunks > 1 ? static_cast<Acc*>(args.workspace.get(size_t(p.outer * chunks * p.inner) * sizeof(Acc))) : nullptr;
  const auto reduce = [&](int64_t o, int64_t t, int64_t chunk) {
    const int64_t column = t * tile, columns = min_of(tile, p.inner - column), row = chunk * rows_each;
    Acc acc[kColumns];
    reduce_columns<R>(p, x + position_of(o, p.kept, p.kept_dims, p.kept_strides) + column, row, min_of(p.rows, row + rows_each), columns, acc);
    if (partials) {
      for (int64_t c = 0; c < columns; c++) partials[(o * chunks + chunk) * p.inner + column + c] = acc[c];
    } else {
      for (int64_t c = 0; c < columns; c++) y[o * p.inner + column + c] = Y(acc[c]);
    }
  };
  const int64_t tasks = p.outer * chunks * tiles, grain = max_of(1, kChunk / (min_of(rows_each, p.rows) * tile));
  parallel_ranges(args.pool, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) reduce(i / (chunks * tiles), i % tiles, i / tiles % chunks);
  });
  if (!partials) return;
  parallel_ranges(args.pool, p.outer * tiles, max_of(1, kChunk / (chunks * tile)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t o = i / tiles, column = i % tiles * tile, columns = min_of(tile, p.inner - column);
      Acc acc[kColumns];
      for (int64_t c = 0; c < columns; c++) acc[c] = R::first();
      for (int64_t chunk = 0; chunk < chunks; chunk++)
        for (int64_t c = 0; c < columns; c++) acc[c] = R::combine(acc[c], partials[(o * chunks + chunk) * p.inner + column + c]);
      for (int64_t c = 0; c < columns; c++) y[o * p.inner + column + c] = Y(acc[c]);
    }
  });
}

template <typename R, typename T, typename Y>
void reduce(const OpArgs& args, const bool (&reduces)[kMaxRank], Y* y) {
  const Plan p = plan_of(args.in[0], reduces);
  if (p.inner_reduced) reduce_inner<R>(args, p, args.in[0].as<const T>(), y);
  else reduce_outer<R>(args, p, args.in[0].as<const T>(), y);
}

template <template <typename> class R>
void reduce_axes(const OpArgs& args) {
  bool reduces[kMaxRank] = {};
  for (const double axis : args.attrs.list("axes")) reduces[int(axis)] = true;
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    reduce<R<T>, T>(args, reduces, args.out[0].as<T>());
  });
}

void sum_rows_kernel(const OpArgs& args) {
  bool reduces[kMaxRank] = {};
  for (int axis = 0; axis < args.in[0].rank - 1; axis++) reduces[axis] = true;
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    reduce<Sum<T>, T>(args, reduces, args.out[0].as<T>());
  });
}

void sum_squares_kernel(const OpArgs& args) {
  const bool reduces[kMaxRank] = {true, true, true, true, true, true};
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    reduce<SumSquares<T>, T>(args, reduces, args.out[0].as<double>());
  });
}

void broadcast_kernel(const OpArgs& args) {
  const TensorRef& out = args.out[0];
  const auto repeat = [&](auto tag) {
    using T = decltype(tag);
    const BlockReader<T> x(args.in[0], out);
    T* y = out.as<T>();
    parallel_ranges(args.pool, out.numel(), kGrain, [&](int64_t begin, int64_t end) { x.gather(begin, end - begin, y + begin); });
  };
  if (dtype_size(out.dtype) == 8) repeat(int64_t{});
  else if (dtype_size(out.dtype) == 4) repeat(int32_t{});
  else if (dtype_size(out.dtype) == 2) repeat(int16_t{});
  else repeat(int8_t{});
}

}  // namespace

REGISTER_CPU(sum, reduce_axes<Sum>)
REGISTER_CPU(max, reduce_axes<Max>)
REGISTER_CPU(sum_rows, sum_rows_kernel)
REGISTER_CPU(sum_squares, sum_squares_kernel)
REGISTER_CPU(broadcast, broadcast_kernel)
ATTUNE_CPU_END
