// Updates of flat parameter arenas in place: AdamW, exponential moving average, gradient accumulation, assignment. Each reads and writes memory once.
// Gradients and compute copies may be bf16 beside f32 masters.
#include <cstring>

#include "parallel.h"
#include "reduced_float.h"

ATTUNE_CPU_BEGIN
namespace {

/// body(tag of the target, tag of the source): one dtype, or bf16 beside f32 or f64.
template <typename Body>
void dispatch_pair(DType target, DType source, Body&& body) {
  const auto with = [&](auto wide) {
    if (source == DType::bf16) body(wide, BF16{});
    else if (target == DType::bf16) body(BF16{}, wide);
    else body(wide, wide);
  };
  const auto is = [&](DType wide) { return (target == wide || target == DType::bf16) && (source == wide || source == DType::bf16); };
  if (target == DType::bf16 && source == DType::bf16) body(BF16{}, BF16{});
  else if (is(DType::f32)) with(F32{});
  else if (is(DType::f64)) with(F64{});
  else throw Error("ERR_PROGRAM", std::string("expected one of f32 and f64, or bf16 beside it, received ") + dtype_name(target) + " and " + dtype_name(source));
}

/// torch.optim.AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): the decay multiplies the parameter before the step, eps is added to the corrected
/// root. param, grad, m, v [n], gradScale? f64 [1] multiplies the gradient; not finite, nothing is written.
template <typename T>
struct AdamW {
  T beta1, beta2, eps, keep, step, root;

  AdamW(const OpArgs& args, const double* grad_scale)
      : beta1(T(args.attrs.number("beta1"))), beta2(T(args.attrs.number("beta2"))), eps(T(args.attrs.number("eps"))) {
    const auto slot = [&](const char* name) { return args.scalars[args.attrs.integer(name)]; };
    const double rate = slot("lr");
    keep = T(1.0 - rate * args.attrs.number("weightDecay"));
    step = T(rate / slot("correction1"));
    root = T(1.0 / std::sqrt(slot("correction2")));
    rest1 = T(1.0 - args.attrs.number("beta1")), rest2 = T(1.0 - args.attrs.number("beta2"));
    scale = grad_scale ? T(*grad_scale) : T(1);
  }

  template <typename G>
  void update(int64_t begin, int64_t end, T* p, const typename G::Stored* grad, T* m, T* v) const {
    const AdamW k = *this;
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
      const T g = G::load(grad[i]) * k.scale;
      const T first = k.beta1 * m[i] + k.rest1 * g, second = k.beta2 * v[i] + k.rest2 * g * g;
      m[i] = first, v[i] = second;
      p[i] = p[i] * k.keep - k.step * first / (std::sqrt(second) * k.root + k.eps);
    }
  }

  T rest1, rest2, scale;
};

/// copy[begin .. end) = p: the parameters as the model reads them.
template <typename T>
void copy_out(int64_t begin, int64_t end, const T* p, const TensorRef& copy) {
  dispatch_pair(copy.dtype, copy.dtype, [&](auto tag, auto) {
    using To = decltype(tag);
    auto* to = copy.as<typename To::Stored>();
#pragma omp simd
    for (int64_t i = begin; i < end; i++) to[i] = To::store(p[i]);
  });
}

/// adamw, and adamw_mixed with `copy` [n] behind v.
template <bool kMixed>
void adamw_kernel(const OpArgs& args) {
  constexpr int kScale = kMixed ? 5 : 4;
  const double* grad_scale = args.has(kScale) ? args.in[kScale].as<const double>() : nullptr;
  dispatch_pair(args.in[0].dtype, args.in[1].dtype, [&](auto param, auto gradient) {
    using T = typename decltype(param)::Stored;
    using G = decltype(gradient);
    if constexpr (sizeof(T) == 2) throw Error("ERR_PROGRAM", "adamw: expected parameters and moments in f32 or f64, received bf16");
    else {
      const AdamW<T> adamw(args, grad_scale);
      if (!std::isfinite(adamw.scale)) return;  // a gradient that is not finite: NaN * 0 is NaN, so only writing nothing keeps param, m and v
      T *p = args.out[0].as<T>(), *m = args.out[1].as<T>(), *v = args.out[2].as<T>();
      const auto* grad = args.in[1].as<const typename G::Stored>();
      parallel_ranges(args.pool, args.in[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
        adamw.template update<G>(begin, end, p, grad, m, v);
        if constexpr (kMixed) copy_out(begin, end, p, args.out[3]);
      });
    }
  });
}

/// to[i] = f(to[i], from[i])
template <typename F>
void update_in_place(const OpArgs& args, F&& f) {
  dispatch_pair(args.out[0].dtype, args.in[1].dtype, [&](auto target, auto source) {
    using To = decltype(target);
    using From = decltype(source);
    auto* to = args.out[0].as<typename To::Stored>();
    const auto* from = args.in[1].as<const typename From::Stored>();
    parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) to[i] = To::store(f(To::load(to[i]), From::load(from[i])));
    });
  });
}

/// shadow += (1 - decay) (param - shadow).
void ema_kernel(const OpArgs& args) {
  const double decay = args.scalars[args.attrs.integer("decay")];
  update_in_place(args, [=](auto shadow, auto param) { return shadow + decltype(shadow)(1.0 - decay) * (param - shadow); });
}

void accumulate_kernel(const OpArgs& args) {
  update_in_place(args, [](auto total, auto x) { return total + x; });
}

void assign_kernel(const OpArgs& args) {
  if (args.out[0].dtype != args.in[1].dtype) return update_in_place(args, [](auto, auto x) { return x; });
  char* to = args.out[0].as<char>();
  const char* from = args.in[1].as<const char>();
  if (to == from) return;
  parallel_ranges(args.pool, args.out[0].bytes(), 4 * kGrain, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
}

void fill_kernel(const OpArgs& args) {
  const double value = args.attrs.number("value");
  dispatch_pair(args.out[0].dtype, args.out[0].dtype, [&](auto tag, auto) {
    using To = decltype(tag);
    auto* to = args.out[0].as<typename To::Stored>();
    const auto stored = To::store(value);
    parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) to[i] = stored;
    });
  });
}

}  // namespace

REGISTER_CPU(adamw, adamw_kernel<false>)
REGISTER_CPU(adamw_mixed, adamw_kernel<true>)
REGISTER_CPU(ema, ema_kernel)
REGISTER_CPU(accumulate, accumulate_kernel)
REGISTER_CPU(assign, assign_kernel)
REGISTER_CPU(fill, fill_kernel)
ATTUNE_CPU_END
