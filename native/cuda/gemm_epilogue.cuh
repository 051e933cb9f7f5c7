// What becomes of finished sums. Each warp lays a strip of its tile into shared memory as f32, so that a lane then holds eight neighbouring columns of one row
// and reads and writes 16 bytes at a time; the second pass over the partial sums of a split k ends in the same functions.
#pragma once
#include <cmath>

#include "conv_tiles.cuh"
#include "gemm_plan.h"

// For loops whose body is long and runs a few times.
#ifdef __CUDACC__
#define ATTUNE_ROLLED _Pragma("unroll 1")
#else
#define ATTUNE_ROLLED
#endif

namespace attune {
namespace cuda {

template <Layout LA, Layout LB>
constexpr bool kWindowed = LA == Layout::image || LB == Layout::patches;
template <Layout LA, Layout LB>
constexpr bool kGradient = LA == Layout::image && LB == Layout::columns;

/// The rows and depth of matrix or phase z, and with a window its axes. Kernels know by their layouts whether there is one, and whether it is a gradient's.
ATTUNE_BOTH void set_phase(Work& w, const GemmProblem& p, int z, bool windowed, bool gradient) {
  const Window& v = p.window;
  w.z = z, w.gradient = gradient, w.m = int(p.m), w.k = int(p.k), w.down = w.across = Axis{};
  if (!windowed) return;
  w.down = axis_of(v.grid_height, v.kh, v.stride, v.top, gradient ? z / v.stride : 0, gradient);
  w.across = axis_of(v.grid_width, v.kw, v.stride, v.left, gradient ? z % v.stride : 0, gradient);
  if (!gradient) return;
  w.m = w.m / (v.grid_height * v.grid_width) * (w.down.size * w.across.size);
  w.k = w.down.taps * w.across.taps * v.channels;
}

constexpr int kStages = 3;  // tiles of k in shared memory

template <typename T, int R, int kThreads, int kCopy, Layout kLayout, Layout kOther, bool kIsA>
using Tile = std::conditional_t<kLayout == Layout::rows, RowsTile<T, R, kThreads, kCopy, kIsA>,
                                std::conditional_t<kLayout == Layout::columns, ColumnsTile<T, R, kThreads, kCopy, kIsA, !kIsA && kOther == Layout::image>,
                                                   std::conditional_t<kLayout == Layout::image, ImageTile<T, R, kThreads, kCopy, kGradient<kLayout, kOther>>,
                                                                      PatchesTile<T, R, kThreads, kCopy>>>>;

/// The activations that a kernel is compiled with: few need any.
enum class Active : int { none, silu, all };
template <Layout LA, Layout LB>
constexpr Active kActive = LB != Layout::rows    ? Active::none
                           : LA == Layout::rows  ? Active::all
                           : LA == Layout::image ? Active::silu
                                                 : Active::none;

/// What block `blockIdx.x` does: parts of one split after another, then tiles, eight rows of tiles at a time so that neighbours share operands in L2.
template <typename T, Layout LA, Layout LB>
ATTUNE_DEVICE Work work_of(const GemmProblem& p, const GemmPlan& plan, int bm, int bn) {
  const int tiles = plan.tiles_m * plan.tiles_n, part = blockIdx.x / tiles, tile = blockIdx.x - part * tiles;
  const int band = 8 * plan.tiles_n, above = tile / band * 8, height = plan.tiles_m - above < 8 ? plan.tiles_m - above : 8, within = tile % band;
  Work w;
  set_phase(w, p, part / plan.splits, kWindowed<LA, LB>, kGradient<LA, LB>);
  w.split = part % plan.splits, w.n = plan.columns;
  w.m0 = (above + within % height) * bm, w.n0 = within / height * bn;
  w.k0 = w.split * plan.steps * kDepth<T>;
  const int left = (w.k - w.k0 + kDepth<T> - 1) / kDepth<T>;
  w.steps = left < plan.steps ? (left > 0 ? left : 0) : plan.steps;
  return w;
}

/// Elements into the output at which row m begins.
ATTUNE_DEVICE int64_t row_offset(const GemmProblem& p, const Work& w, int m) {
  const Window& v = p.window;
  if (!w.gradient || v.stride == 1) return int64_t(m) * p.epilogue.ld + w.z * p.out_step;
  const int line = m / w.across.size, sample = line / w.down.size;
  const int y = (line - sample * w.down.size) * v.stride + w.z / v.stride, x = (m - line * w.across.size) * v.stride + w.z % v.stride;
  return ((int64_t(sample) * v.grid_height + y) * v.grid_width + x) * p.epilogue.ld;
}

/// Eight elements of bf16 or f32 from `at`, of which `count` exist. vector: all do, and 16 bytes are aligned.
ATTUNE_DEVICE void read8(const void* data, bool narrow, int64_t at, bool vector, int count, float (&v)[8]) {
  if (!vector) {
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) v[i] = i < count ? Parameter{data, narrow}.at(at + i) : 0.f;
  } else if (narrow) {
    const uint4 q = load(reinterpret_cast<const uint4*>(static_cast<const bf16*>(data) + at));
    const uint32_t word[4] = {q.x, q.y, q.z, q.w};
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) v[2 * i] = bits_to_float(word[i] << 16), v[2 * i + 1] = bits_to_float(word[i] & 0xffff0000u);
  } else {
    ATTUNE_UNROLL
    for (int i = 0; i < 2; i++) {
      const float4 q = load(reinterpret_cast<const float4*>(static_cast<const float*>(data) + at) + i);
      v[4 * i] = q.x, v[4 * i + 1] = q.y, v[4 * i + 2] = q.z, v[4 * i + 3] = q.w;
    }
  }
}
/// Rounds v to what it stores.
ATTUNE_DEVICE void write8(void* data, bool narrow, int64_t at, bool vector, int count, float (&v)[8]) {
  if (narrow) {
    uint32_t word[4];
    ATTUNE_UNROLL
    for (int i = 0; i < 4; i++) {
      word[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
      v[2 * i] = bits_to_float(word[i] << 16), v[2 * i + 1] = bits_to_float(word[i] & 0xffff0000u);
    }
    bf16* to = static_cast<bf16*>(data) + at;
    if (vector) return store(reinterpret_cast<uint4*>(to), make_uint4(word[0], word[1], word[2], word[3]));
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++)
      if (i < count) store(to + i, bf16{uint16_t(word[i / 2] >> (i % 2 * 16))});
  } else {
    float* to = static_cast<float*>(data) + at;
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) {
      if (vector && i % 4 == 0) store(reinterpret_cast<float4*>(to + i), float4{v[i], v[i + 1], v[i + 2], v[i + 3]});
      else if (!vector && i < count) store(to + i, v[i]);
    }
  }
}

ATTUNE_DEVICE float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
ATTUNE_DEVICE float exact_gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }
ATTUNE_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu: return exact_gelu(x);
    case Activation::gelu_tanh: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));  // (1 + tanh u) / 2 = sigmoid(2 u)
    case Activation::quick_gelu: return x * sigmoid(1.702f * x);
    default: return x;
  }
}

/// y from the sums of columns n .. n + 7 of row m, and with geglu from the sums of their gates; v becomes y as stored.
template <Active kWhich>
ATTUNE_DEVICE void finish(const GemmProblem& p, const GemmPlan& plan, const Work& w, int m, int n, float (&v)[8], const float (&gate)[8]) {
  const Epilogue& e = p.epilogue;
  const int count = int(p.n) - n < 8 ? int(p.n) - n : 8;
  const int64_t at = row_offset(p, w, m) + n;
  float other[8];
  if (e.bias) {
    read8(e.bias.data, e.bias.narrow, n, plan.vector, count, other);
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) v[i] += other[i];
  }
  if (e.per_sample) {
    read8(e.per_sample, p.dtype == DType::bf16, m / e.rows_per_sample * p.n + n, plan.vector, count, other);
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) v[i] += other[i];
  }
  if constexpr (kWhich == Active::all) {
    if (e.activation == Activation::geglu) {
      float shift[8] = {};
      if (e.bias) read8(e.bias.data, e.bias.narrow, n + p.n, plan.vector, count, shift);
      ATTUNE_UNROLL
      for (int i = 0; i < 8; i++) v[i] *= exact_gelu(gate[i] + shift[i]);
    } else if (e.activation != Activation::none) {
      ATTUNE_UNROLL
      for (int i = 0; i < 8; i++) v[i] = activate(v[i], e.activation);
    }
  } else if (kWhich == Active::silu && e.activation == Activation::silu) {
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) v[i] *= sigmoid(v[i]);
  }
  if (e.residual) {
    read8(e.residual, e.residual_narrow, at, plan.vector, count, other);
    ATTUNE_UNROLL
    for (int i = 0; i < 8; i++) v[i] += other[i];
  }
  write8(e.out, e.out_narrow, at, plan.vector, count, v);
}

/// Floats from one row of a strip to the next: stores of fragments and reads of chunks spread over the banks.
template <int W>
constexpr int kStripPitch = W + 8;

/// Finishes a warp's strip of R rows by W columns, of which the first lies at (m, n), or lays it down as a partial sum. The strip then holds y as stored.
template <int R, int W, Active kWhich>
ATTUNE_DEVICE void emit_strip(const GemmProblem& p, const GemmPlan& plan, const Work& w, float* strip, int m, int n) {
  const bool paired = kWhich == Active::all && p.epilogue.activation == Activation::geglu && plan.splits == 1;
  const int width = paired ? 16 : 8, across = W / width, lane = threadIdx.x % 32;
  ATTUNE_ROLLED
  for (int i = lane; i < R * across; i += 32) {
    const int row = i / across, column = (i - row * across) * width;
    if (m + row >= w.m || n + column >= w.n) continue;
    float* at = strip + row * kStripPitch<W> + column;
    float v[8], gate[8] = {};
    read8(at, false, 0, true, 8, v);
    if (plan.splits > 1) {
      const int64_t place = (int64_t(w.z) * plan.splits + w.split) * plan.rows + m + row;
      write8(plan.partial, false, place * plan.pitch() + n + column, true, 8, v);
      continue;
    }
    if (kWhich == Active::all && paired) read8(at + 8, false, 0, true, 8, gate);
    finish<kWhich>(p, plan, w, m + row, paired ? (n + column) / 2 : n + column, v, gate);
    if (p.epilogue.groups > 0) write8(at, false, 0, true, 8, v);
  }
}

}  // namespace cuda
}  // namespace attune
