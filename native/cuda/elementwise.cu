// Elementwise ops: unary, binary with numpy broadcasting, activations' gradients, affine, clamp, select. One kernel per element type: the opcode is switched on
// once per vector, the same way in every thread. Bytes moved: each dense operand once and the output once, which is the least; what repeats comes from cache.
// Output 0 may lie on an operand of its shape: each thread reads the elements that it then writes. No pointer here is __restrict__ for that reason.
#include "broadcast.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

constexpr int kElementwiseThreads = 256;

template <typename T>
struct Elementwise {
  int opcode, operands;
  const T* in[3];
  Walk<3> walk;
  bool in_rows;
  compute_t<T> p, q;
};

template <typename T>
__global__ void __launch_bounds__(kElementwiseThreads) elementwise_kernel(const __grid_constant__ Elementwise<T> e, T* y, int64_t n) {
  using C = compute_t<T>;
  constexpr int N = lanes_of<T>;
  bool vectors = e.in_rows && aligned(y);
  ATTUNE_UNROLL
  for (int k = 0; k < 3; k++)
    if (k < e.operands) vectors = vectors && (e.walk.repeats(k) || aligned(e.in[k]));
  const int64_t block = int64_t(kElementwiseThreads) * N;
  for (int64_t base = blockIdx.x * block; base < n; base += gridDim.x * block) {
    const bool whole = vectors && base + block <= n;  // else single elements, consecutive threads on consecutive ones
    C v[3][N] = {}, out[N];
    int64_t position[3];
    if (whole) {
      e.walk.at(base + int64_t(threadIdx.x) * N, position);
      ATTUNE_UNROLL
      for (int k = 0; k < 3; k++)
        if (k < e.operands) operand_lanes<N>(e.in[k] + position[k], e.walk.repeats(k), v[k]);
    } else {
      ATTUNE_UNROLL
      for (int lane = 0; lane < N; lane++) {
        const int64_t i = base + lane * kElementwiseThreads + threadIdx.x;
        if (i >= n) break;
        e.walk.at(i, position);
        ATTUNE_UNROLL
        for (int k = 0; k < 3; k++)
          if (k < e.operands) v[k][lane] = to_float(load(e.in[k] + position[k]));
      }
    }
    compute<T>(e.opcode, v[0], v[1], v[2], e.p, e.q, out);
    if (whole) {
      store_lanes<N>(y + base + int64_t(threadIdx.x) * N, out);
    } else {
      ATTUNE_UNROLL
      for (int lane = 0; lane < N; lane++) {
        const int64_t i = base + lane * kElementwiseThreads + threadIdx.x;
        if (i < n) store(y + i, from_float<T>(out[lane]));
      }
    }
  }
}

/// add, sub and mul count too, modulo 2^32.
__global__ void __launch_bounds__(kElementwiseThreads)
    integer_kernel(int opcode, const int32_t* a, const int32_t* b, const __grid_constant__ Walk<2> walk, int32_t* y, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kElementwiseThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kElementwiseThreads) {
    int64_t position[2];
    walk.at(i, position);
    const uint32_t p = uint32_t(load(a + position[0])), q = uint32_t(load(b + position[1]));
    store(y + i, int32_t(opcode == op_add ? p + q : opcode == op_sub ? p - q : p * q));
  }
}

static void elementwise(const OpArgs& args, Opcode opcode, double p, double q) {
  const TensorRef& out = args.out[0];
  const int operands = operands_of(opcode);
  const TensorRef *a = &args.in[0], *b = operands > 1 ? &args.in[1] : a, *c = operands > 2 ? &args.in[2] : a;
  const int64_t n = out.numel();
  if (out.dtype == DType::i32 && (opcode == op_add || opcode == op_sub || opcode == op_mul)) {
    launch(args, integer_kernel, grid_of(args, ceil_div(n, kElementwiseThreads)), dim3(kElementwiseThreads), 0, int(opcode), a->as<const int32_t>(),
           b->as<const int32_t>(), walk_of<2>(out, {a, b}), out.as<int32_t>(), n);
    return;
  }
  dispatch<true>(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    Elementwise<T> e{opcode,          operands,       {a->as<const T>(), b->as<const T>(), c->as<const T>()}, walk_of<3>(out, {a, b, c}), false,
                     compute_t<T>(p), compute_t<T>(q)};
    e.in_rows = e.walk.in_rows(lanes_of<T>);
    launch(args, elementwise_kernel<T>, grid_of(args, ceil_div(n, kElementwiseThreads * lanes_of<T>)), dim3(kElementwiseThreads), 0, e, out.as<T>(), n);
  });
}

void affine_op(const OpArgs& args) { elementwise(args, op_affine, args.attrs.number("scale"), args.attrs.number("shift")); }
void clamp_op(const OpArgs& args) { elementwise(args, op_clamp, args.attrs.number("min"), args.attrs.number("max")); }
REGISTER_CUDA(affine, affine_op)
REGISTER_CUDA(clamp, clamp_op)

#define ATTUNE_ELEMENTWISE(name)                                                      \
  void elementwise_##name(const OpArgs& args) { elementwise(args, op_##name, 0, 0); } \
  REGISTER_CUDA(name, elementwise_##name)
ATTUNE_ELEMENTWISE(add)
ATTUNE_ELEMENTWISE(sub)
ATTUNE_ELEMENTWISE(mul)
ATTUNE_ELEMENTWISE(div)
ATTUNE_ELEMENTWISE(maximum)
ATTUNE_ELEMENTWISE(minimum)
ATTUNE_ELEMENTWISE(greater)
ATTUNE_ELEMENTWISE(silu_vjp)
ATTUNE_ELEMENTWISE(gelu_vjp)
ATTUNE_ELEMENTWISE(gelu_tanh_vjp)
ATTUNE_ELEMENTWISE(quick_gelu_vjp)
ATTUNE_ELEMENTWISE(neg)
ATTUNE_ELEMENTWISE(exp)
ATTUNE_ELEMENTWISE(log)
ATTUNE_ELEMENTWISE(log1p)
ATTUNE_ELEMENTWISE(sqrt)
ATTUNE_ELEMENTWISE(rsqrt)
ATTUNE_ELEMENTWISE(square)
ATTUNE_ELEMENTWISE(abs)
ATTUNE_ELEMENTWISE(sigmoid)
ATTUNE_ELEMENTWISE(softplus)
ATTUNE_ELEMENTWISE(tanh)
ATTUNE_ELEMENTWISE(relu)
ATTUNE_ELEMENTWISE(silu)
ATTUNE_ELEMENTWISE(gelu)
ATTUNE_ELEMENTWISE(gelu_tanh)
ATTUNE_ELEMENTWISE(quick_gelu)
ATTUNE_ELEMENTWISE(sin)
ATTUNE_ELEMENTWISE(cos)
ATTUNE_ELEMENTWISE(reciprocal)
ATTUNE_ELEMENTWISE(select)

}  // namespace cuda
}  // namespace attune
