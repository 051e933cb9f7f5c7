// Elementwise ops: binary with numpy broadcasting, unary, activations' gradients, affine, clamp, select, cast.
// Outputs may share the memory of an input of the same shape: every element is read before its place is written.
#include "broadcast.h"
#include "reduced_float.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

/// y[i] = f(i) for a run: the form that the compiler vectorises.
template <typename T, typename F>
ATTUNE_INLINE void fill(int64_t n, T* y, F&& f) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = f(i);
}

template <typename Op, typename T>
ATTUNE_INLINE void binary_run(int64_t n, const T* a, int64_t step_a, const T* b, int64_t step_b, T* y) {
  if (step_a && step_b) {
    fill(n, y, [=](int64_t i) { return Op::apply(a[i], b[i]); });
  } else if (step_a) {
    const T value = *b;
    fill(n, y, [=](int64_t i) { return Op::apply(a[i], value); });
  } else if (step_b) {
    const T value = *a;
    fill(n, y, [=](int64_t i) { return Op::apply(value, b[i]); });
  } else {
    const T value = Op::apply(*a, *b);
    fill(n, y, [=](int64_t) { return value; });
  }
}

/// Rows shorter than this are gathered into blocks: a run of four elements costs more to start than to compute.
constexpr int64_t kShortRow = 32, kBlock = 1024;

template <typename Op, typename T>
void binary(const OpArgs& args, int64_t grain) {
  const TensorRef &in_a = args.in[0], &in_b = args.in[1], &out = args.out[0];
  const T *a = in_a.as<T>(), *b = in_b.as<T>();
  T* y = out.as<T>();
  const Walk<2> walk = collapse<2>(out, {&in_a, &in_b});
  const int64_t step_a = walk.inner_stride(0), step_b = walk.inner_stride(1);
  if (walk.rank > 1 && walk.inner() < kShortRow) {
    const BlockReader<T> read_a(in_a, out), read_b(in_b, out);
    parallel_ranges(args.pool, out.numel(), grain, [&](int64_t begin, int64_t end) {
      T buffer_a[kBlock], buffer_b[kBlock];
      for (int64_t at = begin; at < end; at += kBlock) {
        const int64_t n = min_of(kBlock, end - at);
        binary_run<Op, T>(n, read_a.block(at, n, buffer_a), 1, read_b.block(at, n, buffer_b), 1, y + at);
      }
    });
    return;
  }
  parallel_ranges(args.pool, out.numel(), grain, [&](int64_t begin, int64_t end) {
    walk_runs<2>(walk, begin, end,
                 [&](int64_t n, int64_t at, const int64_t* position) { binary_run<Op, T>(n, a + position[0], step_a, b + position[1], step_b, y + at); });
  });
}

template <typename F>
void unary(const OpArgs& args, int64_t grain, F&& f) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.out[0].numel(), grain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) y[i] = f(x[i]);
    });
  });
}

template <typename Op>
void float_binary(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) { binary<Op, decltype(tag)>(args, kGrain); });
}

/// add, sub, mul also count.
template <typename Op>
void number_binary(const OpArgs& args) {
  if (args.out[0].dtype == DType::i32) binary<Op, int32_t>(args, kGrain);
  else float_binary<Op>(args);
}

template <typename Op>
void cheap_unary(const OpArgs& args) {
  unary(args, kGrain, [](auto x) { return Op::apply(x); });
}
template <typename Op>
void math_unary(const OpArgs& args) {
  unary(args, kMathGrain, [](auto x) { return Op::apply(x); });
}
template <typename Op>
void math_binary(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) { binary<Op, decltype(tag)>(args, kMathGrain); });
}

void affine_kernel(const OpArgs& args) {
  const double scale = args.attrs.number("scale"), shift = args.attrs.number("shift");
  unary(args, kGrain, [=](auto x) { return decltype(x)(scale) * x + decltype(x)(shift); });
}

void clamp_kernel(const OpArgs& args) {
  const double low = args.attrs.number("min"), high = args.attrs.number("max");
  unary(args, kGrain, [=](auto x) { return clamp_value(x, decltype(x)(low), decltype(x)(high)); });
}

void select_kernel(const OpArgs& args) {
  const TensorRef& out = args.out[0];
  dispatch(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const BlockReader<T> condition(args.in[0], out), yes(args.in[1], out), no(args.in[2], out);
    T* y = out.as<T>();
    parallel_ranges(args.pool, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
      T buffers[3][kBlock];
      for (int64_t at = begin; at < end; at += kBlock) {
        const int64_t n = min_of(kBlock, end - at);
        const T *c = condition.block(at, n, buffers[0]), *a = yes.block(at, n, buffers[1]), *b = no.block(at, n, buffers[2]);
        fill(n, y + at, [=](int64_t i) {
          const T p = a[i], q = b[i];
          return c[i] != T(0) ? p : q;
        });
      }
    });
  });
}

template <typename From, typename To>
void cast_elements(const OpArgs& args) {
  const auto* x = args.in[0].as<const typename From::Stored>();
  auto* y = args.out[0].as<typename To::Stored>();
  parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) y[i] = To::store(From::load(x[i]));
  });
}

template <typename From>
void cast_from(const OpArgs& args) {
  switch (args.out[0].dtype) {
    case DType::f64: return cast_elements<From, F64>(args);
    case DType::f32: return cast_elements<From, F32>(args);
    case DType::bf16: return cast_elements<From, BF16>(args);
    case DType::f16: return cast_elements<From, F16>(args);
    case DType::i32: return cast_elements<From, I32>(args);
    default: throw Error("ERR_PROGRAM", std::string("cast: expected f64, f32, bf16, f16 or i32, received ") + dtype_name(args.out[0].dtype));
  }
}

void cast_kernel(const OpArgs& args) {
  switch (args.in[0].dtype) {
    case DType::f64: return cast_from<F64>(args);
    case DType::f32: return cast_from<F32>(args);
    case DType::bf16: return cast_from<BF16>(args);
    case DType::f16: return cast_from<F16>(args);
    case DType::i32: return cast_from<I32>(args);
    default: throw Error("ERR_PROGRAM", std::string("cast: expected f64, f32, bf16, f16 or i32, received ") + dtype_name(args.in[0].dtype));
  }
}

}  // namespace

REGISTER_CPU(add, number_binary<add_op>)
REGISTER_CPU(sub, number_binary<sub_op>)
REGISTER_CPU(mul, number_binary<mul_op>)
REGISTER_CPU(div, float_binary<div_op>)
REGISTER_CPU(maximum, float_binary<maximum_op>)
REGISTER_CPU(minimum, float_binary<minimum_op>)
REGISTER_CPU(greater, float_binary<greater_op>)
REGISTER_CPU(silu_vjp, math_binary<silu_vjp_op>)
REGISTER_CPU(gelu_vjp, math_binary<gelu_vjp_op>)
REGISTER_CPU(gelu_tanh_vjp, math_binary<gelu_tanh_vjp_op>)
REGISTER_CPU(quick_gelu_vjp, math_binary<quick_gelu_vjp_op>)
REGISTER_CPU(neg, cheap_unary<neg_op>)
REGISTER_CPU(sqrt, cheap_unary<sqrt_op>)
REGISTER_CPU(rsqrt, cheap_unary<rsqrt_op>)
REGISTER_CPU(square, cheap_unary<square_op>)
REGISTER_CPU(abs, cheap_unary<abs_op>)
REGISTER_CPU(relu, cheap_unary<relu_op>)
REGISTER_CPU(reciprocal, cheap_unary<reciprocal_op>)
REGISTER_CPU(exp, math_unary<exp_op>)
REGISTER_CPU(log, math_unary<log_op>)
REGISTER_CPU(log1p, math_unary<log1p_op>)
REGISTER_CPU(sigmoid, math_unary<sigmoid_op>)
REGISTER_CPU(softplus, math_unary<softplus_op>)
REGISTER_CPU(tanh, math_unary<tanh_op>)
REGISTER_CPU(silu, math_unary<silu_op>)
REGISTER_CPU(gelu, math_unary<gelu_op>)
REGISTER_CPU(gelu_tanh, math_unary<gelu_tanh_op>)
REGISTER_CPU(quick_gelu, math_unary<quick_gelu_op>)
REGISTER_CPU(sin, math_unary<sin_op>)
REGISTER_CPU(cos, math_unary<cos_op>)
REGISTER_CPU(affine, affine_kernel)
REGISTER_CPU(clamp, clamp_kernel)
REGISTER_CPU(select, select_kernel)
REGISTER_CPU(cast, cast_kernel)
ATTUNE_CPU_END
