// Flat arenas around the borders of packs (8) and blocks (2048), every pair of dtypes, a gradient that is not finite.
#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

namespace {

const std::vector<int64_t> kSizes = {1, 7, 8, 9, 2047, 2048, 2049, 5003};
constexpr int64_t kLarge = 100'000'000;

Operand positive(DType t, int64_t n) { return tensor(t, {n}, 0.01, 0.04); }

/// Update 3 of AdamW; slots: lr, correction1, correction2.
DeviceCase adamw(const std::string& name, DType param, DType grad, int64_t n, bool mixed = false) {
  DeviceCase c{name, mixed ? "adamw_mixed" : "adamw", {}, {}, {}};
  c.attrs = attrs({{"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weightDecay", 0.1}, {"lr", 1.0}, {"correction1", 0.0}, {"correction2", 2.0}});
  c.scalars = {1 - std::pow(0.9, 3), 1e-2, 1 - std::pow(0.999, 3)};
  c.inputs = {tensor(param, {n}), tensor(grad, {n}), tensor(param, {n}, 0.1), positive(param, n)};
  c.outputs = {over(0, param, {n}), over(2, param, {n}), over(3, param, {n})};
  if (mixed) c.inputs.push_back(tensor(DType::bf16, {n})), c.outputs.push_back(over(4, DType::bf16, {n}));
  c.tolerance = 6;  // m and v add two products: each rounds, and so does their sum
  return c;
}

DeviceCase binary(const std::string& name, const std::string& op, DType target, DType x, int64_t n) {
  DeviceCase c{name, op, {}, {tensor(target, {n}), tensor(x, {n})}, {over(0, target, {n})}};
  if (op == "ema") c.attrs = attrs({{"decay", 1.0}}), c.scalars = {7, 0.875};
  return c;
}

std::string pair_name(DType a, DType b, int64_t n) { return std::string(dtype_name(a)) + " from " + dtype_name(b) + " x " + std::to_string(n); }

}  // namespace

DEVICE_CASES(optimizer, {
  const std::pair<DType, DType> master[] = {{DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::f64, DType::f64}};
  for (const auto& [p, g] : master)
    for (const int64_t n : kSizes) {
      cases.push_back(adamw(pair_name(p, g, n), p, g, n));
      if (p == DType::f32) cases.push_back(adamw(pair_name(p, g, n), p, g, n, true));
    }
  for (const double scale : {0.25, double(NAN), double(INFINITY)})
    for (const bool mixed : {false, true}) {
      DeviceCase c = adamw("gradient times " + std::to_string(scale), DType::f32, DType::f32, 2049, mixed);
      c.inputs.push_back(given(DType::f64, {1}, {scale}));
      c.exact = !std::isfinite(scale);  // nothing is written
      cases.push_back(c);
    }
  const std::pair<DType, DType> pairs[] = {
      {DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}, {DType::f64, DType::f64}};
  for (const auto& [t, x] : pairs)
    for (const int64_t n : kSizes) {
      for (const char* op : {"ema", "accumulate", "assign"}) cases.push_back(binary(pair_name(t, x, n), op, t, x, n));
      cases.back().exact = true;  // assign
    }
  for (const DType t : {DType::f32, DType::bf16, DType::f64})
    for (const int64_t n : kSizes)
      cases.push_back({std::string(dtype_name(t)) + " x " + std::to_string(n), "fill", attrs({{"value", -1.7}}), {tensor(t, {n})}, {over(0, t, {n})}});

  std::vector<DeviceCase> large = {adamw("100 M", DType::f32, DType::f32, kLarge), adamw("100 M, bf16 gradient", DType::f32, DType::bf16, kLarge, true)};
  for (const char* op : {"ema", "accumulate", "assign"}) large.push_back(binary("100 M", op, DType::f32, DType::bf16, kLarge));
  for (DeviceCase& c : large) c.large = true, cases.push_back(c);
})

}  // namespace test
}  // namespace attune
