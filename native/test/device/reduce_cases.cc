#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

DEVICE_CASES(reduce, {
  struct Axes {
    const char* name;
    Shape x;
    std::vector<double> axes;
  };
  const std::vector<Axes> shapes = {
      {"one number", {1, 1}, {0, 1}},
      {"everything", {3, 5, 7, 11}, {0, 1, 2, 3}},
      {"everything, two levels", {3, 129, 160}, {0, 1, 2}},
      {"everything, odd, two levels", {7, 4999}, {0, 1}},
      {"last axis", {37, 24}, {1}},
      {"last axis, odd", {37, 13}, {1}},
      {"last axis, wide", {5, 4104}, {1}},
      {"last axis, wider than a chunk", {3, 33000}, {1}},
      {"a sample", {4, 9, 10, 16}, {1, 2, 3}},
      {"first axis", {50, 40}, {0}},
      {"first axis, odd", {333, 7}, {0}},
      {"first axis, many rows", {9000, 8}, {0}},
      {"first axis, one column", {5000, 1, 1}, {0}},
      {"first of two", {2, 3000}, {0}},
      {"middle axis", {3, 41, 48}, {1}},
      {"middle axis, odd", {6, 41, 5}, {1}},
      {"middle axis, short, many outputs", {600, 2, 8}, {1}},
      {"map of a sample", {2, 12, 10, 40}, {1, 2}},
      {"alternating, last kept", {3, 4, 5, 6, 8}, {0, 2}},
      {"alternating, last reduced", {3, 4, 5, 6, 8}, {0, 2, 4}},
      {"alternating, odd", {3, 2, 3, 2, 3, 2}, {1, 3, 5}},
      {"alternating, odd, last kept", {3, 2, 3, 2, 3, 7}, {0, 2, 4}},
  };
  for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    for (const Axes& a : shapes) {
      Shape y = a.x;
      double depth = 1;
      for (const double axis : a.axes) depth *= double(y[size_t(axis)]), y[size_t(axis)] = 1;
      cases.push_back({type + a.name, "sum", attrs({{"axes", a.axes}}), {tensor(t, a.x, 1, 0.5)}, {tensor(t, y)}});
      cases.back().depth = depth;
      cases.push_back(
          {type + a.name, "max", attrs({{"axes", a.axes}}), {tensor(t, a.x, 1, -5)}, {tensor(t, y)}});  // below zero: what is not there must not win
      cases.back().exact = true;
    }
    cases.push_back({type + "NaN stays",
                     "max",
                     attrs({{"axes", std::vector<double>{1}}}),
                     {given(t, {2, 3}, {1, NAN, 2, -INFINITY, -INFINITY, -INFINITY})},
                     {tensor(t, {2, 1})}});
    cases.back().exact = true;
    for (const Shape& x : {Shape{1, 1}, Shape{2, 77, 40}, Shape{130, 13}, Shape{3, 3000, 16}, Shape{5, 4, 96, 328}})
      for (const DType to : {t, DType::f32}) {
        if (t == DType::f64 && to != t) continue;
        cases.push_back({type + "to " + dtype_name(to) + ", rows of " + std::to_string(x.back()) + " x " + std::to_string(x.size()),
                         "sum_rows",
                         {},
                         {tensor(t, x, 1, 0.5)},
                         {tensor(to, {x.back()})}});
        for (size_t i = 0; i + 1 < x.size(); i++) cases.back().depth *= double(x[i]);
        if (t == to && t == DType::f32) break;
      }
    for (const int64_t n : {1, 77, 70001, 300000}) {
      cases.push_back({type + std::to_string(n), "sum_squares", {}, {tensor(t, {n})}, {tensor(DType::f64, {1})}});
      cases.back().depth = double(n);
    }
    cases.push_back({type + "bias of 8 x 64^2 x 320", "sum_rows", {}, {tensor(t, {8, 4096, 320})}, {tensor(t == DType::bf16 ? DType::f32 : t, {320})}});
    cases.back().large = true, cases.back().depth = 8 * 4096;
    cases.push_back({type + "squares of 16 M", "sum_squares", {}, {tensor(t, {16, 1 << 20})}, {tensor(DType::f64, {1})}});
    cases.back().large = true, cases.back().depth = 16 << 20;
  }
})

}  // namespace test
}  // namespace attune
