#include "device_case.h"

namespace attune {
namespace test {

DEVICE_CASES(softmax, {
  for (const DType t : {DType::bf16, DType::f32, DType::f64})
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 77}, Shape{2, 5, 300}, Shape{2, 1031}}) {
      const std::string name = std::string(dtype_name(t)) + " x " + std::to_string(shape.back());
      DeviceCase forward{name, "softmax", {}, {tensor(t, shape, 3)}, {tensor(t, shape)}};
      forward.depth = double(shape.back());
      cases.push_back(forward);
      forward.name += ", in place", forward.outputs = {over(0, t, shape)};
      cases.push_back(forward);
      DeviceCase backward{name, "softmax_vjp", {}, {tensor(t, shape), from_before(t, shape, 0), tensor(t, shape, 2)}, {tensor(t, shape)}};
      backward.before = {{"softmax", {2}, {shape}}};
      backward.depth = double(shape.back());
      cases.push_back(backward);
      backward.name += ", in place", backward.outputs = {over(0, t, shape)};
      cases.push_back(backward);
    }
})

}  // namespace test
}  // namespace attune
