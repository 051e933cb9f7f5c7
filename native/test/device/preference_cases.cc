// Pair sums and their gradient: one element, odd rows (no 16-byte access fits), several slabs, segments, mixed dtypes, without a reference.
#include "device_case.h"

namespace attune {
namespace test {

namespace {

struct Setting {
  Shape shape;
  int64_t segments;
};
struct Types {
  DType prediction, target, reference;
  bool has_reference;
};

const std::vector<Setting> kSettings = {{{1, 1, 1, 1}, 1}, {{3, 4, 5, 4}, 2}, {{2, 6, 3, 7}, 6}, {{4, 32, 32, 4}, 1}, {{2, 33, 41, 4}, 1}, {{3, 9, 911, 3}, 3}};
const std::vector<Types> kTypes = {{DType::f32, DType::f32, DType::f32, true},    {DType::f32, DType::f32, DType::f32, false},
                                   {DType::bf16, DType::bf16, DType::bf16, true}, {DType::bf16, DType::f32, DType::bf16, true},
                                   {DType::f32, DType::bf16, DType::bf16, true},  {DType::f64, DType::f64, DType::f64, true}};

void add_pair_sums(std::vector<DeviceCase>& cases, const Setting& s, const Types& t, bool large) {
  const Shape rows = {s.shape[0], s.segments};
  std::string name = std::string(dtype_name(t.prediction)) + " " + dtype_name(t.target) + (t.has_reference ? std::string(" ") + dtype_name(t.reference) : "");
  for (const int64_t d : s.shape) name += " " + std::to_string(d);
  const Operand reference = t.has_reference ? tensor(t.reference, s.shape) : absent();
  DeviceCase sums{name, "pair_sums", attrs({{"segments", double(s.segments)}}), {tensor(t.prediction, s.shape), tensor(t.target, s.shape), reference}, {}};
  for (int i = 0; i < 4; i++) sums.outputs.push_back(tensor(DType::f64, rows));
  sums.depth = 64.0 * double(s.shape[1] * s.shape[2] * s.shape[3] /
                             s.segments);  // D and C add n terms of both signs: their sum is of the order of sqrt(n) terms, and an eighth of that now and then
  sums.large = large;
  cases.push_back(sums);
  DeviceCase vjp{name, "pair_sums_vjp", sums.attrs, {}, {tensor(t.prediction, s.shape)}};
  for (int i = 0; i < 4; i++) vjp.inputs.push_back(tensor(DType::f64, rows));
  vjp.inputs.insert(vjp.inputs.end(), sums.inputs.begin(), sums.inputs.end());
  vjp.large = large;
  cases.push_back(vjp);
}

}  // namespace

DEVICE_CASES(preference, {
  for (const Types& t : kTypes)
    for (const Setting& s : kSettings) add_pair_sums(cases, s, t, false);
  add_pair_sums(cases, {{64, 64, 64, 4}, 1}, kTypes[0], true);
  add_pair_sums(cases, {{128, 128, 128, 4}, 1}, kTypes[3], true);
})

}  // namespace test
}  // namespace attune
