// Group and layer normalisation, softmax and GEGLU against their formulas in double; gradients against the exact derivative of the f64 kernel by central
// differences along random directions. Shapes cover one task per sample, samples cut into chunks, one channel per group, and a mean far from zero.
#include "call.h"

using namespace attune;
using namespace attune::test;
using Shape = std::vector<int64_t>;

double silu(double x) { return x / (1 + std::exp(-x)); }

struct Case {
  Shape shape;
  int64_t groups;
  bool silu;
  double mean;  // of x, in standard deviations
};
const Case kCases[] = {{{2, 3, 5, 8}, 4, true, 0},      {{2, 3, 5, 8}, 8, false, 1},   {{1, 1, 1, 6}, 2, true, 0},        {{3, 16, 16, 32}, 8, true, 0.5},
                       {{2, 40, 41, 30}, 3, true, 0.5}, {{2, 500, 96}, 32, false, -2}, {{1, 70, 70, 16}, 16, true, 3000}, {{1, 1200, 640}, 32, true, 0}};

std::string name_of(const Case& c, const std::string& isa, DType t) {
  std::string s = "group_norm " + isa + " " + dtype_name(t) + " [";
  for (const int64_t d : c.shape) s += std::to_string(d) + " ";
  return s + "] groups " + std::to_string(c.groups) + (c.silu ? " silu" : "");
}

Attrs group_attrs(const Case& c) { return attributes({{"groups", double(c.groups)}, {"eps", 1e-5}, {"silu", c.silu}}); }

Tensor normal_input(DType t, const Shape& shape, double mean) {
  Tensor x(t, shape, 0.0);
  const auto v = gaussian(x.numel(), 11);
  for (int64_t i = 0; i < x.numel(); i++) x.set(i, v[size_t(i)] + mean);
  return x;
}

/// Formula in double from the values the kernel saw. Normalised values carry the rounding of x - mean, which grows with |mean| / std.
void group_norm_forward(const Case& c, const std::string& isa, KernelFn fn, DType t) {
  const int64_t batch = c.shape[0], channels = c.shape.back(), size = channels / c.groups;
  Tensor x = normal_input(t, c.shape, c.mean), gamma(t, {channels}, gaussian(channels, 12)), beta(t, {channels}, gaussian(channels, 13));
  const int64_t pixels = x.numel() / (batch * channels);
  Tensor y(t, c.shape), mean(t, {batch, c.groups}), rstd(t, {batch, c.groups});
  const std::string what = name_of(c, isa, t);
  run_on_threads(what, fn, group_attrs(c), {&x, &gamma, &beta}, {&y, &mean, &rstd});
  std::vector<double> expected(size_t(x.numel())), bound(expected.size()), means, rstds, mean_bound, rstd_bound;
  const double u = roundoff(t), shift = 1 + std::fabs(c.mean);
  for (int64_t b = 0; b < batch; b++)
    for (int64_t g = 0; g < c.groups; g++) {
      const auto each = [&](auto&& f) {
        for (int64_t p = 0; p < pixels; p++)
          for (int64_t k = g * size; k < (g + 1) * size; k++) f((b * pixels + p) * channels + k, k);
      };
      long double sum = 0, squares = 0;
      each([&](int64_t i, int64_t) { sum += x.get(i); });
      const double mu = double(sum / (pixels * size));
      each([&](int64_t i, int64_t) { squares += (x.get(i) - mu) * (x.get(i) - mu); });
      const double r = 1 / std::sqrt(double(squares / (pixels * size)) + 1e-5);
      means.push_back(mu), rstds.push_back(r), mean_bound.push_back(8 * u * shift),
          rstd_bound.push_back((16 * u + 0x1p-53 * double(pixels * size) / 16) * r);  // sums of 16 in T, then one by one in double
      each([&](int64_t i, int64_t k) {
        const double normal = (x.get(i) - mu) * r, z = normal * gamma.get(k) + beta.get(k);
        expected[size_t(i)] = c.silu ? silu(z) : z;
        bound[size_t(i)] = 16 * u * ((std::fabs(normal) + r * shift) * std::fabs(gamma.get(k)) + std::fabs(beta.get(k)));
      });
    }
  expect_within(what + " y", y.values(), expected, bound);
  expect_within(what + " mean", mean.values(), means, mean_bound);
  expect_within(what + " rstd", rstd.values(), rstds, rstd_bound);
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  long double s = 0;
  for (size_t i = 0; i < a.size(); i++) s += (long double)(a[i]) * b[i];
  return double(s);
}

/// <dy, y(x + h v)> differentiated in h, for each differentiable input in turn, equals <dx, v>.
template <typename Forward>
void check_gradients(const std::string& what, const std::vector<Tensor*>& inputs, const std::vector<Tensor*>& grads, const std::vector<double>& dy,
                     Forward forward) {
  for (size_t k = 0; k < inputs.size(); k++) {
    const Tensor before = *inputs[k];
    const auto v = gaussian(before.numel(), 40 + k);
    const double h = 1e-5;
    const auto at = [&](double step) {
      for (int64_t i = 0; i < before.numel(); i++) inputs[k]->set(i, before.get(i) + step * v[size_t(i)]);
      return dot(forward(), dy);
    };
    const double up = at(h), down = at(-h), slope = (up - down) / (2 * h), product = dot(grads[k]->values(), v);
    *inputs[k] = before;
    const double noise = 1e-10 * std::sqrt(double(dy.size())) * 30;  // rounding of the two values over 2 h
    if (!(std::fabs(slope - product) <= 1e-6 * std::fabs(product) + noise + 1e-6))
      expect(false,
             what + ": input " + std::to_string(k) + " changes the output by " + std::to_string(slope) + ", the gradient says " + std::to_string(product));
  }
}

void group_norm_backward(const Case& c, const std::string& isa, KernelFn forward, KernelFn backward) {
  const int64_t batch = c.shape[0], channels = c.shape.back();
  const auto make = [&](DType t, std::vector<Tensor>* grads) {
    Tensor x = normal_input(t, c.shape, c.mean), gamma(t, {channels}, gaussian(channels, 12)), beta(t, {channels}, gaussian(channels, 13));
    Tensor y(t, c.shape), mean(t, {batch, c.groups}), rstd(t, {batch, c.groups}), dy(t, c.shape, gaussian(x.numel(), 14));
    *grads = {Tensor(t, c.shape), Tensor(t, {channels}), Tensor(t, {channels})};
    run(forward, group_attrs(c), {&x, &gamma, &beta}, {&y, &mean, &rstd});
    run_on_threads(name_of(c, isa, t) + " vjp", backward, group_attrs(c), {&dy, &x, &gamma, &beta, &mean, &rstd}, {&(*grads)[0], &(*grads)[1], &(*grads)[2]});
    Tensor in_place = dy, g1 = (*grads)[1], g2 = (*grads)[2];
    run(backward, group_attrs(c), {&in_place, &x, &gamma, &beta, &mean, &rstd}, {&in_place, &g1, &g2});
    expect(in_place.same_bits((*grads)[0]) && g1.same_bits((*grads)[1]), name_of(c, isa, t) + " vjp: another result in place of dy");
    if (t != DType::f64) return;
    check_gradients(name_of(c, isa, t) + " vjp", {&x, &gamma, &beta}, {&(*grads)[0], &(*grads)[1], &(*grads)[2]}, dy.values(), [&] {
      run(forward, group_attrs(c), {&x, &gamma, &beta}, {&y, &mean, &rstd});
      return y.values();
    });
  };
  std::vector<Tensor> exact, rounded;
  make(DType::f64, &exact);
  if (std::fabs(c.mean) > 10) return;
  make(DType::f32, &rounded);
  for (int k = 0; k < 3; k++) {  // f32 agrees with f64: relative error of the whole, since single elements cancel
    long double off = 0, size = 0;
    for (int64_t i = 0; i < exact[size_t(k)].numel(); i++) {
      const double e = exact[size_t(k)].get(i);
      off += std::pow(e - rounded[size_t(k)].get(i), 2), size += e * e;
    }
    expect(std::sqrt(double(off)) <= 32 * roundoff(DType::f32) * std::sqrt(double(size)) + 1e-6,
           name_of(c, isa, DType::f32) + " vjp: gradient " + std::to_string(k) + " is off");
  }
}

void layer_norm() {
  for (const Shape& shape : {Shape{2, 7, 320}, Shape{5, 3}, Shape{1000, 48}, Shape{1, 1, 1}})
    for (const auto& [isa, fn] : kernels_of("layer_norm"))
      for (const DType t : {DType::f32, DType::f64}) {
        const int64_t n = shape.back();
        Tensor x = normal_input(t, shape, 2), gamma(t, {n}, gaussian(n, 2)), beta(t, {n}, gaussian(n, 3)), y(t, shape);
        const int64_t rows = x.numel() / n;
        Tensor mean(t, {rows}), rstd(t, {rows}), dy(t, shape, gaussian(x.numel(), 4)), dx(t, shape), dgamma(t, {n}), dbeta(t, {n});
        const Attrs attrs = attributes({{"eps", 1e-5}});
        const std::string what = "layer_norm " + isa + " " + dtype_name(t) + " of " + std::to_string(n);
        run_on_threads(what, fn, attrs, {&x, &gamma, &beta}, {&y, &mean, &rstd});
        std::vector<double> expected, bound;
        for (int64_t r = 0; r < rows; r++) {
          double mu = 0, var = 0;
          for (int64_t i = 0; i < n; i++) mu += x.get(r * n + i) / double(n);
          for (int64_t i = 0; i < n; i++) var += std::pow(x.get(r * n + i) - mu, 2) / double(n);
          const double s = 1 / std::sqrt(var + 1e-5);
          for (int64_t i = 0; i < n; i++) {
            expected.push_back((x.get(r * n + i) - mu) * s * gamma.get(i) + beta.get(i));
            bound.push_back(32 * roundoff(t) * (1 + s * 4) * (1 + std::fabs(gamma.get(i)) + std::fabs(beta.get(i))));
          }
        }
        expect_within(what, y.values(), expected, bound);
        const KernelFn backward = find_kernel("cpu", "layer_norm_vjp", isa);
        run_on_threads(what + " vjp", backward, attrs, {&dy, &x, &gamma, &mean, &rstd}, {&dx, &dgamma, &dbeta});
        if (t == DType::f64 && n > 1)
          check_gradients(what + " vjp", {&x, &gamma, &beta}, {&dx, &dgamma, &dbeta}, dy.values(), [&] {
            run(fn, attrs, {&x, &gamma, &beta}, {&y, &mean, &rstd});
            return y.values();
          });
      }
}

void softmax_and_geglu() {
  for (const char* op : {"softmax", "geglu"})
    for (const Shape& shape : {Shape{3, 4, 22}, Shape{700, 2}, Shape{2, 3000}})
      for (const auto& [isa, fn] : kernels_of(op))
        for (const DType t : {DType::f32, DType::f64}) {
          const bool gate = op[0] == 'g';
          Shape out = shape;
          if (gate) out.back() /= 2;
          Tensor x(t, shape, 0.0), y(t, out), dx(t, shape);
          const auto v = gaussian(x.numel(), 7);
          for (int64_t i = 0; i < x.numel(); i++) x.set(i, 3 * v[size_t(i)]);
          Tensor dy(t, out, gaussian(y.numel(), 8));
          const std::string what = std::string(op) + " " + isa + " " + dtype_name(t) + " of " + std::to_string(shape.back());
          run_on_threads(what, fn, {}, {&x}, {&y});
          const int64_t n = shape.back(), d = out.back();
          std::vector<double> expected, bound;
          for (int64_t r = 0; r < x.numel() / n; r++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++) sum += std::exp(x.get(r * n + i));
            for (int64_t i = 0; i < d; i++) {
              const double a = x.get(r * n + i), g = gate ? x.get(r * n + d + i) : 0;
              expected.push_back(gate ? a * g * std::erfc(-g / std::sqrt(2.0)) / 2 : std::exp(a) / sum);
              bound.push_back(roundoff(t) * (gate ? 10 * std::fabs(a * g) : (40 + std::log(sum)) * expected.back()));
            }
          }
          expect_within(what, y.values(), expected, bound);
          const KernelFn backward = find_kernel("cpu", std::string(op) + "_vjp", isa);
          run_on_threads(what + " vjp", backward, {}, {&dy, gate ? &x : &y}, {&dx});
          if (t == DType::f64) check_gradients(what + " vjp", {&x}, {&dx}, dy.values(), [&] { return run(fn, {}, {&x}, {&y}), y.values(); });
        }
}

int main() {
  for (const Case& c : kCases)
    for (const auto& [isa, fn] : kernels_of("group_norm")) {
      for (const DType t : {DType::f32, DType::f64}) group_norm_forward(c, isa, fn, t);
      group_norm_backward(c, isa, fn, find_kernel("cpu", "group_norm_vjp", isa));
    }
  layer_norm();
  softmax_and_geglu();
  return finish("norm");
}
