// x [n, ..] with z [k, ..] added to its first k rows: a low-rank delta on the policy's half of a batch. Output 0 may lie on x; then only those rows are
// touched, which is the least that can be moved, and else the rest is copied.
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kLeadingThreads = 256;

/// added, n: elements of z and of x.
template <typename T>
__global__ void __launch_bounds__(kLeadingThreads) add_leading_kernel(const T* x, const T* z, T* y, int64_t added, int64_t n) {
  using C = compute_t<T>;
  constexpr int N = lanes_of<T>;
  const bool vectors = aligned(x) && aligned(y) && aligned(z);
  const int64_t end = x == y ? added : n, threads = int64_t(gridDim.x) * kLeadingThreads;
  for (int64_t at = (int64_t(blockIdx.x) * kLeadingThreads + threadIdx.x) * N; at < end; at += threads * N) {
    if (vectors && at + N <= end && (at + N <= added || at >= added)) {
      C v[N], more[N];
      load_lanes<N>(x + at, v);
      if (at < added) {
        load_lanes<N>(z + at, more);
        ATTUNE_UNROLL
        for (int k = 0; k < N; k++) v[k] += more[k];
      }
      store_lanes<N>(y + at, v);
    } else {  // the vector in which z or x ends
      for (int64_t i = at; i < at + N && i < end; i++) {
        const C v = to_float(load(x + i));
        store(y + i, from_float<T>(i < added ? v + to_float(load(z + i)) : v));
      }
    }
  }
}

void add_leading_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &z = args.in[1], &y = args.out[0];
  const int64_t n = y.numel();
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, add_leading_kernel<T>, grid_of(args, ceil_div(n, kLeadingThreads * lanes_of<T>)), dim3(kLeadingThreads), 0, x.as<const T>(), z.as<const T>(),
           y.as<T>(), z.numel(), n);
  });
}

REGISTER_CUDA(add_leading, add_leading_op)

}  // namespace cuda
}  // namespace attune
