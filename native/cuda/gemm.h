// One description of every matrix product of the backend (linear, matmul, conv2d and their gradients): D[m, n] = finish(sum over k of A[m, k] B[n, k]).
// The ops fill it in, gemm() picks a kernel for it by shapes and caps; an engine for a newer architecture takes the same description (see gemm_hook).
//
// Operands are read where they lie: a matrix by rows or by columns, or a channels-last map through the window of a convolution, never an im2col buffer.
// Kernels take a GemmProblem by value, so it holds plain numbers only. m, n and k are below 2^31, offsets into memory are 64 bits wide.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

/// Where element (row, k) of an operand lies; row is m for A and n for B.
enum class Layout : int {
  rows,     // at row * ld + k
  columns,  // at k * ld + row. B of a conv2d_dx: k is (tap, channel), at channel * ld + tap * n + row
  image,    // A only: row is a pixel of the window's grid, k is (tap, channel): the map under the window (im2col), zero outside of it
  patches,  // B only: row is (tap, channel), k is a pixel of the window's grid
};

/// The window of a convolution over a channels-last map x [batch, height, width, channels]. Taps run over kh, kw, kw fastest.
/// Forward: pixel (y, x) of the grid sees row y * stride - top + tap_y of the map as enlarged by `upsample`.
/// Gradient: the map is dy and the grid is dx: pixel y sees row (y + top - tap_y) / stride where that divides. The pixels y = phase (mod stride) share their
/// taps, so a stride of s makes s * s phases, each a window of stride 1 with every s-th tap.
struct Window {
  const void* x = nullptr;
  const void* x2 = nullptr;  // channels2 further channels of the same map (a concat that is never made)
  int channels = 0, channels2 = 0;
  int height = 0, width = 0;  // of x in memory
  int upsample = 1;           // 2: every pixel of x stands for 2 x 2 (nearest)
  int grid_height = 0, grid_width = 0;
  int kh = 1, kw = 1, stride = 1, top = 0, left = 0;
  bool gradient = false;

  ATTUNE_BOTH int taps() const { return kh * kw; }
  ATTUNE_BOTH int all_channels() const { return channels + channels2; }
};

enum class Activation : int { none, silu, gelu, gelu_tanh, quick_gelu, geglu };

/// What becomes of a sum: y = activation(sum + bias[n] + per_sample[m / rows_per_sample, n]) + residual[m, n].
/// geglu: B has 2 n rows, n values and then n gates; y = (sum + bias) of the value * gelu of the gate, + residual. n counts the columns of the output.
struct Epilogue {
  void* out = nullptr;
  bool out_narrow = false;  // bf16, else f32
  int64_t ld = 0;           // of out and residual
  Parameter bias{nullptr, false};
  const void* per_sample = nullptr;  // of the operands' dtype
  int rows_per_sample = 1;
  const void* residual = nullptr;  // may be out itself: each element is read by the thread that writes it
  bool residual_narrow = false;
  Activation activation = Activation::none;
  float* statistics = nullptr;  // f32 [m / 128, groups, 2]: mean and M2 of y, as rounded, over 128 rows and a group's columns
  int groups = 0;               // 0: no statistics; else m is a multiple of 128
};

inline Epilogue epilogue_to(const TensorRef& out, int64_t ld) {
  Epilogue e;
  e.out = out.data, e.out_narrow = out.dtype == DType::bf16, e.ld = ld;
  return e;
}
inline void add_residual(Epilogue& e, const TensorRef& residual) { e.residual = residual.data, e.residual_narrow = residual.dtype == DType::bf16; }
/// Of attribute "activation"; none where there is none.
Activation activation_of(const Attrs& attrs);

struct GemmProblem {
  DType dtype = DType::bf16;  // of A and B
  int64_t m = 0, n = 0, k = 0;
  Layout a_layout = Layout::rows, b_layout = Layout::rows;
  const void* a = nullptr;  // not for image: see window
  const void* b = nullptr;  // not for patches
  int64_t lda = 0, ldb = 0;
  int64_t batch = 1, a_step = 0, b_step = 0, out_step = 0;  // matmul: elements between matrices
  Window window;
  Epilogue epilogue;
};

/// Starts the kernels of a product.
void gemm(const OpArgs& args, const GemmProblem& problem);

/// An engine that is asked first, in dry calls too (data pointers are then null: decide by shapes, layouts, dtypes and caps). Returns false to decline, before
/// it has asked for scratch or started anything. Set by a static initialiser of the object that has one.
using GemmHook = bool (*)(const OpArgs& args, const GemmProblem& problem);
inline GemmHook gemm_hook = nullptr;

}  // namespace cuda
}  // namespace attune
