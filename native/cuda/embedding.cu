// Table lookups, their gradient, and diffusers' sinusoidal timestep embedding. An id outside of the table is reported as a fault, the first one by position,
// and reads as zeros. Bytes moved by a lookup: the rows once in and once out; by its gradient: the table once, and the rows of dy once.
#include "broadcast.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

constexpr int kLookupThreads = 256;

/// One block: the first id outside of [0, rows) goes to the fault record, unless something is there.
__global__ void __launch_bounds__(kLookupThreads)
    check_ids_kernel(const int32_t* __restrict__ ids, int64_t count, int32_t rows, int32_t instruction, int32_t* fault) {
  ATTUNE_SHARED(memory);
  int64_t* first = reinterpret_cast<int64_t*>(memory);
  int64_t bad = count;
  for (int64_t i = threadIdx.x; i < count && bad == count; i += kLookupThreads) {
    const int32_t id = load(ids + i);
    if (id < 0 || id >= rows) bad = i;
  }
  store(first + threadIdx.x, bad);
  __syncthreads();
  if (threadIdx.x != 0) return;
  ATTUNE_ROLLED
  for (int t = 1; t < kLookupThreads; t++) {
    const int64_t other = load(first + t);
    bad = other < bad ? other : bad;
  }
  if (bad == count || load(fault) != 0) return;
  store(fault, int32_t(1)), store(fault + 1, instruction), store(fault + 2, load(ids + bad)), store(fault + 3, rows);
}

static void check_ids(const OpArgs& args, const TensorRef& ids, int64_t rows) {
  launch(args, check_ids_kernel, dim3(1), dim3(kLookupThreads), kLookupThreads * 8, ids.as<const int32_t>(), ids.numel(), int32_t(rows), args.instruction,
         args.fault);
}

/// Rows of `units` units U.
template <typename U>
__global__ void __launch_bounds__(kLookupThreads) embedding_kernel(const U* __restrict__ table, const int32_t* __restrict__ ids, U* __restrict__ y,
                                                                   const __grid_constant__ Divider units, int64_t count, int32_t rows) {
  ATTUNE_ROLLED
  for (int64_t i = int64_t(blockIdx.x) * kLookupThreads + threadIdx.x; i < count * units.divisor; i += int64_t(gridDim.x) * kLookupThreads) {
    const int64_t row = units.quotient(i);
    const int32_t id = load(ids + row);
    store(y + i, id >= 0 && id < rows ? load(table + id * units.divisor + i - row * units.divisor) : U{});
  }
}

void embedding_op(const OpArgs& args) {
  const TensorRef &table = args.in[0], &ids = args.in[1], &y = args.out[0];
  const int64_t rows = table.dims[0], bytes = table.bytes() / rows;
  check_ids(args, ids, rows);
  const auto start = [&](auto unit) {
    using U = decltype(unit);
    const Divider units(bytes / int64_t(sizeof(U)));
    launch(args, embedding_kernel<U>, grid_of(args, ceil_div(ids.numel() * units.divisor, kLookupThreads)), dim3(kLookupThreads), 0, table.as<const U>(),
           ids.as<const int32_t>(), y.as<U>(), units, ids.numel(), int32_t(rows));
  };
  if (bytes % 16 == 0) start(uint4{});
  else if (bytes % 8 == 0) start(uint64_t{});
  else if (bytes % 4 == 0) start(uint32_t{});
  else start(uint16_t{});
}

/// Links positions of equal ids: next[i] is the position after i that has its id, or count; follows[that] = 1.
__global__ void __launch_bounds__(kLookupThreads)
    link_ids_kernel(const int32_t* __restrict__ ids, int32_t* __restrict__ next, int32_t* __restrict__ follows, int count) {
  const int i = int(blockIdx.x) * kLookupThreads + int(threadIdx.x);
  if (i >= count) return;
  const int32_t id = load(ids + i);
  int j = i + 1;
  while (j < count && load(ids + j) != id) j++;
  store(next + i, int32_t(j));
  if (j < count) store(follows + j, int32_t(1));
}

/// Block (position, columns): where an id appears first, its rows of dy are added up in order of position.
template <typename T, int N>
__global__ void __launch_bounds__(128)
    embedding_vjp_kernel(const T* __restrict__ dy, const int32_t* __restrict__ ids, const int32_t* __restrict__ next, const int32_t* __restrict__ follows,
                         T* __restrict__ dtable, int count, int64_t columns, int32_t rows) {
  const int position = int(blockIdx.x);
  const int64_t column = (int64_t(blockIdx.y) * 128 + threadIdx.x) * N;
  const int32_t id = load(ids + position);
  if (column >= columns || load(follows + position) != 0 || id < 0 || id >= rows) return;
  compute_t<T> sum[N] = {};
  ATTUNE_ROLLED
  for (int i = position; i < count; i = load(next + i)) {
    compute_t<T> v[N];
    load_lanes<N>(dy + i * columns + column, v);
    ATTUNE_UNROLL
    for (int k = 0; k < N; k++) sum[k] += v[k];
  }
  store_lanes<N>(dtable + id * columns + column, sum);
}

void embedding_vjp_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &ids = args.in[1], &dtable = args.out[0];
  const int64_t rows = dtable.dims[0], columns = dtable.numel() / rows;
  const int count = int(ids.numel());
  check_ids(args, ids, rows);
  int32_t *next = args.scratch<int32_t>(count), *follows = args.scratch<int32_t>(count);
  args.clear(follows, count * int64_t(sizeof(int32_t)));
  args.clear(dtable.data, dtable.bytes());
  launch(args, link_ids_kernel, dim3(unsigned(ceil_div(count, kLookupThreads))), dim3(kLookupThreads), 0, ids.as<const int32_t>(), next, follows, count);
  dispatch<true>(dtable.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto start = [&](auto lanes) {
      launch(args, embedding_vjp_kernel<T, lanes()>, dim3(unsigned(count), unsigned(ceil_div(columns, 128 * lanes()))), dim3(128), 0, dy.as<const T>(),
             ids.as<const int32_t>(), next, follows, dtable.as<T>(), count, columns, int32_t(rows));
    };
    if (columns % lanes_of<T> == 0) start(std::integral_constant<int, lanes_of<T>>{});
    else start(std::integral_constant<int, 1>{});
  });
}

ATTUNE_DEVICE float time_at(DType t, const void* times, int64_t i) {
  if (t == DType::i32) return float(load(static_cast<const int32_t*>(times) + i));
  if (t == DType::bf16) return to_float(load(static_cast<const bf16*>(times) + i));
  if (t == DType::f64) return float(load(static_cast<const double*>(times) + i));
  return load(static_cast<const float*>(times) + i);
}

/// diffusers' get_timestep_embedding: frequencies exp(-ln(maxPeriod) i / (half - shift)) and angles t * frequency are float32 whatever the dtype; the
/// exponential, sine and cosine of such a float are taken in double here. An odd dim ends in a zero.
template <typename T>
__global__ void __launch_bounds__(kLookupThreads) timestep_embedding_kernel(const void* __restrict__ times, DType time_type, T* __restrict__ y, int64_t count,
                                                                            const __grid_constant__ Divider dim, float rate, float divisor, bool flip) {
  const int64_t n = int64_t(blockIdx.x) * kLookupThreads + threadIdx.x;
  if (n >= count * dim.divisor) return;
  const int64_t b = dim.quotient(n), column = n - b * dim.divisor, half = dim.divisor / 2;
  if (column == 2 * half) return store(y + n, from_float<T>(0));
  const bool second = column >= half;
  const float exponent = rate * float(second ? column - half : column) / divisor, frequency = float(exp(double(exponent)));
  const double angle = double(time_at(time_type, times, b) * frequency);
  store(y + n, from_float<T>(compute_t<T>(second != flip ? sine<true>(angle) : sine<false>(angle))));
}

void timestep_embedding_op(const OpArgs& args) {
  const TensorRef &t = args.in[0], &y = args.out[0];
  const int64_t dim = args.attrs.integer("dim"), count = t.numel();
  const float divisor = float(double(dim / 2) - args.attrs.number("shift")), rate = float(-std::log(args.attrs.number("maxPeriod", 10000)));
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, timestep_embedding_kernel<T>, dim3(unsigned(ceil_div(count * dim, kLookupThreads))), dim3(kLookupThreads), 0, t.data, t.dtype, y.as<T>(),
           count, Divider(dim), rate, divisor, args.attrs.flag("flipSinToCos"));
  });
}

REGISTER_CUDA(embedding, embedding_op)
REGISTER_CUDA(embedding_vjp, embedding_vjp_op)
REGISTER_CUDA(timestep_embedding, timestep_embedding_op)

}  // namespace cuda
}  // namespace attune
