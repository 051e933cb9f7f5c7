// Starts products on sm_90a: makes the maps of a planned product, picks the kernel of its tile, and adds up the parts of a split k. Set as gemm()'s hook.
#include "hopper_gemm.cuh"

#include <algorithm>

namespace attune {
namespace cuda {

/// The sums of all splits, in order, through the epilogue: a thread for four columns of a row.
__global__ void __launch_bounds__(256) hopper_finish_kernel(const __grid_constant__ HopperProblem p) {
  const int quads = (p.columns + 3) / 4;
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = index / quads, size = int64_t(p.rows) * p.columns;
  if (row >= p.rows) return;
  const int column = int(index % quads) * 4;
  float v[4] = {}, gate[4] = {};
  for (int split = 0; split < p.splits; split++) hopper_add4(v, p.partial, false, split * size + row * p.columns + column, p.columns - column, p.vector);
  hopper_finish4(p, row, column, p.columns, v, gate);
}

namespace {

/// A channels-last map, or every second pixel of it in both directions from (y, x) on, as the copy engine reads it.
TensorMap map_of_pixels(const void* data, int64_t channels, int64_t width, int64_t height, int64_t images, int64_t pitch, int box_channels,
                        const HopperProblem& p, Swizzle swizzle, int step = 1, int y = 0, int x = 0) {
  const int64_t extent[] = {channels, std::max<int64_t>(1, (width - x + step - 1) / step), std::max<int64_t>(1, (height - y + step - 1) / step), images};
  const int64_t stride[] = {step * pitch * 2, step * width * pitch * 2, height * width * pitch * 2};
  const int box[] = {box_channels, 1 << p.log_width, 1 << p.log_height, 1 << p.log_images};
  return tensor_map(static_cast<const char*>(data) + (y * width + x) * pitch * 2, 4, extent, stride, box, swizzle);
}

/// Weights [rows, taps, channels], both `elements` apart. A box of two taps holds their rows in turn.
TensorMap map_of_weights(const void* data, int64_t channels, int64_t taps, int64_t tap_elements, int64_t rows, int64_t row_elements, int box_channels,
                         int box_taps, int box_rows, Swizzle swizzle) {
  const int64_t extent[] = {channels, taps, rows}, stride[] = {tap_elements * 2, row_elements * 2};
  const int box[] = {box_channels, box_taps, box_rows};
  return tensor_map(data, 3, extent, stride, box, swizzle);
}

template <HopperMode kMode, int kUnits, int kColumns>
void start(const OpArgs& args, const HopperPlan& plan, const GemmProblem& q) {
  using Tile = HopperTile<kMode, kUnits, kColumns>;
  const HopperProblem& p = plan.problem;
  const Window& w = q.window;
  const int span = Tile::kSpanB / 2;
  HopperMaps maps{};
  if (!args.dry) {
    if constexpr (kMode == HopperMode::weight) {
      const int64_t grid_height = q.b_layout == Layout::patches ? w.grid_height : 1, grid_width = q.b_layout == Layout::patches ? w.grid_width : q.k;
      const int64_t images = q.k / (grid_height * grid_width), step = q.b_layout == Layout::patches ? w.upsample : 1;
      for (int i = 0; i < step * step; i++)
        maps.a[i] = map_of_pixels(q.a, q.m, grid_width, grid_height, images, q.lda, 64, p, Swizzle::span128, int(step), i / 2, i % 2);
      if (q.b_layout == Layout::columns) maps.b[0] = map_of_pixels(q.b, q.n, q.k, 1, 1, q.ldb, span, p, Tile::kSwizzleB);
      else {
        for (int i = 0; i < w.stride * w.stride; i++)
          maps.b[i] = map_of_pixels(w.x, w.channels, w.width, w.height, images, w.channels, span, p, Tile::kSwizzleB, w.stride, i / 2, i % 2);
        if (w.x2) maps.b[1] = map_of_pixels(w.x2, w.channels2, w.width, w.height, images, w.channels2, span, p, Tile::kSwizzleB);
      }
    } else {
      if (q.a_layout == Layout::rows) maps.a[0] = map_of_pixels(q.a, q.k, q.m, 1, 1, q.lda, 64, p, Swizzle::span128);
      else {
        const int64_t images = q.m / (int64_t(w.grid_height) * w.grid_width);
        const int step = w.gradient ? 1 : w.stride;
        for (int i = 0; i < step * step; i++)
          maps.a[i] = map_of_pixels(w.x, w.channels, w.width, w.height, images, w.channels, 64, p, Swizzle::span128, step, i / 2, i % 2);
        if (w.x2) maps.a[1] = map_of_pixels(w.x2, w.channels2, w.width, w.height, images, w.channels2, 64, p, Swizzle::span128);
      }
      const int64_t taps = q.a_layout == Layout::image ? w.taps() : 1, channels = q.k / taps;
      if constexpr (kMode == HopperMode::forward)
        maps.b[0] = q.epilogue.activation == Activation::geglu
                        ? map_of_weights(q.b, q.k, 2, q.n * q.ldb, q.n, q.ldb, 64, 2, kColumns / 2, Swizzle::span128)  // values and gates in turn
                        : map_of_weights(q.b, channels, taps, channels, q.n, q.ldb, 64, 1, kColumns, Swizzle::span128);
      else maps.b[0] = map_of_weights(q.b, q.n, taps, q.n, channels, q.ldb, span, 1, 64, Tile::kSwizzleB);
    }
  }
  const unsigned blocks = unsigned(std::min<int64_t>(int64_t(p.tiles) * p.splits, args.caps().multiprocessors));
  launch(args, hopper_gemm_kernel<kMode, kUnits, kColumns>, dim3(blocks), dim3(384), Tile::kShared, maps, p);
}

template <HopperMode kMode>
void start_tile(const OpArgs& args, const HopperPlan& plan, const GemmProblem& q) {
  if (plan.columns == 128) return plan.units == 1 ? start<kMode, 1, 128>(args, plan, q) : start<kMode, 2, 128>(args, plan, q);
  if (plan.columns == 160) return plan.units == 1 ? start<kMode, 1, 160>(args, plan, q) : start<kMode, 2, 160>(args, plan, q);
  if constexpr (kMode == HopperMode::weight) start<kMode, 1, 320>(args, plan, q);
}

bool hopper_gemm(const OpArgs& args, const GemmProblem& q) {
  HopperPlan plan;
  if (!hopper_serves(args.caps(), reinterpret_cast<const void*>(hopper_gemm_kernel<HopperMode::forward, 1, 128>)) || !hopper_plan(plan, q, args.caps()))
    return false;
  HopperProblem& p = plan.problem;
  p.partial = p.splits == 1 ? nullptr : args.scratch<float>(int64_t(p.splits) * p.rows * p.columns);
  if (plan.mode == HopperMode::forward) start_tile<HopperMode::forward>(args, plan, q);
  else if (plan.mode == HopperMode::input) start_tile<HopperMode::input>(args, plan, q);
  else start_tile<HopperMode::weight>(args, plan, q);
  if (p.splits > 1) launch(args, hopper_finish_kernel, dim3(unsigned(ceil_div(int64_t(p.rows) * ceil_div(p.columns, 4), 256))), dim3(256), 0, p);
  return true;
}

[[maybe_unused]] const bool hooked = (gemm_hook = hopper_gemm, true);

}  // namespace
}  // namespace cuda
}  // namespace attune
