// Draws have the bits of the cpu backend: shapes whose samples begin inside a Philox block, large seeds, micro-batches.
#include "device_case.h"

namespace attune {
namespace test {

namespace {

struct Setting {
  const char* name;
  double seed, step, offset, stream;
  Shape shape;
};

const std::vector<Setting> kSettings = {
    {"one element", 0, 0, 0, 0, {1}},
    {"three of a block", 7, 3, 0, 1, {3}},
    {"odd sample, first", 7, 3, 0, 1, {2, 3, 5}},
    {"odd sample, offset 3", 7, 3, 3, 1, {2, 3, 5}},
    {"odd sample, offset 5, 1026 elements", 42, 1, 5, 9, {2, 513}},
    {"whole blocks, offset 2", 1, 999, 2, 4, {4, 8, 8, 4}},
    {"seed of 53 bits, offset of 33 bits", 4503599627382841.0, 2147483653.0, 8589934593.0, 4294967295.0, {2, 7, 9}},
};

}  // namespace

DEVICE_CASES(random, {
  for (const Setting& s : kSettings) {
    DeviceCase c{s.name, "random_normal", {}, {}, {}, {s.offset, s.seed, s.step}};
    c.attrs = attrs({{"seed", 1.0}, {"step", 2.0}, {"offset", 0.0}, {"stream", s.stream}, {"low", -3.0}, {"high", 1000.0}});
    c.exact = true;
    for (const char* op : {"random_normal", "random_uniform"})
      for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
        c.op = op, c.name = std::string(dtype_name(t)) + ", " + s.name, c.outputs = {tensor(t, s.shape)};
        cases.push_back(c);
      }
    c.op = "random_int", c.name = s.name, c.outputs = {tensor(DType::i32, s.shape)};
    cases.push_back(c);
    c.name = std::string("all integers, ") + s.name;
    c.attrs = attrs({{"seed", 1.0}, {"step", 2.0}, {"offset", 0.0}, {"stream", s.stream}, {"low", -2147483648.0}, {"high", 2147483648.0}});
    cases.push_back(c);
  }
  DeviceCase large{"f32, 64 x 128 x 128 x 4", "random_normal", {}, {}, {tensor(DType::f32, {64, 128, 128, 4})}, {3, 5, 7}};
  large.attrs = attrs({{"seed", 0.0}, {"step", 1.0}, {"offset", 2.0}, {"stream", 1.0}});
  large.exact = large.large = true;
  cases.push_back(large);
})

}  // namespace test
}  // namespace attune
