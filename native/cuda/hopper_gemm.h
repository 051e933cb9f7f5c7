// What the sm_90a engine makes of a GemmProblem: products and convolutions as boxes that the copy engine fetches. Planned on the host, read by kernels.
//
// Rows of A run over pixels in rectangular boxes (a plain matrix is one image, one pixel high), and k over segments: the channels under one tap. A weight's
// gradient turns this round: its k runs over pixels, and taps are parts of its columns.
#pragma once
#include "gemm.h"
#include "tensor_map.h"

namespace attune {
namespace cuda {

/// Which operands are K-major. forward: A [m, k], B [n, k]. input: B [k, n], as the gradient of an input reads weights. weight: A [k, m] and B [k, n], k
/// counting the pixels (or rows) that a weight's gradient sums over.
enum class HopperMode : int { forward, input, weight };

/// A stretch of k under one tap: which maps, how far the pixels move, and which part of the weights. forward and input: `blocks` times 64 channels.
/// weight: all pixels, in boxes of 64.
struct HopperSegment {
  int16_t a, b;    // maps
  int16_t dx, dy;  // of the map that moves: A's, for weight B's
  int16_t tap;     // weights [rows, tap, channel]
  int16_t blocks;
  int32_t channel;  // first one of the weights
};

/// A part of the output: a phase of its pixels, or for weight the columns under one tap. Its tiles are tile, tile + 1, ...
struct HopperGroup {
  int32_t segment, segments;
  int32_t blocks;           // of k: over all its segments
  int32_t column, columns;  // of the output
  int32_t tile, across;     // first tile; tiles side by side
};

constexpr int kHopperSegments = 36, kHopperGroups = 18;  // 3 x 3 taps times 4 phases; 3 x 3 taps times 2 tensors

struct HopperMaps {
  TensorMap a[4], b[4];
};

struct HopperProblem {
  HopperSegment segment[kHopperSegments];
  HopperGroup group[kHopperGroups];
  int groups, tiles, splits;  // tiles: of all groups; k is cut into `splits` parts
  int down;                   // tiles of the output's rows in a group
  // The pixels that rows (weight: k) run over, in boxes of 2^log_width x 2^log_height x 2^log_images; a box has 128 pixels (weight: 64).
  int log_width, log_height, log_images, boxes_x, boxes_y, boxes;
  int images, height, width;  // of the output's grid; pixels of a phase are `step` apart
  int step;
  int rows, columns;  // of the output
  bool vector;        // rows of 4 columns may be read and written at once
  float* partial;     // f32 [splits, rows, columns], finished by hopper_finish_kernel; null if splits is 1
  Epilogue epilogue;
};

/// How a product is cut. Tiles have units * 128 rows.
struct HopperPlan {
  HopperMode mode;
  int units, columns;
  HopperProblem problem;
};

/// False for what the copy engine cannot read or the kernels do not finish: rows that do not begin at multiples of 16 bytes, dtypes other than bf16, batches of
/// matrices, strides above 2. A pure function of shapes, layouts, dtypes and caps; addresses of the epilogue are handed through.
bool hopper_plan(HopperPlan& plan, const GemmProblem& problem, const DeviceCaps& caps);

}  // namespace cuda
}  // namespace attune
