// softmax and its vjp over the last axis: one block per row, f32 accumulation (f64 for f64). A row's maximum is subtracted first. Bytes moved: a row once in
// and once out, read again from first-level cache. y may lie on x, dx on dy: a thread reads an element for the last time before it writes it.
#include "block.cuh"

namespace attune {
namespace cuda {

template <typename T>
__global__ void __launch_bounds__(256) softmax_kernel(const T* x, T* y, int n) {
  using C = compute_t<T>;
  ATTUNE_SHARED(memory);
  C* partial = reinterpret_cast<C*>(memory);
  const int64_t base = int64_t(blockIdx.x) * n;
  C high = -INFINITY;
  for (int i = threadIdx.x; i < n; i += blockDim.x) high = max_of(high, to_float(load(x + base + i)));
  high = block_max(high, partial);
  C sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += exp(to_float(load(x + base + i)) - high);
  sum = block_sum(sum, partial);
  const C inverse = C(1) / sum;
  for (int i = threadIdx.x; i < n; i += blockDim.x) store(y + base + i, from_float<T>(exp(to_float(load(x + base + i)) - high) * inverse));
}

/// dx = y (dy - sum dy y)
template <typename T>
__global__ void __launch_bounds__(256) softmax_vjp_kernel(const T* dy, const T* __restrict__ y, T* dx, int n) {
  using C = compute_t<T>;
  ATTUNE_SHARED(memory);
  C* partial = reinterpret_cast<C*>(memory);
  const int64_t base = int64_t(blockIdx.x) * n;
  C dot = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) dot += to_float(load(dy + base + i)) * to_float(load(y + base + i));
  dot = block_sum(dot, partial);
  for (int i = threadIdx.x; i < n; i += blockDim.x) store(dx + base + i, from_float<T>(to_float(load(y + base + i)) * (to_float(load(dy + base + i)) - dot)));
}

/// Whole warps for a row of n: about four elements a thread.
static dim3 row_threads(int64_t n) { return dim3(n > 512 ? 256 : n > 256 ? 128 : n > 128 ? 64 : 32); }

void softmax_op(const OpArgs& args) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  dispatch<true>(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, softmax_kernel<T>, dim3(unsigned(x.rows())), row_threads(x.dim(-1)), block_bytes<compute_t<T>>(), x.as<const T>(), y.as<T>(), int(x.dim(-1)));
  });
}

void softmax_vjp_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &y = args.in[1], &dx = args.out[0];
  dispatch<true>(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, softmax_vjp_kernel<T>, dim3(unsigned(dy.rows())), row_threads(dy.dim(-1)), block_bytes<compute_t<T>>(), dy.as<const T>(), y.as<const T>(),
           dx.as<T>(), int(dy.dim(-1)));
  });
}

REGISTER_CUDA(softmax, softmax_op)
REGISTER_CUDA(softmax_vjp, softmax_vjp_op)

}  // namespace cuda
}  // namespace attune
