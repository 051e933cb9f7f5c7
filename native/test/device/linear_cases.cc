// linear and its gradients: odd and unit sizes take the element-wise tiles, multiples of eight the wide ones; few rows, many rows and a long k each take
// another plan (see gemm_plan.cu).
#include "product_case.h"

namespace attune {
namespace test {

namespace {

struct Size {
  int64_t rows, n, k;
};
std::string text(const Size& s) { return std::to_string(s.rows) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k); }

void add(std::vector<DeviceCase>& cases, DeviceCase c, double depth, bool large = false) {
  c.depth = depth, c.large = large;
  cases.push_back(std::move(c));
}

void add_all(std::vector<DeviceCase>& cases, const Types& t, const Size& s, bool large) {
  const std::string name = text(t) + text(s);
  const Operand x = tensor(t.in, {s.rows, s.k}), weight = tensor(t.in, {s.n, s.k}), dy = tensor(t.in, {s.rows, s.n});
  add(cases, {name, "linear", {}, {x, weight, tensor(t.out, {s.n})}, {tensor(t.out, {s.rows, s.n})}}, sum_depth(t.in, double(s.k)), large);
  add(cases, {name, "linear_dx", {}, {dy, weight}, {tensor(t.out, {s.rows, s.k})}}, sum_depth(t.in, double(s.n)), large);
  add(cases, {name, "linear_dw", {}, {dy, x}, {tensor(t.out, {s.n, s.k})}}, sum_depth(t.in, double(s.rows)), large);
}

}  // namespace

DEVICE_CASES(linear, {
  for (const Types& t : kProductTypes) {
    for (const Size& s : {Size{1, 1, 1}, Size{1, 8, 8}, Size{65, 63, 40}, Size{77, 131, 72}, Size{130, 40, 4}, Size{77, 4, 40}, Size{33, 44, 28},
                          Size{70, 66, 41}, Size{16, 72, 320}, Size{3, 200, 1024}, Size{130, 64, 32}})
      add_all(cases, t, s, false);
    for (const Size& s : {Size{300, 328, 64}, Size{512, 320, 96}, Size{600, 130, 128}, Size{64, 64, 1024}, Size{512, 64, 320}, Size{64, 512, 320}})
      add_all(cases, t, s, false);
    // SD 1.5 at 8 samples: attention projections, feed-forward, cross attention keys, time embedding.
    for (const Size& s : {Size{32768, 320, 320}, Size{8192, 5120, 640}, Size{2048, 1280, 5120}, Size{616, 640, 768}, Size{16, 1280, 1280}})
      add_all(cases, t, s, true);
  }
  add(cases, {"leading axes, no bias", "linear", {}, {tensor(DType::bf16, {2, 3, 5, 24}), tensor(DType::bf16, {16, 24})}, {tensor(DType::bf16, {2, 3, 5, 16})}},
      24);
})

}  // namespace test
}  // namespace attune
