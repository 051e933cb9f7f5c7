// 2-D convolution of channels-last maps and its gradients, as products that read the maps where they lie. x [B, H, W, I], weight [O, kh, kw, I], y [B, H', W',
// O]. The fused ops add the second map of a concat, a nearest enlargement by two in front of the window, and what an Epilogue can do.
#include "gemm.h"

namespace attune {
namespace cuda {

/// The window over x, and x2 beside it, of the pixels of `grid`.
static Window window_of(const Attrs& attrs, const TensorRef& x, const TensorRef* x2, const TensorRef& grid, int64_t kh, int64_t kw) {
  constexpr int64_t kSide = 1 << 14;  // what ImageTile packs, with a margin for padding and the doubling of `upsample`
  if (x.dim(1) >= kSide || x.dim(2) >= kSide || grid.dim(1) >= kSide || grid.dim(2) >= kSide || x.numel() / x.dim(3) >= int64_t(1) << 31)
    throw Error("ERR_PROGRAM", "a map of 2^14 rows or columns, or 2^31 pixels");
  const auto& padding = attrs.list("padding");
  Window w;
  w.x = x.data, w.channels = int(x.dim(3)), w.height = int(x.dim(1)), w.width = int(x.dim(2));
  if (x2) w.x2 = x2->data, w.channels2 = int(x2->dim(3));
  w.upsample = int(attrs.integer("upsample", 1));
  w.grid_height = int(grid.dim(1)), w.grid_width = int(grid.dim(2));
  w.kh = int(kh), w.kw = int(kw), w.stride = int(attrs.integer("stride", 1)), w.top = int(padding[0]), w.left = int(padding[2]);
  return w;
}

/// Each pixel of the grid sees itself alone: the map is a matrix of rows.
static bool pointwise(const Window& w) {
  return w.taps() == 1 && w.stride == 1 && w.top == 0 && w.left == 0 && w.channels2 == 0 && w.upsample == 1 && w.grid_height == w.height &&
         w.grid_width == w.width;
}

/// y [M, O] from a window of K = taps * channels.
static void forward(const OpArgs& args, const TensorRef* x2, const TensorRef& weight, const Epilogue& epilogue) {
  const TensorRef &x = args.in[0], &y = args.out[0];
  GemmProblem p;
  p.window = window_of(args.attrs, x, x2, y, weight.dim(1), weight.dim(2));
  p.dtype = x.dtype, p.m = y.rows(), p.n = y.dim(3), p.k = int64_t(p.window.taps()) * p.window.all_channels();
  p.a_layout = Layout::image, p.b = weight.data, p.ldb = p.k;
  if (pointwise(p.window)) p.a_layout = Layout::rows, p.a = x.data, p.lda = p.k;
  p.epilogue = epilogue;
  gemm(args, p);
}

void conv2d_op(const OpArgs& args) {
  Epilogue e = epilogue_to(args.out[0], args.out[0].dim(3));
  e.bias = args.parameter(2);
  forward(args, nullptr, args.in[1], e);
}

void conv2d_fused_op(const OpArgs& args) {
  const TensorRef& y = args.out[0];
  Epilogue e = epilogue_to(y, y.dim(3));
  e.bias = args.parameter(3);
  if (args.has(4)) e.per_sample = args.in[4].data, e.rows_per_sample = int(y.dim(1) * y.dim(2));
  if (args.has(5)) add_residual(e, args.in[5]);
  e.activation = activation_of(args.attrs);
  if (const int64_t groups = args.attrs.integer("statistics", 0); groups > 0) {
    if (y.dim(1) * y.dim(2) % 128 != 0 || y.dim(3) % groups != 0) throw Error("ERR_PROGRAM", "statistics of whole slabs of 128 pixels and whole groups only");
    e.groups = int(groups), e.statistics = args.out[1].as<float>();
  }
  forward(args, args.has(1) ? &args.in[1] : nullptr, args.in[2], e);
}

/// The same product over dy, the weight read by columns; taps run backwards, and a stride makes phases.
void conv2d_dx_op(const OpArgs& args) {
  const TensorRef &dy = args.in[0], &weight = args.in[1], &dx = args.out[0];
  GemmProblem p;
  p.window = window_of(args.attrs, dy, nullptr, dx, weight.dim(1), weight.dim(2));
  p.window.gradient = true;
  p.dtype = dy.dtype, p.m = dx.rows(), p.n = dx.dim(3), p.k = int64_t(p.window.taps()) * dy.dim(3);
  p.a_layout = Layout::image, p.b_layout = Layout::columns, p.b = weight.data, p.ldb = p.window.taps() * p.n;
  if (pointwise(p.window)) p.window.gradient = false, p.a_layout = Layout::rows, p.a = dy.data, p.lda = p.k;
  p.epilogue = epilogue_to(dx, p.n);
  gemm(args, p);
}

/// dW[o, (tap, channel)] = sum over output pixels of dy[pixel, o] x[what its tap sees, channel]; with `total`, added to it in place.
static void weight_gradient(const OpArgs& args, const TensorRef& dy, const TensorRef& x, const TensorRef* x2, const TensorRef* total) {
  const TensorRef& dw = args.out[0];
  GemmProblem p;
  p.window = window_of(args.attrs, x, x2, dy, dw.dim(1), dw.dim(2));
  p.dtype = dy.dtype, p.m = dy.dim(3), p.n = int64_t(p.window.taps()) * p.window.all_channels(), p.k = dy.rows();
  p.a_layout = Layout::columns, p.a = dy.data, p.lda = p.m, p.b_layout = Layout::patches;
  if (pointwise(p.window)) p.b_layout = Layout::columns, p.b = x.data, p.ldb = p.n;
  p.epilogue = epilogue_to(dw, p.n);
  if (total) add_residual(p.epilogue, *total);
  gemm(args, p);
}
void conv2d_dw_op(const OpArgs& args) { weight_gradient(args, args.in[0], args.in[1], args.has(2) ? &args.in[2] : nullptr, nullptr); }
void conv2d_dw_accumulate_op(const OpArgs& args) { weight_gradient(args, args.in[1], args.in[2], args.has(3) ? &args.in[3] : nullptr, &args.in[0]); }

REGISTER_CUDA(conv2d, conv2d_op)
REGISTER_CUDA(conv2d_fused, conv2d_fused_op)
REGISTER_CUDA(conv2d_dx, conv2d_dx_op)
REGISTER_CUDA(conv2d_dw, conv2d_dw_op)
REGISTER_CUDA(conv2d_dw_fused, conv2d_dw_op)
REGISTER_CUDA(conv2d_dw_accumulate, conv2d_dw_accumulate_op)

}  // namespace cuda
}  // namespace attune
