// Updates of flat arenas in place: AdamW, exponential moving average, gradient accumulation, assignment, fill. A thread owns eight consecutive elements, reads
// each once and writes each once. Bytes a parameter, with f32 states:
//   adamw        28 (param, m, v read and written, gradient f32), 26 with a gradient in bf16; adamw_mixed 2 more for the compute copy
//   ema          12, or 10 from bf16        accumulate  12, or 10 from bf16        assign  4 to 8        fill  4 or 2
// Numbers that change with the step are read from the slots by every thread: the loads of a warp are one broadcast, and its arithmetic hides behind memory.
#include "optimizer.cuh"

namespace attune {
namespace cuda {

/// copy: the parameters in bf16 as the model reads them, or null.
template <typename P, typename G>
__global__ void __launch_bounds__(kPackThreads)
    adamw_kernel(P* __restrict__ param, const G* __restrict__ grad, P* __restrict__ m, P* __restrict__ v, bf16* __restrict__ copy,
                 const double* __restrict__ grad_scale, const double* __restrict__ scalars, AdamwAttrs attrs, int64_t n) {
  const PackPlace here(n);
  if (here.count <= 0) return;
  using C = compute_t<P>;
  const AdamwStep<C> step(attrs, scalars, grad_scale);
  if (!step.finite) return;  // a gradient that is not finite: NaN * 0 is NaN, so only writing nothing keeps param, m and v
  C p[kPack], first[kPack], second[kPack];
  compute_t<G> g[kPack];
  load_pack(param + here.at, here.count, p);
  load_pack(grad + here.at, here.count, g);
  load_pack(m + here.at, here.count, first);
  load_pack(v + here.at, here.count, second);
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) step.update(p[i], C(g[i]), first[i], second[i]);
  store_pack(param + here.at, here.count, p);
  store_pack(m + here.at, here.count, first);
  store_pack(v + here.at, here.count, second);
  if (copy) {
    float narrow[kPack];
    ATTUNE_UNROLL
    for (int i = 0; i < kPack; i++) narrow[i] = float(p[i]);
    store_pack(copy + here.at, here.count, narrow);
  }
}

/// shadow += (1 - decay) (param - shadow)
template <typename T, typename X>
__global__ void __launch_bounds__(kPackThreads)
    ema_kernel(T* __restrict__ shadow, const X* __restrict__ param, const double* __restrict__ scalars, int decay, int64_t n) {
  const PackPlace here(n);
  if (here.count <= 0) return;
  using C = compute_t<T>;
  C average[kPack];
  compute_t<X> x[kPack];
  load_pack(shadow + here.at, here.count, average);
  load_pack(param + here.at, here.count, x);
  const C rate = C(1.0 - load(scalars + decay));
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) average[i] += rate * (C(x[i]) - average[i]);
  store_pack(shadow + here.at, here.count, average);
}

template <typename T, typename X>
__global__ void __launch_bounds__(kPackThreads) accumulate_kernel(T* __restrict__ total, const X* __restrict__ x, int64_t n) {
  const PackPlace here(n);
  if (here.count <= 0) return;
  using C = compute_t<T>;
  C sum[kPack];
  compute_t<X> term[kPack];
  load_pack(total + here.at, here.count, sum);
  load_pack(x + here.at, here.count, term);
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) sum[i] += C(term[i]);
  store_pack(total + here.at, here.count, sum);
}

template <typename T, typename X>
__global__ void __launch_bounds__(kPackThreads) assign_kernel(T* __restrict__ target, const X* __restrict__ x, int64_t n) {
  const PackPlace here(n);
  if (here.count <= 0) return;
  compute_t<T> to[kPack];
  compute_t<X> from[kPack];
  load_pack(x + here.at, here.count, from);
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) to[i] = compute_t<T>(from[i]);
  store_pack(target + here.at, here.count, to);
}

template <typename T>
__global__ void __launch_bounds__(kPackThreads) fill_kernel(T* target, double value, int64_t n) {
  const PackPlace here(n);
  if (here.count <= 0) return;
  compute_t<T> v[kPack];
  ATTUNE_UNROLL
  for (int i = 0; i < kPack; i++) v[i] = compute_t<T>(value);
  store_pack(target + here.at, here.count, v);
}

/// body(tag of the target, tag of the source): one dtype, or bf16 beside f32 or f64.
template <typename Body>
static void dispatch_pair(DType target, DType source, Body&& body) {
  dispatch<true>(target, [&](auto t) {
    using T = decltype(t);
    dispatch<true>(source, [&](auto x) {
      using X = decltype(x);
      constexpr bool fits =
          std::is_same_v<T, X> || std::is_same_v<T, bf16> || std::is_same_v<X, bf16>;  // in a place of its own: inside `if constexpr` g++ 12 takes it for false
      if constexpr (fits) body(T{}, x);
      else
        throw Error("ERR_PROGRAM",
                    std::string("expected one of f32 and f64, or bf16 beside it, received ") + dtype_name(target) + " and " + dtype_name(source));
    });
  });
}

/// The optional gradient scale stands last; adamw_mixed has `copy` before it.
static void start_adamw(const OpArgs& args, bool mixed) {
  const TensorRef &param = args.in[0], &grad = args.in[1];
  const int at = mixed ? 5 : 4;
  const double* scale = args.has(at) ? args.in[at].as<const double>() : nullptr;
  dispatch_pair(param.dtype, grad.dtype, [&](auto p, auto g) {
    using P = decltype(p);
    using G = decltype(g);
    if constexpr (std::is_same_v<P, bf16>) throw Error("ERR_PROGRAM", "adamw: expected parameters and moments in f32, received bf16");
    else
      launch_packs(args, adamw_kernel<P, G>, param.numel(), args.out[0].as<P>(), grad.as<const G>(), args.out[1].as<P>(), args.out[2].as<P>(),
                   mixed ? args.out[3].as<bf16>() : nullptr, scale, args.scalars, AdamwAttrs(args.attrs), param.numel());
  });
}
void adamw_op(const OpArgs& args) { start_adamw(args, false); }
void adamw_mixed_op(const OpArgs& args) { start_adamw(args, true); }

void ema_op(const OpArgs& args) {
  const int64_t n = args.out[0].numel();
  dispatch_pair(args.out[0].dtype, args.in[1].dtype, [&](auto t, auto x) {
    using T = decltype(t);
    using X = decltype(x);
    launch_packs(args, ema_kernel<T, X>, n, args.out[0].as<T>(), args.in[1].as<const X>(), args.scalars, int(args.attrs.integer("decay")), n);
  });
}

void accumulate_op(const OpArgs& args) {
  const int64_t n = args.out[0].numel();
  dispatch_pair(args.out[0].dtype, args.in[1].dtype, [&](auto t, auto x) {
    using T = decltype(t);
    using X = decltype(x);
    launch_packs(args, accumulate_kernel<T, X>, n, args.out[0].as<T>(), args.in[1].as<const X>(), n);
  });
}

void assign_op(const OpArgs& args) {
  const TensorRef &target = args.out[0], &x = args.in[1];
  if (target.dtype == x.dtype) {
    if (!args.dry) args.launcher.copy(target.data, x.data, target.bytes());
    return;
  }
  dispatch_pair(target.dtype, x.dtype, [&](auto t, auto s) {
    using T = decltype(t);
    using X = decltype(s);
    if constexpr (!std::is_same_v<T, X>) launch_packs(args, assign_kernel<T, X>, x.numel(), target.as<T>(), x.as<const X>(), x.numel());
  });
}

void fill_op(const OpArgs& args) {
  const int64_t n = args.out[0].numel();
  dispatch<true>(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_packs(args, fill_kernel<T>, n, args.out[0].as<T>(), args.attrs.number("value"), n);
  });
}

REGISTER_CUDA(adamw, adamw_op)
REGISTER_CUDA(adamw_mixed, adamw_mixed_op)
REGISTER_CUDA(ema, ema_op)
REGISTER_CUDA(accumulate, accumulate_op)
REGISTER_CUDA(assign, assign_op)
REGISTER_CUDA(fill, fill_op)

}  // namespace cuda
}  // namespace attune
