// See columns.cuh. Bytes moved: the partial rows once, which are a small part of what they were made of.
#include "columns.cuh"

#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kColumns = 32, kRowThreads = 32;

struct ColumnTarget {
  void* data;
  bool narrow;
  int64_t width;
  ATTUNE_DEVICE void put(int64_t outer, int64_t column, float v) const {
    const int64_t i = outer * width + column;
    if (narrow) store(static_cast<bf16*>(data) + i, from_float<bf16>(v));
    else store(static_cast<float*>(data) + i, v);
  }
};

__global__ void __launch_bounds__(kColumns* kRowThreads)
    sum_columns_kernel(const float* __restrict__ in, int64_t rows, int64_t width, const __grid_constant__ ColumnTarget first,
                       const __grid_constant__ ColumnTarget second) {
  ATTUNE_SHARED(memory);
  float* partial = reinterpret_cast<float*>(memory);  // [kRowThreads][kColumns]
  const int lane = int(threadIdx.x) % kColumns, row = int(threadIdx.x) / kColumns;
  const int64_t column = int64_t(blockIdx.x) * kColumns + lane;
  float sum = 0;
  if (column < width)
    for (int64_t r = row; r < rows; r += kRowThreads) sum += load(in + (blockIdx.y * rows + r) * width + column);
  store(partial + threadIdx.x, sum);
  ATTUNE_ROLLED
  for (int span = kRowThreads / 2; span > 0; span /= 2) {
    __syncthreads();
    if (row >= span) continue;
    sum += load(partial + threadIdx.x + span * kColumns);
    store(partial + threadIdx.x, sum);
  }
  if (row > 0 || column >= width) return;
  if (column < first.width) first.put(blockIdx.y, column, sum);
  else second.put(blockIdx.y, column - first.width, sum);
}

void sum_columns(const OpArgs& args, const float* in, int64_t outer, int64_t rows, int64_t width, const TensorRef& first, int64_t split,
                 const TensorRef& second) {
  launch(args, sum_columns_kernel, dim3(unsigned(ceil_div(width, kColumns)), unsigned(outer)), dim3(kColumns * kRowThreads), kColumns * kRowThreads * 4, in,
         rows, width, ColumnTarget{first.data, first.dtype == DType::bf16, split}, ColumnTarget{second.data, second.dtype == DType::bf16, width - split});
}

}  // namespace cuda
}  // namespace attune
