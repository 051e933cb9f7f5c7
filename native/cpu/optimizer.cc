// Updates of flat parameter arenas in place: AdamW, exponential moving average, gradient accumulation, assignment. Each reads and writes memory once.
#include <cstring>

#include "parallel.h"

ATTUNE_CPU_BEGIN
namespace {

/// torch.optim.AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): the decay multiplies the parameter before the step, eps is added to the corrected
/// root. param, grad, m, v [n], gradScale? f64 [1] multiplies the gradient; not finite, nothing is written.
template <typename T>
struct AdamW {
  T beta1, beta2, eps, keep, step, root;

  explicit AdamW(const OpArgs& args) : beta1(T(args.attrs.number("beta1"))), beta2(T(args.attrs.number("beta2"))), eps(T(args.attrs.number("eps"))) {
    const auto slot = [&](const char* name) { return args.scalars[args.attrs.integer(name)]; };
    const double rate = slot("lr");
    keep = T(1.0 - rate * args.attrs.number("weightDecay"));
    step = T(rate / slot("correction1"));
    root = T(1.0 / std::sqrt(slot("correction2")));
    rest1 = T(1.0 - args.attrs.number("beta1")), rest2 = T(1.0 - args.attrs.number("beta2"));
    scale = args.has(4) ? T(*args.in[4].as<const double>()) : T(1);
  }

  void update(int64_t begin, int64_t end, T* p, const T* grad, T* m, T* v) const {
    const AdamW k = *this;
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
      const T g = grad[i] * k.scale;
      const T first = k.beta1 * m[i] + k.rest1 * g, second = k.beta2 * v[i] + k.rest2 * g * g;
      m[i] = first, v[i] = second;
      p[i] = p[i] * k.keep - k.step * first / (std::sqrt(second) * k.root + k.eps);
    }
  }

  T rest1, rest2, scale;
};

void adamw_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const AdamW<T> adamw(args);
    if (!std::isfinite(adamw.scale)) return;  // a gradient that is not finite: NaN * 0 is NaN, so only writing nothing keeps param, m and v
    T *p = args.out[0].as<T>(), *m = args.out[1].as<T>(), *v = args.out[2].as<T>();
    const T* grad = args.in[1].as<const T>();
    parallel_ranges(args.pool, args.in[0].numel(), kGrain, [&](int64_t begin, int64_t end) { adamw.update(begin, end, p, grad, m, v); });
  });
}

/// shadow += (1 - decay) (param - shadow).
void ema_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const T rate = T(1.0 - args.scalars[args.attrs.integer("decay")]);
    T* shadow = args.out[0].as<T>();
    const T* param = args.in[1].as<const T>();
    parallel_ranges(args.pool, args.in[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) shadow[i] += rate * (param[i] - shadow[i]);
    });
  });
}

void accumulate_kernel(const OpArgs& args) {
  dispatch(args.in[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    T* total = args.out[0].as<T>();
    const T* x = args.in[1].as<const T>();
    parallel_ranges(args.pool, args.in[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) total[i] += x[i];
    });
  });
}

void assign_kernel(const OpArgs& args) {
  char* to = args.out[0].as<char>();
  const char* from = args.in[1].as<const char>();
  if (to == from) return;
  parallel_ranges(args.pool, args.out[0].bytes(), 4 * kGrain, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
}

void fill_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    T* to = args.out[0].as<T>();
    const T value = T(args.attrs.number("value"));
    parallel_ranges(args.pool, args.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; i++) to[i] = value;
    });
  });
}

}  // namespace

REGISTER_CPU(adamw, adamw_kernel)
REGISTER_CPU(ema, ema_kernel)
REGISTER_CPU(accumulate, accumulate_kernel)
REGISTER_CPU(assign, assign_kernel)
REGISTER_CPU(fill, fill_kernel)
ATTUNE_CPU_END
