// matmul: both orders of both operands, batches, and sizes that do not divide into tiles or chunks.
#include "product_case.h"

namespace attune {
namespace test {

DEVICE_CASES(matmul, {
  struct Size {
    int64_t batch, m, n, k;
  };
  for (const Types& t : kProductTypes)
    for (const bool a : {false, true})
      for (const bool b : {false, true}) {
        const std::string order = text(t) + (a ? "at" : "a") + (b ? " bt " : " b ");
        const auto add = [&](const Size& s, bool large) {
          DeviceCase c{order + std::to_string(s.batch) + "x" + std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k),
                       "matmul",
                       attrs({{"transposeA", a}, {"transposeB", b}}),
                       {a ? tensor(t.in, {s.batch, s.k, s.m}) : tensor(t.in, {s.batch, s.m, s.k}),
                        b ? tensor(t.in, {s.batch, s.n, s.k}) : tensor(t.in, {s.batch, s.k, s.n})},
                       {tensor(t.out, {s.batch, s.m, s.n})}};
          c.depth = sum_depth(t.in, double(s.k)), c.large = large;
          cases.push_back(c);
        };
        for (const Size& s : {Size{1, 1, 1, 1}, Size{3, 17, 9, 5}, Size{2, 72, 40, 88}, Size{5, 64, 65, 63}, Size{2, 36, 76, 44}, Size{2, 16, 136, 512}})
          add(s, false);
        if (b) add({2, 264, 336, 64}, false);
        add({16, 4096, 4096, 40}, true);
      }
})

}  // namespace test
}  // namespace attune
