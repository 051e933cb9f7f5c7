// The two micro kernels and the packers of gemm.h, for float and double.
#include "gemm.h"

ATTUNE_CPU_BEGIN

namespace {

// acc is added to (or replaces) one row of C; the last vector may be partial.
template <typename T, int V>
inline void write_row(const Vec<T>* acc, T* c, int64_t columns, const T* bias, bool accumulate) {
  for (int v = 0; v < V; v++) {
    const int64_t left = columns - v * kLanes<T>;
    T* at = c + v * kLanes<T>;
    Vec<T> value = acc[v];
    if (left >= kLanes<T>) {
      if (bias) value += load<T>(bias + v * kLanes<T>);
      if (accumulate) value += load<T>(at);
      store<T>(at, value);
    } else {
      if (bias) value += load_part<T>(bias + v * kLanes<T>, left);
      if (accumulate) value += load_part<T>(at, left);
      store_part<T>(at, value, left);
    }
  }
}

// Rows past `rows` repeat the last one: they cost time, not correctness, and are not written.
template <typename T, int R, int V>
void rows_kernel(const RowsTile<T>& t) {
  Vec<T> acc[R][V] = {};
  const T* a[R];
  for (int r = 0; r < R; r++) a[r] = t.a[r < t.rows ? r : t.rows - 1] + t.walk.offset;
  const T* b = t.b;
  const int64_t ldb = t.ldb, jump = t.walk.jump, run = t.walk.run;
  int64_t left = t.walk.length, steps = t.walk.head;
  for (;;) {
    for (int64_t k = 0; k < steps; k++, b += ldb) {
      Vec<T> bv[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) bv[v] = load<T>(b + v * kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const Vec<T> av = splat<T>(a[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) acc[r][v] += av * bv[v];
      }
    }
    left -= steps;
    if (left <= 0) break;
    for (int r = 0; r < R; r++) a[r] += steps + jump;
    steps = run < left ? run : left;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
    if (r < t.rows) write_row<T, V>(acc[r], t.c[r] + t.c_offset, t.columns, t.bias, t.accumulate);
}

template <typename T, int R, int V>
void cols_kernel(const ColsTile<T>& t) {
  Vec<T> acc[R][V] = {};
  const T *a = t.a, *b = t.b;
  const int64_t lda = t.lda, ldb = t.ldb;
  for (int64_t k = 0; k < t.length; k++, a += lda, b += ldb) {
    Vec<T> bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) bv[v] = load<T>(b + v * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const Vec<T> av = splat<T>(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) acc[r][v] += av * bv[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
    if (r < t.rows) write_row<T, V>(acc[r], t.c + r * t.ldc, t.columns, nullptr, t.accumulate);
}

}  // namespace

template <typename T>
void rows_tile(const RowsTile<T>& t) {
  constexpr int kHalf = kTileRows / 2;
  if (t.rows > kHalf) {
    if (t.vectors == 1) rows_kernel<T, kTileRows, 1>(t);
    else if (t.vectors == 2) rows_kernel<T, kTileRows, 2>(t);
    else rows_kernel<T, kTileRows, kTileVectors>(t);
  } else {
    if (t.vectors == 1) rows_kernel<T, kHalf, 1>(t);
    else if (t.vectors == 2) rows_kernel<T, kHalf, 2>(t);
    else rows_kernel<T, kHalf, kTileVectors>(t);
  }
}

template <typename T>
void cols_tile(const ColsTile<T>& t) {
  constexpr int kHalf = kTileRows / 2;
  if (t.rows > kHalf) {
    if (t.vectors == 1) cols_kernel<T, kTileRows, 1>(t);
    else if (t.vectors == 2) cols_kernel<T, kTileRows, 2>(t);
    else cols_kernel<T, kTileRows, kTileVectors>(t);
  } else {
    if (t.vectors == 1) cols_kernel<T, kHalf, 1>(t);
    else if (t.vectors == 2) cols_kernel<T, kHalf, 2>(t);
    else cols_kernel<T, kHalf, kTileVectors>(t);
  }
}

template <typename T, int V>
static void copy_vectors(const T* from, int64_t from_ld, int64_t length, T* to, int64_t to_ld) {
  for (int64_t k = 0; k < length; k++, from += from_ld, to += to_ld)
    for (int v = 0; v < V; v++) store<T>(to + v * kLanes<T>, load<T>(from + v * kLanes<T>));
}

template <typename T>
void copy_columns(const T* from, int64_t from_ld, int64_t length, int64_t columns, T* to, int64_t to_ld) {
  if (columns == 3 * kLanes<T>) copy_vectors<T, 3>(from, from_ld, length, to, to_ld);
  else if (columns == 2 * kLanes<T>) copy_vectors<T, 2>(from, from_ld, length, to, to_ld);
  else if (columns == kLanes<T>) copy_vectors<T, 1>(from, from_ld, length, to, to_ld);
  else
    for (int64_t k = 0; k < length; k++) copy_values<T>(to + k * to_ld, from + k * from_ld, columns);
}

template <typename T>
void pack_rows(const T* source, int64_t ld, int64_t length, int64_t columns, int64_t width, T* panel) {
  copy_columns<T>(source, ld, length, columns, panel, width);
  if (columns < width)
    for (int64_t k = 0; k < length; k++) zero_values<T>(panel + k * width + columns, width - columns);
}

template <typename T>
void pack_rows_narrow(const T* source, int64_t ld, int64_t length, int rows, T* panel) {
  if (rows == kTileRows) {
    for (int64_t k = 0; k < length; k++) __builtin_memcpy(panel + k * kTileRows, source + k * ld, sizeof(T) * kTileRows);
  } else {
    for (int64_t k = 0; k < length; k++)
      for (int i = 0; i < kTileRows; i++) panel[k * kTileRows + i] = i < rows ? source[k * ld + i] : T(0);
  }
}

// By squares of kLanes x kLanes, transposed in registers.
template <typename T>
void pack_transposed(const T* source, int64_t ld, int64_t length, int64_t columns, int64_t width, T* panel) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t j = 0; j < width; j += L)
    for (int64_t k = 0; k < length; k += L) {
      const int64_t steps = min_of(L, length - k);
      Vec<T> square[L];
      for (int64_t i = 0; i < L; i++) {
        const T* from = source + (j + i) * ld + k;
        square[i] = j + i >= columns ? Vec<T>{} : steps == L ? load<T>(from) : load_part<T>(from, steps);
      }
      transpose_lanes<T>(square);
      for (int64_t i = 0; i < steps; i++) store<T>(panel + (k + i) * width + j, square[i]);
    }
}

template void rows_tile<float>(const RowsTile<float>&);
template void rows_tile<double>(const RowsTile<double>&);
template void cols_tile<float>(const ColsTile<float>&);
template void cols_tile<double>(const ColsTile<double>&);
template void copy_columns<float>(const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void copy_columns<double>(const double*, int64_t, int64_t, int64_t, double*, int64_t);
template void pack_rows<float>(const float*, int64_t, int64_t, int64_t, int64_t, float*);
template void pack_rows<double>(const double*, int64_t, int64_t, int64_t, int64_t, double*);
template void pack_rows_narrow<float>(const float*, int64_t, int64_t, int, float*);
template void pack_rows_narrow<double>(const double*, int64_t, int64_t, int, double*);
template void pack_transposed<float>(const float*, int64_t, int64_t, int64_t, int64_t, float*);
template void pack_transposed<double>(const double*, int64_t, int64_t, int64_t, int64_t, double*);

ATTUNE_CPU_END
