#include "device_case.h"

namespace attune {
namespace test {

DEVICE_CASES(resample, {
  for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    const auto upsample = [&](const char* name, Shape x, Shape y) {
      cases.push_back({type + name, "upsample_nearest", {}, {tensor(t, x)}, {tensor(t, y)}});
      cases.back().exact = true;
      cases.push_back({type + name, "upsample_nearest_vjp", {}, {tensor(t, y)}, {tensor(t, x)}});
      cases.back().depth = double(y[1] * y[2]) / double(x[1] * x[2]);
    };
    upsample("twice", {2, 5, 7, 16}, {2, 10, 14, 16});
    upsample("twice, odd channels", {2, 5, 7, 5}, {2, 10, 14, 5});
    upsample("by 8 / 3 and 7 / 5", {1, 3, 5, 8}, {1, 8, 7, 8});
    upsample("from one pixel", {3, 1, 1, 3}, {3, 4, 5, 3});
    upsample("same size", {1, 3, 2, 8}, {1, 3, 2, 8});

    const auto pool = [&](const char* name, Shape x, int64_t kernel, int64_t stride) {
      const Shape y = {x[0], (x[1] - kernel) / stride + 1, (x[2] - kernel) / stride + 1, x[3]};
      const Attrs a = attrs({{"kernel", double(kernel)}, {"stride", double(stride)}});
      cases.push_back({type + name, "avg_pool2d", a, {tensor(t, x, 1, 0.5)}, {tensor(t, y)}});
      cases.back().depth = double(kernel * kernel);
      cases.push_back({type + name, "avg_pool2d_vjp", a, {tensor(t, y, 1, 0.5)}, {tensor(t, x)}});
      cases.back().depth = double(kernel * kernel);
    };
    pool("2x2", {2, 6, 8, 16}, 2, 2);
    pool("2x2, rest is dropped, odd channels", {2, 7, 5, 3}, 2, 2);
    pool("overlapping", {1, 7, 8, 8}, 3, 2);
    pool("with gaps", {1, 9, 10, 8}, 2, 3);
    pool("whole map", {3, 4, 4, 1}, 4, 1);
    cases.push_back({type + "32^2 x 640 twice, 8 samples", "upsample_nearest", {}, {tensor(t, {8, 32, 32, 640})}, {tensor(t, {8, 64, 64, 640})}});
    cases.back().exact = cases.back().large = true;
  }
})

}  // namespace test
}  // namespace attune
