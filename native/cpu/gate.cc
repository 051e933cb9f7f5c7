// GEGLU, Shazeer 2020 (arXiv:2002.05202): x [.., 2D] -> value * gelu(gate), value = x[.., :D], gate = x[.., D:], exact gelu.
#include "parallel.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

void geglu_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t d = args.out[0].dim(-1);
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    parallel_ranges(args.pool, args.out[0].rows(), kMathGrain / d, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const T *value = x + row * 2 * d, *gate = value + d;
        T* to = y + row * d;
#pragma omp simd
        for (int64_t i = 0; i < d; i++) to[i] = value[i] * gelu_op::apply(gate[i]);
      }
    });
  });
}

/// dvalue = dy gelu(gate), dgate = dy value gelu'(gate).
void geglu_vjp_kernel(const OpArgs& args) {
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t d = args.in[0].dim(-1);
    const T *dy = args.in[0].as<const T>(), *x = args.in[1].as<const T>();
    T* dx = args.out[0].as<T>();
    parallel_ranges(args.pool, args.in[0].rows(), kMathGrain / d, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const T *g = dy + row * d, *value = x + row * 2 * d, *gate = value + d;
        T *dvalue = dx + row * 2 * d, *dgate = dvalue + d;
#pragma omp simd
        for (int64_t i = 0; i < d; i++) {
          const T cdf = math::normal_cdf(gate[i]), up = g[i], at = gate[i], v = value[i];
          dvalue[i] = up * at * cdf;
          dgate[i] = up * v * (cdf + at * math::normal_pdf(at));
        }
      }
    });
  });
}

}  // namespace

REGISTER_CPU(geglu, geglu_kernel)
REGISTER_CPU(geglu_vjp, geglu_vjp_kernel)
ATTUNE_CPU_END
