// pair_sums and its vjp (preference.cuh has the formulas): one block a slab of a row. A row of one slab is done in one launch, others in two.
#include "preference.cuh"

namespace attune {
namespace cuda {

struct SumsOut {
  double *E, *D, *P, *C;
  ATTUNE_DEVICE void write(int64_t row, PairSums s, double n) const {
    store(E + row, s.dd / n), store(D + row, (2 * s.dp - s.pp) / n), store(P + row, s.pp / n), store(C + row, s.dp / n);
  }
};

template <typename C>
__global__ void __launch_bounds__(kSlabThreads)
    pair_sums_kernel(Map prediction, Map target, Map reference, double* __restrict__ partials, SumsOut out, int64_t n, int slabs) {
  ATTUNE_SHARED(memory);
  const int64_t row = blockIdx.x / slabs, first = int64_t(blockIdx.x % slabs) * kSlab, last = first + kSlab < n ? first + kSlab : n;
  PairSums s = {0, 0, 0};
  for (int64_t at = first + threadIdx.x * kPack; at < last; at += kSlabThreads * kPack) {
    const int count = int(last - at < kPack ? last - at : kPack);
    C x[kPack], y[kPack], r[kPack];
    prediction.pack(row * n + at, count, x);
    target.pack(row * n + at, count, y);
    if (reference) reference.pack(row * n + at, count, r);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) s.add(x[i], y[i], reference ? r[i] : x[i]);
  }
  s = block_sums(s, reinterpret_cast<double*>(memory));
  if (threadIdx.x != 0) return;
  if (slabs == 1) return out.write(row, s, double(n));
  double* to = partials + int64_t(blockIdx.x) * 3;
  store(to, s.dd), store(to + 1, s.dp), store(to + 2, s.pp);
}

/// One warp a row.
__global__ void __launch_bounds__(256) pair_sums_finish_kernel(const double* __restrict__ partials, SumsOut out, int rows, int64_t n, int slabs) {
  const int row = int(blockIdx.x * 8 + threadIdx.x / 32);
  if (row >= rows) return;
  const PairSums s = row_sums(partials, row, slabs);
  if (threadIdx.x % 32 == 0) out.write(row, s, double(n));
}

/// dprediction = (2 dE d + 2 dD d + 2 dP p + dC (d + p)) / N: D's second term does not hold the prediction.
template <typename T>
__global__ void __launch_bounds__(kSlabThreads)
    pair_sums_vjp_kernel(const double* __restrict__ dE, const double* __restrict__ dD, const double* __restrict__ dP, const double* __restrict__ dC,
                         Map prediction, Map target, Map reference, T* __restrict__ dx, int64_t n, int slabs) {
  using C = compute_t<T>;
  const int64_t row = blockIdx.x / slabs, first = int64_t(blockIdx.x % slabs) * kSlab, last = first + kSlab < n ? first + kSlab : n;
  double of_d = 2 * load(dE + row), of_p = 0;
  if (reference) of_d += 2 * load(dD + row) + load(dC + row), of_p = 2 * load(dP + row) + load(dC + row);
  const C a = C(of_d / double(n)), b = C(of_p / double(n));
  for (int64_t at = first + threadIdx.x * kPack; at < last; at += kSlabThreads * kPack) {
    const int count = int(last - at < kPack ? last - at : kPack);
    C x[kPack], y[kPack], r[kPack];
    prediction.pack(row * n + at, count, x);
    target.pack(row * n + at, count, y);
    if (reference) reference.pack(row * n + at, count, r);
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) x[i] = a * (x[i] - y[i]) + (reference ? b * (x[i] - r[i]) : C(0));
    store_pack(dx + row * n + at, count, x);
  }
}

void pair_sums_op(const OpArgs& args) {
  const int64_t rows = args.out[0].numel(), n = args.in[0].numel() / rows;
  const int slabs = int(ceil_div(n, kSlab));
  double* partials = slabs > 1 ? args.scratch<double>(rows * slabs * 3) : nullptr;
  const SumsOut out{args.out[0].as<double>(), args.out[1].as<double>(), args.out[2].as<double>(), args.out[3].as<double>()};
  const Map reference = args.has(2) ? Map(args.in[2]) : Map();
  const dim3 grid{unsigned(rows * slabs)}, block{kSlabThreads};
  if (args.in[0].dtype == DType::f64)
    launch(args, pair_sums_kernel<double>, grid, block, block_bytes<double>(), Map(args.in[0]), Map(args.in[1]), reference, partials, out, n, slabs);
  else launch(args, pair_sums_kernel<float>, grid, block, block_bytes<double>(), Map(args.in[0]), Map(args.in[1]), reference, partials, out, n, slabs);
  if (slabs > 1) launch(args, pair_sums_finish_kernel, dim3(unsigned(ceil_div(rows, 8))), dim3(256), 0, partials, out, int(rows), n, slabs);
}

void pair_sums_vjp_op(const OpArgs& args) {
  const int64_t rows = args.in[0].numel(), n = args.in[4].numel() / rows;
  const int slabs = int(ceil_div(n, kSlab));
  const Map reference = args.has(6) ? Map(args.in[6]) : Map();
  dispatch<true>(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, pair_sums_vjp_kernel<T>, dim3(unsigned(rows * slabs)), dim3(kSlabThreads), 0, args.in[0].as<const double>(), args.in[1].as<const double>(),
           args.in[2].as<const double>(), args.in[3].as<const double>(), Map(args.in[4]), Map(args.in[5]), reference, args.out[0].as<T>(), n, slabs);
  });
}

REGISTER_CUDA(pair_sums, pair_sums_op)
REGISTER_CUDA(pair_sums_vjp, pair_sums_vjp_op)

}  // namespace cuda
}  // namespace attune
