// AdamW against torch.optim.AdamW's update written out in long double, several steps in a row; averages, accumulation and assignment against their formulas.
#include "call.h"

using namespace attune;
using namespace attune::test;
using real = long double;

/// torch/optim/adamw.py, single tensor.
void torch_adamw(std::vector<real>* p, const std::vector<real>& grad, std::vector<real>* m, std::vector<real>* v, int step, real lr, real decay, real eps) {
  const real beta1 = 0.9L, beta2 = 0.999L;
  for (size_t i = 0; i < p->size(); i++) {
    (*p)[i] *= 1 - lr * decay;
    (*m)[i] += (1 - beta1) * (grad[i] - (*m)[i]);
    (*v)[i] = beta2 * (*v)[i] + (1 - beta2) * grad[i] * grad[i];
    const real root = std::sqrt((*v)[i]) / std::sqrt(1 - std::pow(beta2, real(step))) + eps;
    (*p)[i] -= lr / (1 - std::pow(beta1, real(step))) * (*m)[i] / root;
  }
}

void adamw(const std::string& isa, KernelFn fn, DType t, bool scaled) {
  const int64_t n = 40007;
  const double lr = 1e-2, decay = 0.1, eps = 1e-8, scale = scaled ? 0.25 : 1;
  const std::string what = "adamw " + isa + " " + dtype_name(t) + (scaled ? " with gradScale" : "");
  Tensor p(t, {n}, gaussian(n, 1)), m(t, {n}, 0.0), v(t, {n}, 0.0), factor(DType::f64, {1}, scale);
  std::vector<real> exact_p, exact_m(size_t(n), 0), exact_v(size_t(n), 0);
  for (const double x : p.values()) exact_p.push_back(x);
  const Attrs attrs =
      attributes({{"beta1", 0.9}, {"beta2", 0.999}, {"eps", eps}, {"weightDecay", decay}, {"lr", 2.0}, {"correction1", 0.0}, {"correction2", 1.0}});
  for (int step = 1; step <= 4; step++) {
    Tensor grad(t, {n}, gaussian(n, 10 + uint64_t(step)));
    std::vector<real> g;
    for (const double x : grad.values()) g.push_back(real(x) * scale);
    const Tensor p0 = p, m0 = m, v0 = v;
    const std::vector<double> scalars = {1 - std::pow(0.9, step), 1 - std::pow(0.999, step), lr};
    run(fn, attrs, {&p, &grad, &m, &v, scaled ? &factor : nullptr}, {&p, &m, &v}, scalars, 3);
    Tensor p1 = p0, m1 = m0, v1 = v0;
    run(fn, attrs, {&p1, &grad, &m1, &v1, scaled ? &factor : nullptr}, {&p1, &m1, &v1}, scalars, 1);
    expect(p1.same_bits(p) && m1.same_bits(m) && v1.same_bits(v), what + ": differs between 1 and 3 threads");
    torch_adamw(&exact_p, g, &exact_m, &exact_v, step, lr, decay, eps);
  }
  std::vector<double> expected, bound, expected_v, bound_v;
  for (int64_t i = 0; i < n; i++) {
    expected.push_back(double(exact_p[size_t(i)])), expected_v.push_back(double(exact_v[size_t(i)]));
    // each step rounds p, and moves it by at most about lr * 10 with a relative error of some roundings
    bound.push_back(4 * roundoff(t) * (4 * std::fabs(expected.back()) + 16 * 10 * lr)), bound_v.push_back(32 * roundoff(t) * expected_v.back());
  }
  expect_within(what + " p", p.values(), expected, bound);
  expect_within(what + " v", v.values(), expected_v, bound_v);
}

void flat_updates() {
  const int64_t n = 70001;
  for (const DType t : {DType::f32, DType::f64}) {
    Tensor x(t, {n}, gaussian(n, 5));
    const Tensor before(t, {n}, gaussian(n, 6));
    for (const auto& [isa, fn] : kernels_of("ema")) {
      Tensor shadow = before;
      run(fn, attributes({{"decay", 1.0}}), {&shadow, &x}, {&shadow}, {7, 0.75}, 2);
      std::vector<double> expected, bound;
      for (int64_t i = 0; i < n; i++)
        expected.push_back(0.75 * before.get(i) + 0.25 * x.get(i)), bound.push_back(3 * roundoff(t) * (std::fabs(before.get(i)) + std::fabs(x.get(i))));
      expect_within("ema " + isa, shadow.values(), expected, bound);
    }
    for (const auto& [isa, fn] : kernels_of("accumulate")) {
      Tensor total = before, sum(t, {n});
      run(fn, {}, {&total, &x}, {&total}, {}, 2);
      for (int64_t i = 0; i < n; i++) sum.set(i, before.get(i) + x.get(i));
      expect(total.same_bits(sum), "accumulate " + isa);
    }
    for (const auto& [isa, fn] : kernels_of("assign")) {
      Tensor target = before;
      run(fn, {}, {&target, &x}, {&target}, {}, 2);
      expect(target.same_bits(x), "assign " + isa);
    }
  }
}

int main() {
  for (const auto& [isa, fn] : kernels_of("adamw"))
    for (const DType t : {DType::f32, DType::f64})
      for (const bool scaled : {false, true}) adamw(isa, fn, t, scaled);
  flat_updates();
  return finish("optimizer");
}
