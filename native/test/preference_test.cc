// pair_sums and its gradient against long double sums. D must keep its digits when prediction and reference nearly agree, which is where training starts.
#include "call.h"

using namespace attune;
using namespace attune::test;
using real = long double;

struct Problem {
  std::vector<int64_t> shape;
  int64_t segments;
  double distance;  // of the prediction from the reference
  bool reference;
};
const Problem kProblems[] = {{{2, 4, 4, 4}, 1, 1, true},    {{3, 6, 5, 4}, 3, 0.5, true}, {{2, 64, 48, 16}, 1, 1e-3, true},
                             {{2, 64, 48, 16}, 2, 1, true}, {{300, 2, 2, 1}, 2, 1, true}, {{2, 7, 3, 3}, 1, 1, false}};

struct Inputs {
  Tensor prediction, target, reference;
  Inputs(const Problem& p, DType t) : prediction(t, p.shape, 0.0), target(t, p.shape, 0.0), reference(t, p.shape, 0.0) {
    const auto a = gaussian(prediction.numel(), 1), b = gaussian(prediction.numel(), 2), c = gaussian(prediction.numel(), 3);
    for (int64_t i = 0; i < prediction.numel(); i++)
      target.set(i, a[size_t(i)]), reference.set(i, b[size_t(i)]), prediction.set(i, reference.get(i) + p.distance * c[size_t(i)]);
  }
};

std::string name_of(const Problem& p, const std::string& isa, DType t) {
  return isa + " " + dtype_name(t) + " of " + std::to_string(p.shape[0]) + " samples, " + std::to_string(p.segments) + " segments" +
         (p.reference ? "" : ", no reference");
}

void forward(const Problem& p, const std::string& isa, KernelFn fn, DType t) {
  Inputs in(p, t);
  const int64_t rows = p.shape[0] * p.segments, n = in.prediction.numel() / rows;
  std::vector<Tensor> sums(4, Tensor(DType::f64, {p.shape[0], p.segments}));
  const std::string what = "pair_sums " + name_of(p, isa, t);
  run_on_threads(what, fn, attributes({{"segments", double(p.segments)}}), {&in.prediction, &in.target, p.reference ? &in.reference : nullptr},
                 {&sums[0], &sums[1], &sums[2], &sums[3]});
  for (int64_t row = 0; row < rows; row++) {
    real E = 0, R = 0, P = 0, C = 0;
    for (int64_t i = row * n; i < (row + 1) * n; i++) {
      const real x = in.prediction.get(i), y = in.target.get(i), r = in.reference.get(i), d = x - y, q = p.reference ? x - r : 0;
      E += d * d, R += (r - y) * (r - y), P += q * q, C += d * q;
    }
    const real expected[] = {E / n, p.reference ? (E - R) / n : 0, P / n, C / n};
    for (int k = 0; k < 4; k++) {
      // worst case of sums in chunks of 16384 over two lanes, as the generic instruction set adds; for D, C the terms |d q| sum up to at most sqrt(E P)
      const real size = k == 0 ? E / n : k == 2 ? P / n : 2 * std::sqrt(E * P) / n + P / n;
      const double got = sums[size_t(k)].get(row);
      if (!(std::fabs(got - expected[k]) <= 8300 * 0x1p-53L * size))
        expect(false, what + ": output " + std::to_string(k) + " of row " + std::to_string(row) + " is " + std::to_string(got) + ", expected " +
                          std::to_string(double(expected[k])));
    }
  }
}

void backward(const Problem& p, const std::string& isa, KernelFn fn, DType t) {
  Inputs in(p, t);
  const int64_t rows = p.shape[0] * p.segments, n = in.prediction.numel() / rows;
  std::vector<Tensor> grads;
  for (uint64_t k = 0; k < 4; k++) grads.emplace_back(DType::f64, std::vector<int64_t>{p.shape[0], p.segments}, gaussian(rows, 20 + k));
  Tensor dx(t, p.shape);
  const std::string what = "pair_sums_vjp " + name_of(p, isa, t);
  run_on_threads(what, fn, attributes({{"segments", double(p.segments)}}),
                 {&grads[0], &grads[1], &grads[2], &grads[3], &in.prediction, &in.target, p.reference ? &in.reference : nullptr}, {&dx});
  std::vector<double> expected, bound;
  for (int64_t i = 0; i < dx.numel(); i++) {
    const int64_t row = i / n;
    const double d = in.prediction.get(i) - in.target.get(i), q = in.prediction.get(i) - in.reference.get(i);
    const double dE = grads[0].get(row), dD = grads[1].get(row), dP = grads[2].get(row), dC = grads[3].get(row);
    const double a = p.reference ? 2 * dE + 2 * dD + dC : 2 * dE, b = p.reference ? 2 * dP + dC : 0;
    expected.push_back((a * d + b * q) / double(n)), bound.push_back(8 * roundoff(t) * (std::fabs(a * d) + std::fabs(b * q)) / double(n));
  }
  expect_within(what, dx.values(), expected, bound);
}

/// Maps of small integers, which sum up exactly in any order: bf16 maps give the bits of f32 ones, and a gradient in bf16 is the f32 one rounded.
void mixed(const std::string& isa, KernelFn sums_fn, KernelFn vjp_fn) {
  const std::vector<int64_t> shape = {2, 30, 31, 7}, rows = {2, 3};
  const auto bits = [](float v) {
    uint32_t u;
    std::memcpy(&u, &v, 4);
    return double((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  };
  std::vector<Tensor> wide, narrow, sums(8, Tensor(DType::f64, rows)), grads;
  for (uint64_t k = 0; k < 3; k++) {
    wide.emplace_back(DType::f32, shape, 0.0), narrow.emplace_back(DType::bf16, shape, 0.0);
    const auto values = random_values(wide[k].numel(), 40 + k);
    for (int64_t i = 0; i < wide[k].numel(); i++) wide[k].set(i, std::floor(100 * values[size_t(i)])), narrow[k].set(i, bits(float(wide[k].get(i))));
  }
  for (uint64_t k = 0; k < 4; k++) grads.emplace_back(DType::f64, rows, gaussian(6, 50 + k));
  const Attrs attrs = attributes({{"segments", 3.0}});
  run(sums_fn, attrs, {&wide[0], &wide[1], &wide[2]}, {&sums[0], &sums[1], &sums[2], &sums[3]}, {}, 2);
  for (const bool target : {false, true}) {
    run(sums_fn, attrs, {&narrow[0], target ? &wide[1] : &narrow[1], &narrow[2]}, {&sums[4], &sums[5], &sums[6], &sums[7]}, {}, 2);
    for (size_t k = 0; k < 4; k++) expect(sums[k].same_bits(sums[4 + k]), "pair_sums " + isa + " of bf16: output " + std::to_string(k));
  }
  Tensor dx(DType::f32, shape), dx_mixed(DType::f32, shape), dx_narrow(DType::bf16, shape);
  run(vjp_fn, attrs, {&grads[0], &grads[1], &grads[2], &grads[3], &wide[0], &wide[1], &wide[2]}, {&dx}, {}, 2);
  run(vjp_fn, attrs, {&grads[0], &grads[1], &grads[2], &grads[3], &wide[0], &narrow[1], &wide[2]}, {&dx_mixed}, {}, 2);
  run(vjp_fn, attrs, {&grads[0], &grads[1], &grads[2], &grads[3], &narrow[0], &wide[1], &narrow[2]}, {&dx_narrow}, {}, 2);
  expect(dx.same_bits(dx_mixed), "pair_sums_vjp " + isa + " with a bf16 target");
  for (int64_t i = 0; i < dx.numel(); i++)
    if (dx_narrow.get(i) != bits(float(dx.get(i)))) return expect(false, "pair_sums_vjp " + isa + " of bf16: element " + std::to_string(i));
}

int main() {
  const auto sums = kernels_of("pair_sums"), vjps = kernels_of("pair_sums_vjp");
  for (size_t i = 0; i < sums.size(); i++) mixed(sums[i].first, sums[i].second, vjps[i].second);
  for (const Problem& p : kProblems)
    for (const DType t : {DType::f32, DType::f64}) {
      for (const auto& [isa, fn] : kernels_of("pair_sums")) forward(p, isa, fn, t);
      for (const auto& [isa, fn] : kernels_of("pair_sums_vjp")) backward(p, isa, fn, t);
    }
  return finish("preference");
}
