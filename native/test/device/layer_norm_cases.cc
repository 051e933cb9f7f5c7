#include "device_case.h"

namespace attune {
namespace test {

namespace {

// Few and many lanes a row, rows that are no whole vectors, rows wider than a block, more rows than blocks take at once.
const std::vector<std::pair<const char*, Shape>> kShapes = {{"one row of one", {1, 1}},
                                                            {"one row", {1, 1, 320}},
                                                            {"odd", {3, 5, 77}},
                                                            {"320 channels", {2, 77, 320}},
                                                            {"640 channels", {33, 640}},
                                                            {"1280 channels", {2, 13, 1280}},
                                                            {"768 channels", {5, 768}},
                                                            {"more rows than blocks", {700, 16}},
                                                            {"wider than a block", {5, 8200}},
                                                            {"wider than a block, odd, more rows than blocks", {405, 521}}};

DeviceCase forward(DType t, DType parameter, const char* name, const Shape& x) {
  const Shape rows(x.begin(), x.end() - 1), c = {x.back()};
  DeviceCase d{std::string(dtype_name(t)) + (parameter == t ? ", " : ", f32 parameters, ") + name,
               "layer_norm",
               attrs({{"eps", 1e-5}}),
               {tensor(t, x, 2, 0.5), tensor(parameter, c, 0.3, 1), tensor(parameter, c)},
               {tensor(t, x), tensor(DType::f32, rows), tensor(DType::f32, rows)}};
  d.depth = double(x.back());
  return d;
}

DeviceCase backward(DType t, DType parameter, const char* name, const Shape& x) {
  const Shape rows(x.begin(), x.end() - 1), c = {x.back()};
  DeviceCase d = forward(t, parameter, name, x);
  d.op = "layer_norm_vjp", d.before = {{"layer_norm", {1, 2, 2}, {x, rows, rows}}};  // beta does not matter to the statistics
  d.inputs = {tensor(t, x, 1, 0.25), tensor(t, x, 2, 0.5), tensor(parameter, c, 0.3, 1), from_before(DType::f32, rows, 1), from_before(DType::f32, rows, 2)};
  d.outputs = {tensor(t, x), tensor(parameter, c), tensor(parameter, c)};
  d.depth = 1;
  for (const int64_t dim : x) d.depth *= double(dim);
  return d;
}

}  // namespace

DEVICE_CASES(layer_norm, {
  for (const DType t : {DType::bf16, DType::f32})
    for (const auto& [name, shape] : kShapes) {
      cases.push_back(forward(t, t, name, shape));
      cases.push_back(forward(t, DType::f32, name, shape));
      if (shape.back() == 1) continue;  // dx is 0 there: what is left is the rounding of what cancels
      cases.push_back(backward(t, t, name, shape));
      cases.push_back(backward(t, DType::f32, name, shape));
    }
  for (const DType t : {DType::bf16, DType::f32})
    for (const Shape& shape : {Shape{9, 640}, Shape{5, 8200}, Shape{9, 77}}) {
      const std::string name = "in place, " + std::to_string(shape.back());
      cases.push_back(forward(t, t, name.c_str(), shape));
      cases.back().outputs[0] = over(0, t, shape);
      cases.push_back(backward(t, t, name.c_str(), shape));
      cases.back().outputs[0] = over(0, t, shape);
    }
  // A mean of 300 deviations: its own rounding is 300 units of y. E[x^2] - mean^2 would be off by 300^2.
  cases.push_back(forward(DType::f32, DType::f32, "far from zero", {5, 640}));
  cases.back().inputs[0] = tensor(DType::f32, {5, 640}, 1, 300), cases.back().tolerance = 300, cases.back().depth = 1;
  for (const Shape& shape : {Shape{8, 4096, 320}, Shape{8, 1024, 640}, Shape{8, 256, 1280}, Shape{8, 4096, 640}}) {
    const std::string name = std::to_string(shape[1]) + " tokens of " + std::to_string(shape[2]) + ", 8 samples";
    cases.push_back(forward(DType::bf16, DType::f32, name.c_str(), shape));
    cases.back().large = true;
    cases.push_back(backward(DType::bf16, DType::f32, name.c_str(), shape));
    cases.back().large = true;
  }
})

}  // namespace test
}  // namespace attune
