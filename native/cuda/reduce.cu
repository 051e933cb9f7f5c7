// Sums and maxima over any axes, bias gradients (sum_rows) and squared norms. Axes are merged into kept and reduced ones; where the innermost is reduced, lanes
// of a warp or a block take an output's elements, where it is kept, threads take columns and go down the rows. Long reductions are cut into chunks by the shape
// and the device alone, whose results go to scratch and are reduced in turn: a fixed order. bf16 and f32 add up in f32: at most 128 additions follow one
// another before a chunk's partial sums meet in a tree, so that a sum is off by 2^-24 of the sum of magnitudes times 140 for each level at the very worst, and
// by the root of that as a rule. f64 in f64. Bytes moved: the input once, and results of chunks, a hundredth of it or less.
#include <algorithm>

#include "block.cuh"
#include "broadcast.cuh"

namespace attune {
namespace cuda {

constexpr int kReduceThreads = 256;
constexpr int64_t kReduceChunk = 16384;  // elements of an output that a block takes

enum Reduction : int { kSum, kMax };

template <typename C>
ATTUNE_DEVICE C combine(int reduction, C a, C b) {
  if (reduction == kSum) return a + b;
  return b > a || b != b ? b : a;  // NaN stays
}
template <typename C>
ATTUNE_DEVICE C neutral(int reduction) {
  return reduction == kSum ? C(0) : C(-INFINITY);
}

/// Where results go: bf16, or what is computed in.
struct Results {
  void* data;
  bool narrow;
  template <typename C>
  ATTUNE_DEVICE void put(int64_t i, C v) const {
    if (narrow) store(static_cast<bf16*>(data) + i, from_float<bf16>(float(v)));
    else store(static_cast<C*>(data) + i, v);
  }
};

/// x as kept and reduced axes: an output's elements are `rows` (positions by `reduced`) of `inner` contiguous ones, or one column of them.
struct Axes {
  int64_t outer = 1, rows = 1, inner = 1;
  Walk<1> kept, reduced;  // without the innermost axis
  Divider width{1};       // inner
};

/// acc combined with N elements.
template <typename T, int N>
ATTUNE_DEVICE void combine_lanes(int reduction, raw_t<T, N> raw, compute_t<T> (&acc)[N]) {
  compute_t<T> v[N];
  widen<T, N>(raw, v);
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) acc[i] = combine(reduction, acc[i], v[i]);
}

/// acc combined with what lies at from + i * stride, i = begin, begin + step, ..
template <typename T, int N>
ATTUNE_DEVICE void combine_strided(int reduction, const T* from, int64_t begin, int64_t end, int64_t step, int64_t stride, compute_t<T> (&acc)[N]) {
  constexpr int kAhead = 4;  // loads of a thread in flight together
  int64_t i = begin;
  ATTUNE_ROLLED
  for (; i + (kAhead - 1) * step < end; i += kAhead * step) {
    raw_t<T, N> raw[kAhead];
    ATTUNE_UNROLL
    for (int k = 0; k < kAhead; k++) raw[k] = load_raw<N>(from + (i + k * step) * stride);
    ATTUNE_UNROLL
    for (int k = 0; k < kAhead; k++) combine_lanes<T, N>(reduction, raw[k], acc);
  }
  ATTUNE_ROLLED
  for (; i < end; i += step) combine_lanes<T, N>(reduction, load_raw<N>(from + i * stride), acc);
}

/// Result [o * chunks + chunk] from elements [chunk * each, ..) of output o; `lanes` threads share it: up to 32, or the block.
template <typename T, int N>
__global__ void __launch_bounds__(kReduceThreads) reduce_inner_kernel(int reduction, const T* __restrict__ x, const __grid_constant__ Axes axes,
                                                                      const __grid_constant__ Results to, int64_t chunks, int64_t each, int lanes) {
  using C = compute_t<T>;
  ATTUNE_SHARED(memory);
  C* partial = reinterpret_cast<C*>(memory);
  const int lane = int(threadIdx.x) % lanes;
  const int64_t result = int64_t(blockIdx.x) * (kReduceThreads / lanes) + int(threadIdx.x) / lanes, results = axes.outer * chunks;
  C acc[N];
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) acc[i] = neutral<C>(reduction);
  if (result < results) {
    const int64_t output = chunks > 1 ? result / chunks : result, first = (result - output * chunks) * each, size = axes.rows * axes.inner;
    const int64_t end = first + each < size ? first + each : size;
    int64_t base[1];
    axes.kept.at(output, base);
    const T* from = x + base[0];
    if (axes.rows == 1) {
      combine_strided<T, N>(reduction, from, first + lane * N, end, int64_t(lanes) * N, 1, acc);
    } else {
      ATTUNE_ROLLED
      for (int64_t e = first + lane * N; e < end; e += int64_t(lanes) * N) {
        const int64_t row = axes.width.quotient(e);
        int64_t position[1];
        axes.reduced.at(row, position);
        combine_lanes<T, N>(reduction, load_raw<N>(from + position[0] + e - row * axes.inner), acc);
      }
    }
  }
  ATTUNE_UNROLL
  for (int step = N / 2; step > 0; step /= 2) {
    ATTUNE_UNROLL
    for (int i = 0; i < step; i++) acc[i] = combine(reduction, acc[i], acc[i + step]);
  }
  C value = acc[0];
  ATTUNE_ROLLED
  for (int step = (lanes < 32 ? lanes : 32) / 2; step > 0; step /= 2) value = combine(reduction, value, __shfl_xor_sync(0xffffffffu, value, step));
  if (lanes > 32) {
    if (threadIdx.x % 32 == 0) store(partial + threadIdx.x / 32, value);
    __syncthreads();
    if (threadIdx.x == 0)
      for (int w = 1; w < kReduceThreads / 32; w++) value = combine(reduction, value, load(partial + w));
  }
  if (lane == 0 && result < results) to.put(result, value);
}

/// Result [chunk][outer * inner] from rows [chunk * each, ..): a block has `columns` vectors of N outputs, threads side by side, and as many threads as fit
/// behind them go down their rows. Shared memory: N numbers a thread.
template <typename T, int N>
__global__ void __launch_bounds__(kReduceThreads) reduce_outer_kernel(int reduction, const T* __restrict__ x, const __grid_constant__ Axes axes,
                                                                      const __grid_constant__ Results to, int64_t each, int columns) {
  using C = compute_t<T>;
  ATTUNE_SHARED(memory);
  C* partial = reinterpret_cast<C*>(memory);  // [N][row threads][columns]
  const int column = int(threadIdx.x) % columns, first = int(threadIdx.x) / columns, step = kReduceThreads / columns;
  const int64_t vectors = axes.outer * (axes.inner / N), vector = first < step ? int64_t(blockIdx.x) * columns + column : vectors;
  const int64_t begin = blockIdx.y * each, end = begin + each < axes.rows ? begin + each : axes.rows;
  C acc[N];
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) acc[i] = neutral<C>(reduction);
  if (vector < vectors) {
    const int64_t output = axes.width.quotient(vector * N);
    int64_t base[1];
    axes.kept.at(output, base);
    const T* from = x + base[0] + vector * N - output * axes.inner;
    if (axes.reduced.rank <= 1) {
      combine_strided<T, N>(reduction, from, begin + first, end, step, axes.reduced.strides[0][0], acc);
    } else {
      ATTUNE_ROLLED
      for (int64_t row = begin + first; row < end; row += step) {
        int64_t position[1];
        axes.reduced.at(row, position);
        combine_lanes<T, N>(reduction, load_raw<N>(from + position[0]), acc);
      }
    }
  }
  C* mine = partial + threadIdx.x;  // lane i: mine + i * kReduceThreads
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) store(mine + i * kReduceThreads, acc[i]);
  int span = 1;
  while (span < step) span *= 2;
  ATTUNE_ROLLED
  for (span /= 2; span > 0; span /= 2) {  // row threads from `span` on go into those before them
    __syncthreads();
    if (first >= span || first + span >= step) continue;
    ATTUNE_UNROLL
    for (int i = 0; i < N; i++) {
      acc[i] = combine(reduction, acc[i], load(mine + i * kReduceThreads + span * columns));
      store(mine + i * kReduceThreads, acc[i]);
    }
  }
  if (first > 0 || vector >= vectors) return;
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) to.put((blockIdx.y * vectors + vector) * N + i, acc[i]);
}

/// partial [block]: the squares of 65536 elements, formed and added up in f64, where the product of two f32 is exact.
template <typename T>
__global__ void __launch_bounds__(kReduceThreads, 4) sum_squares_kernel(const T* __restrict__ x, double* __restrict__ partials, int64_t n, int64_t each) {
  constexpr int N = lanes_of<T>;
  ATTUNE_SHARED(memory);
  double* partial = reinterpret_cast<double*>(memory);
  const int64_t begin = blockIdx.x * each, end = begin + each < n ? begin + each : n, whole = aligned(x) ? begin + (end - begin) / N * N : begin;
  double acc[N] = {};
  for (int64_t i = begin + int64_t(threadIdx.x) * N; i < whole; i += kReduceThreads * N) {
    compute_t<T> v[N];
    load_lanes<N>(x + i, v);
    ATTUNE_UNROLL
    for (int k = 0; k < N; k++) acc[k] = fma(double(v[k]), double(v[k]), acc[k]);
  }
  double sum = 0;
  for (int64_t i = whole + threadIdx.x; i < end; i += kReduceThreads) {
    const double v = double(to_float(load(x + i)));
    sum = fma(v, v, sum);
  }
  ATTUNE_UNROLL
  for (int k = 0; k < N; k++) sum += acc[k];
  sum = block_sum(sum, partial);
  if (threadIdx.x == 0) store(partials + blockIdx.x, sum);
}

static int power_of_two(int64_t at_least, int most) {
  int p = 1;
  while (p < at_least && p < most) p *= 2;
  return p;
}

/// Threads side by side for rows of `row` vectors, about `target`: a divisor of the row, or whole rows, so that no tile is left part empty.
static int64_t columns_of(int64_t row, int64_t target) {
  if (row < target) return target / row * row;
  for (int64_t columns = std::min<int64_t>(2 * target, kReduceThreads); columns > target / 2; columns--)
    if (row % columns == 0) return columns;
  return target;
}

/// x with `reduces` axes, merged as they lie: neighbours of one kind are one.
static Axes axes_of(const TensorRef& x, const bool (&reduces)[kMaxRank], bool* inner_reduced) {
  int64_t dims[kMaxRank];
  bool flags[kMaxRank];
  int n = 0;
  for (int axis = 0; axis < x.rank; axis++) {
    if (x.dims[axis] == 1) continue;
    if (n > 0 && flags[n - 1] == reduces[axis]) dims[n - 1] *= x.dims[axis];
    else dims[n] = x.dims[axis], flags[n++] = reduces[axis];
  }
  Axes a;
  *inner_reduced = n == 0 || flags[n - 1];
  if (n == 0) return a;
  a.inner = dims[n - 1], a.width = Divider(a.inner);
  int64_t strides[kMaxRank], stride = a.inner;
  for (int i = n - 2; i >= 0; i--) strides[i] = stride, stride *= dims[i];
  for (int i = 0; i < n - 1; i++) {
    Walk<1>& walk = flags[i] ? a.reduced : a.kept;
    walk.dims[walk.rank] = Divider(dims[i]), walk.strides[0][walk.rank++] = strides[i];
    (flags[i] ? a.rows : a.outer) *= dims[i];
  }
  return a;
}

/// start(lanes): with vectors if `inner` is made of whole ones.
template <typename T, typename Start>
static void by_lanes(int64_t inner, Start&& start) {
  if (inner % lanes_of<T> == 0) start(std::integral_constant<int, lanes_of<T>>{});
  else start(std::integral_constant<int, 1>{});
}

template <typename T>
static void reduce_inner(const OpArgs& args, Reduction reduction, const T* x, const Axes& axes, Results to) {
  using C = compute_t<T>;
  by_lanes<T>(axes.inner, [&](auto lanes) {
    constexpr int N = lanes();
    const int64_t size = axes.rows * axes.inner, chunks = ceil_div(size, kReduceChunk);
    const int threads = size > 2048 ? kReduceThreads : power_of_two(ceil_div(size, N), 32);
    const Results here = chunks == 1 ? to : Results{args.scratch<C>(axes.outer * chunks), false};
    launch(args, reduce_inner_kernel<T, N>, dim3(unsigned(ceil_div(axes.outer * chunks, kReduceThreads / threads))), dim3(kReduceThreads), block_bytes<C>(),
           int(reduction), x, axes, here, chunks, kReduceChunk, threads);
    if (chunks == 1) return;
    TensorRef partials;
    partials.rank = 2, partials.dims[0] = axes.outer, partials.dims[1] = chunks;
    bool inner;
    reduce_inner<C>(args, reduction, static_cast<const C*>(here.data), axes_of(partials, {false, true}, &inner), to);
  });
}

template <typename T>
static void reduce_outer(const OpArgs& args, Reduction reduction, const T* x, const Axes& axes, Results to) {
  using C = compute_t<T>;
  by_lanes<T>(axes.inner, [&](auto lanes) {
    constexpr int N = lanes();
    // At most 128 additions a thread; fewer rows a block where there would be too few blocks for the device.
    const int64_t row = axes.inner / N, vectors = axes.outer * row;
    const int columns = int(std::min(vectors, columns_of(row, kReduceThreads / power_of_two(axes.rows, 8))));
    const int64_t tiles = ceil_div(vectors, columns), step = kReduceThreads / columns;
    const int64_t wanted = ceil_div(4 * int64_t(args.caps().multiprocessors), tiles);
    const int64_t each = std::max(16 * step, std::min(128 * step, ceil_div(ceil_div(axes.rows, wanted), step) * step)), chunks = ceil_div(axes.rows, each);
    const Results here = chunks == 1 ? to : Results{args.scratch<C>(chunks * vectors * N), false};
    launch(args, reduce_outer_kernel<T, N>, dim3(unsigned(tiles), unsigned(chunks)), dim3(kReduceThreads), kReduceThreads * N * int(sizeof(C)), int(reduction),
           x, axes, here, each, columns);
    if (chunks == 1) return;
    TensorRef partials;
    partials.rank = 2, partials.dims[0] = chunks, partials.dims[1] = vectors * N;
    bool inner;
    const Axes rest = axes_of(partials, {true, false}, &inner);
    if (inner) reduce_inner<C>(args, reduction, static_cast<const C*>(here.data), rest, to);  // a single column
    else reduce_outer<C>(args, reduction, static_cast<const C*>(here.data), rest, to);
  });
}

static void reduce(const OpArgs& args, Reduction reduction, const bool (&reduces)[kMaxRank]) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  bool inner_reduced;
  const Axes axes = axes_of(x, reduces, &inner_reduced);
  const Results to{y.data, y.dtype == DType::bf16};
  dispatch<true>(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (inner_reduced) reduce_inner<T>(args, reduction, x.as<const T>(), axes, to);
    else reduce_outer<T>(args, reduction, x.as<const T>(), axes, to);
  });
}

static void reduce_axes(const OpArgs& args, Reduction reduction) {
  bool reduces[kMaxRank] = {};
  for (const double axis : args.attrs.list("axes")) reduces[int(axis)] = true;
  reduce(args, reduction, reduces);
}

void sum_op(const OpArgs& args) { reduce_axes(args, kSum); }
void max_op(const OpArgs& args) { reduce_axes(args, kMax); }

void sum_rows_op(const OpArgs& args) {
  bool reduces[kMaxRank] = {};
  for (int axis = 0; axis < args.in[0].rank - 1; axis++) reduces[axis] = true;
  reduce(args, kSum, reduces);
}

void sum_squares_op(const OpArgs& args) {
  const TensorRef& x = args.in[0];
  constexpr int64_t kEach = 65536;
  const int64_t n = x.numel(), blocks = ceil_div(n, kEach);
  double* partials = args.scratch<double>(blocks);
  dispatch<true>(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, sum_squares_kernel<T>, dim3(unsigned(blocks)), dim3(kReduceThreads), block_bytes<double>(), x.as<const T>(), partials, n, kEach);
  });
  TensorRef rest;
  rest.rank = 1, rest.dims[0] = blocks;
  bool inner;
  reduce_inner<double>(args, kSum, partials, axes_of(rest, {true}, &inner), {args.out[0].data, false});
}

REGISTER_CUDA(sum, sum_op)
REGISTER_CUDA(max, max_op)
REGISTER_CUDA(sum_rows, sum_rows_op)
REGISTER_CUDA(sum_squares, sum_squares_op)

}  // namespace cuda
}  // namespace attune
