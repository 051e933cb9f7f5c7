// GEGLU, Shazeer 2020 (arXiv:2002.05202): x [.., 2D] -> value * gelu(gate), value = x[.., :D], gate = x[.., D:], exact gelu, and its gradient
// dvalue = dy gelu(gate), dgate = dy value gelu'(gate), which may lie on x. Bytes moved: everything once, the least.
#include "divide.cuh"
#include "scalar_ops.cuh"
#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kGateThreads = 256;

/// n: vectors of N lanes of y. width: D in vectors.
template <typename T, int N>
__global__ void __launch_bounds__(kGateThreads) geglu_kernel(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Divider width, int64_t n) {
  using C = compute_t<T>;
  for (int64_t i = int64_t(blockIdx.x) * kGateThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kGateThreads) {
    const T* value = x + (i + width.quotient(i) * width.divisor) * N;  // i = row * D + column, of rows twice as wide
    C v[N], g[N];
    load_lanes<N>(value, v);
    load_lanes<N>(value + width.divisor * N, g);
    ATTUNE_UNROLL
    for (int k = 0; k < N; k++) v[k] *= gelu_of<T>(g[k]);
    store_lanes<N>(y + i * N, v);
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kGateThreads)
    geglu_vjp_kernel(const T* __restrict__ dy, const T* x, T* dx, const __grid_constant__ Divider width, int64_t n) {
  using C = compute_t<T>;
  for (int64_t i = int64_t(blockIdx.x) * kGateThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kGateThreads) {
    const int64_t at = (i + width.quotient(i) * width.divisor) * N;
    C up[N], v[N], g[N];
    load_lanes<N>(dy + i * N, up);
    load_lanes<N>(x + at, v);
    load_lanes<N>(x + at + width.divisor * N, g);
    ATTUNE_UNROLL
    for (int k = 0; k < N; k++) {
      const C cdf = Math<T>::normal_cdf(g[k]), slope = fma_of(g[k], normal_pdf<T>(g[k]), cdf);
      g[k] *= up[k] * cdf, v[k] *= up[k] * slope;
    }
    store_lanes<N>(dx + at, g);
    store_lanes<N>(dx + at + width.divisor * N, v);
  }
}

/// start(tag, lanes, d, vectors): with vectors if D is made of whole ones.
template <typename Start>
static void by_width(const TensorRef& y, Start&& start) {
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int N = lanes_of<T>;
    const int64_t d = y.dim(-1);
    if (d % N == 0) start(tag, std::integral_constant<int, N>{}, Divider(d / N), y.numel() / N);
    else start(tag, std::integral_constant<int, 1>{}, Divider(d), y.numel());
  });
}

void geglu_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  by_width(y, [&](auto tag, auto lanes, const Divider& width, int64_t n) {
    using T = decltype(tag);
    launch(args, geglu_kernel<T, lanes()>, grid_of(args, ceil_div(n, kGateThreads)), dim3(kGateThreads), 0, x.as<const T>(), y.as<T>(), width, n);
  });
}

void geglu_vjp_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &x = args.in[1], &dx = args.out[0];
  by_width(dy, [&](auto tag, auto lanes, const Divider& width, int64_t n) {
    using T = decltype(tag);
    launch(args, geglu_vjp_kernel<T, lanes()>, grid_of(args, ceil_div(n, kGateThreads)), dim3(kGateThreads), 0, dy.as<const T>(), x.as<const T>(), dx.as<T>(),
           width, n);
  });
}

REGISTER_CUDA(geglu, geglu_op)
REGISTER_CUDA(geglu_vjp, geglu_vjp_op)

}  // namespace cuda
}  // namespace attune
