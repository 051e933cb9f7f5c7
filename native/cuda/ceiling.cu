// What the machine can do at most, measured in the run that measures the kernels: tensor cores that multiply registers, and multiply-adds in f32. Neither
// touches memory but for one store a thread, which keeps the compiler from dropping the loop. `tasks` blocks do `iterations` rounds each; y [1] is the flops of
// one round of one block.
#include "mma.cuh"

namespace attune {
namespace cuda {

/// Four independent accumulators of 16 x 8 a warp: 4 x 4096 flops per iteration.
__global__ void __launch_bounds__(256) mma_ceiling_kernel(float* sums, float* y, int iterations) {
  const uint32_t seed = threadIdx.x * 0x01010101u & 0x3f803f80u;
  const uint32_t a[1][4] = {{seed, seed ^ 0x3f803f80u, seed, 0x3f803f80u}};
  const uint32_t b[4][2] = {{seed, 0x3f80u}, {0x3f800000u, seed}, {seed, seed}, {0u, seed}};
  float acc[1][4][4] = {};
  for (int i = 0; i < iterations; i++) mma_tile<1, 4>(acc, a, b);
  float sum = 0;
  ATTUNE_UNROLL
  for (int n = 0; n < 4; n++) {
    ATTUNE_UNROLL
    for (int c = 0; c < 4; c++) sum += acc[0][n][c];
  }
  store(sums + int64_t(blockIdx.x) * 256 + threadIdx.x, sum);
  if (blockIdx.x + threadIdx.x == 0) store(y, 8.f * 4 * 4096);  // warps, products, flops of one
}

/// Eight independent chains a thread: 16 flops per iteration.
__global__ void __launch_bounds__(256) fma_ceiling_kernel(float* sums, float* y, int iterations) {
  float chain[8];
  ATTUNE_UNROLL
  for (int c = 0; c < 8; c++) chain[c] = float(threadIdx.x + unsigned(c)) * 1e-3f;
  for (int i = 0; i < iterations; i++) {
    ATTUNE_UNROLL
    for (int c = 0; c < 8; c++) chain[c] = fmaf(chain[c], 0.999f, 1e-3f);
  }
  float sum = 0;
  ATTUNE_UNROLL
  for (int c = 0; c < 8; c++) sum += chain[c];
  store(sums + int64_t(blockIdx.x) * 256 + threadIdx.x, sum);
  if (blockIdx.x + threadIdx.x == 0) store(y, 256.f * 16);
}

static void ceiling(const OpArgs& args, void (*kernel)(float*, float*, int)) {
  const int64_t blocks = args.attrs.integer("tasks");
  float* sums = args.scratch<float>(blocks * 256);
  launch(args, kernel, dim3(unsigned(blocks)), dim3(256), 0, sums, args.out[0].as<float>(), int(args.attrs.integer("iterations")));
}
static void mma_ceiling_op(const OpArgs& args) { ceiling(args, mma_ceiling_kernel); }
static void fma_ceiling_op(const OpArgs& args) { ceiling(args, fma_ceiling_kernel); }

REGISTER_CUDA(mma_ceiling, mma_ceiling_op)
REGISTER_CUDA(fma_ceiling, fma_ceiling_op)

}  // namespace cuda
}  // namespace attune
