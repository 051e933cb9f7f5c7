// random_normal, random_uniform, random_int: one thread makes the four elements of a Philox block. Where the draw begins inside a block (`offset` skips samples
// whose size is no multiple of 4), the first and last threads write part of theirs, and stores go one by one.
#include "random.cuh"

namespace attune {
namespace cuda {

/// In bf16: what rounding the f32 draw gives.
template <typename T>
__global__ void __launch_bounds__(256) random_normal_kernel(T* __restrict__ y, const double* __restrict__ scalars, DrawSlots slots, int64_t n) {
  const Draw draw(slots, scalars);
  const DrawPlace here(draw);
  if (here.at >= n) return;
  double z[4];
  draw.normals(here.block, z);
  T v[4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[i] = from_float<T>(compute_t<T>(z[i]));
  store_four(y, here.at, n, v);
}

/// In [0, 1): 24 bits, so that f32 holds every value; bf16 rounds the largest to 1.
template <typename T>
__global__ void __launch_bounds__(256) random_uniform_kernel(T* __restrict__ y, const double* __restrict__ scalars, DrawSlots slots, int64_t n) {
  const Draw draw(slots, scalars);
  const DrawPlace here(draw);
  if (here.at >= n) return;
  const philox::Lanes x = draw.words(here.block);
  T v[4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[i] = from_float<T>(compute_t<T>(int32_t(x.x[i] >> 8)) * compute_t<T>(5.9604644775390625e-8));
  store_four(y, here.at, n, v);
}

/// In [low, low + span), by multiplication: the bias is below span 2^-32.
__global__ void __launch_bounds__(256)
    random_int_kernel(int32_t* __restrict__ y, const double* __restrict__ scalars, DrawSlots slots, int64_t low, uint64_t span, int64_t n) {
  const Draw draw(slots, scalars);
  const DrawPlace here(draw);
  if (here.at >= n) return;
  const philox::Lanes x = draw.words(here.block);
  int32_t v[4];
  ATTUNE_UNROLL
  for (int i = 0; i < 4; i++) v[i] = int32_t(low + int64_t(x.x[i] * span >> 32));
  store_four(y, here.at, n, v);
}

static DrawSlots slots_of(const OpArgs& args) {
  const TensorRef& y = args.out[0];
  return DrawSlots(args.attrs, y.rank > 0 ? y.numel() / y.dims[0] : 1);
}

void random_normal_op(const OpArgs& args) {
  const TensorRef& y = args.out[0];
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, random_normal_kernel<T>, draw_grid(y.numel()), dim3(256), 0, y.as<T>(), args.scalars, slots_of(args), y.numel());
  });
}

void random_uniform_op(const OpArgs& args) {
  const TensorRef& y = args.out[0];
  dispatch<true>(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(args, random_uniform_kernel<T>, draw_grid(y.numel()), dim3(256), 0, y.as<T>(), args.scalars, slots_of(args), y.numel());
  });
}

void random_int_op(const OpArgs& args) {
  const TensorRef& y = args.out[0];
  const int64_t low = args.attrs.integer("low"), high = args.attrs.integer("high");
  launch(args, random_int_kernel, draw_grid(y.numel()), dim3(256), 0, y.as<int32_t>(), args.scalars, slots_of(args), low, uint64_t(high - low), y.numel());
}

REGISTER_CUDA(random_normal, random_normal_op)
REGISTER_CUDA(random_uniform, random_uniform_op)
REGISTER_CUDA(random_int, random_int_op)

}  // namespace cuda
}  // namespace attune
