// How gemm() cuts a problem: a pure function of shapes, layouts, dtypes and caps. Host side; kernels get the plan by value.
#pragma once
#include "gemm.h"

namespace attune {
namespace cuda {

enum class TileKind : int { m128n160, m128n128, m64n64, m16n64 };

struct GemmPlan {
  TileKind tile;
  int copy;                           // bytes in which every operand can be copied: 16, 8, or 0 for element by element
  bool vector;                        // rows of the output begin at multiples of 16 bytes
  bool fused_statistics;              // the kernel of the product leaves them, else a pass over y
  int tiles_m, tiles_n, columns;      // columns of B's tiles: n, or with geglu twice that in whole groups of 16
  int splits, steps;                  // parts of k, and tiles along k of a part
  int phases, rows;                   // matrices of the batch or phases of a gradient, and the rows of the largest
  int channels, fold, height, width;  // of the window's map as it is seen: both maps' channels, log2 of `upsample`, enlarged sides
  float* partial;                     // splits > 1: f32 [phases][splits][rows][columns, rounded up to 8]

  ATTUNE_BOTH int pitch() const { return (columns + 7) / 8 * 8; }
};

GemmPlan gemm_plan(const GemmProblem& problem, const DeviceCaps& caps);

/// Start the planned kernel for the layouts of A and B that they are named after; one file each.
using GemmStart = void(const OpArgs& args, const GemmProblem& problem, const GemmPlan& plan);
GemmStart start_rows_rows, start_rows_columns, start_columns_rows, start_columns_columns, start_image_rows, start_image_columns, start_columns_patches;

}  // namespace cuda
}  // namespace attune
