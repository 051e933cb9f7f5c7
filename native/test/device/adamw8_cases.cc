// AdamW with moments in 8 bits: the bits of the cpu kernel, on arenas that end inside a pack, inside a block and inside a warp's run of blocks; fresh state,
// blocks of nothing but zeros, magnitudes of all decades.
#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

namespace {

/// One period: values repeat.
std::vector<double> codes(int64_t step) {
  std::vector<double> c;
  for (int64_t i = 0; i < 256; i++) c.push_back(double(i * step % 256));
  return c;
}
/// Gradients of all magnitudes from 1 down to 1e-9; the third block is zeros.
std::vector<double> decades(int64_t n) {
  std::vector<double> g;
  for (int64_t i = 0; i < n; i++) g.push_back(i / 256 == 2 ? 0 : std::sin(double(i)) * std::pow(10.0, -double(i % 10)));
  return g;
}

DeviceCase adamw8(const std::string& name, DType param, DType grad, int64_t n, bool stochastic) {
  const int64_t blocks = (n + 255) / 256;
  DeviceCase c{std::string(dtype_name(param)) + " from " + dtype_name(grad) + " x " + std::to_string(n) + name, "adamw8", {}, {}, {}};
  c.attrs = attrs({{"beta1", 0.9},
                   {"beta2", 0.999},
                   {"eps", 1e-8},
                   {"weightDecay", 0.1},
                   {"lr", 0.0},
                   {"correction1", 1.0},
                   {"correction2", 2.0},
                   {"seed", 3.0},
                   {"step", 4.0},
                   {"stream", 20.0},
                   {"stochastic", stochastic}});
  c.scalars = {1e-3, 1 - std::pow(0.9, 3), 1 - std::pow(0.999, 3), 1234567, 3};
  c.inputs = {tensor(param, {n}),
              tensor(grad, {n}),
              given(DType::u8, {n}, codes(37)),
              given(DType::u8, {n}, codes(91)),
              tensor(DType::f32, {blocks}, 0.01, 0.04),
              tensor(DType::f32, {blocks}, 0.001, 0.004)};
  c.outputs = {over(0, param, {n}), over(2, DType::u8, {n}), over(3, DType::u8, {n}), over(4, DType::f32, {blocks}), over(5, DType::f32, {blocks})};
  c.exact = true;
  return c;
}

}  // namespace

DEVICE_CASES(adamw8, {
  for (const DType param : {DType::bf16, DType::f32})
    for (const DType grad : {DType::bf16, DType::f32})
      for (const int64_t n : {1, 7, 255, 256, 257, 1023, 1025, 8192, 9001}) {
        DeviceCase c = adamw8("", param, grad, n, param == DType::bf16);
        cases.push_back(c);
        c.name += ", fresh";
        for (const size_t i : {2, 3, 4, 5}) c.inputs[i].values = std::vector<double>(size_t(c.inputs[i].shape[0]), 0.0);
        c.inputs[1].values = decades(n);
        cases.push_back(c);
        c.name += ", second moments without a reciprocal";
        for (double& g : c.inputs[1].values) g = 1e-19 * (g < 0 ? -1 : 1);
        cases.push_back(c);
        for (const double scale : {0.25, double(NAN)}) {
          DeviceCase scaled = adamw8(", gradient times " + std::to_string(scale), param, grad, n, param == DType::bf16);
          scaled.inputs.push_back(given(DType::f64, {1}, {scale}));
          cases.push_back(scaled);
        }
      }
  DeviceCase large = adamw8("", DType::bf16, DType::bf16, 100'000'000, true);
  large.large = true;
  cases.push_back(large);
})

}  // namespace test
}  // namespace attune
