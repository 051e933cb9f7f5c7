// The second stage of sums over rows: what blocks have left, one row each, is added up per column in a fixed order.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

/// out [outer, width] = in [outer, rows, width] summed over rows. Columns before `split` go to `first`, the others to `second` (counted from the split), each
/// in its own dtype, bf16 or f32. A thread adds up every 32nd row, then the 32 sums of a column meet in a tree.
void sum_columns(const OpArgs& args, const float* in, int64_t outer, int64_t rows, int64_t width, const TensorRef& first, int64_t split,
                 const TensorRef& second);

}  // namespace cuda
}  // namespace attune
