// The numbers of an AdamW step: attributes and slots on the host, their combinations on the device.
#pragma once
#include <cmath>

#include "packs.cuh"
#include "scalar_ops.cuh"

namespace attune {
namespace cuda {

/// Attributes of an AdamW step: numbers, and the slots of those that change.
struct AdamwAttrs {
  double beta1, beta2, eps, weight_decay;
  int rate, correction1, correction2;

  explicit AdamwAttrs(const Attrs& a)
      : beta1(a.number("beta1")),
        beta2(a.number("beta2")),
        eps(a.number("eps")),
        weight_decay(a.number("weightDecay")),
        rate(int(a.integer("lr"))),
        correction1(int(a.integer("correction1"))),
        correction2(int(a.integer("correction2"))) {}
};

/// The same, ready for use. Quotients are formed in f64: 1 - beta2 would keep 14 bits of f32's 24.
template <typename C>
struct AdamwStep {
  C beta1, rest1, beta2, rest2, eps, keep, step, root, scale;
  bool finite;

  ATTUNE_DEVICE AdamwStep(const AdamwAttrs& a, const double* scalars, const double* grad_scale) {
    const double rate = load(scalars + a.rate);
    beta1 = C(a.beta1), rest1 = C(1.0 - a.beta1), beta2 = C(a.beta2), rest2 = C(1.0 - a.beta2), eps = C(a.eps);
    keep = C(fma_of(-rate, a.weight_decay, 1.0)), step = C(rate / load(scalars + a.correction1)), root = C(1.0 / sqrt(load(scalars + a.correction2)));
    scale = grad_scale ? C(load(grad_scale)) : C(1);
    finite = scale - scale == C(0);
  }

  /// torch.optim.AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): the decay multiplies the parameter before the step, eps is added to the corrected root.
  /// Every product that meets a sum does so in an explicit fma, so that all machines agree on the bits.
  ATTUNE_DEVICE void update(C& param, C grad, C& m, C& v) const {
    const C g = grad * scale;
    m = fma_of(rest1, g, beta1 * m);
    v = fma_of(rest2 * g, g, beta2 * v);
    param = fma_of(param, keep, -(step * m / fma_of(Math<C>::sqrt(v), root, eps)));
  }
};

}  // namespace cuda
}  // namespace attune
