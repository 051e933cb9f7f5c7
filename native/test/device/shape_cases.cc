#include "device_case.h"

namespace attune {
namespace test {

DEVICE_CASES(shape, {
  const auto exact = [&](DType t, const std::string& name, const char* op, Attrs a, std::vector<Operand> inputs, Shape y) {
    cases.push_back({std::string(dtype_name(t)) + " " + name, op, std::move(a), std::move(inputs), {tensor(t, std::move(y))}});
    cases.back().exact = true;
  };
  for (const DType t : {DType::bf16, DType::f32, DType::f64, DType::i32}) {
    const auto numbers = [&](Shape shape) { return tensor(t, std::move(shape), 100); };  // i32: rounded towards zero
    exact(t, "odd", "reshape", {}, {numbers({3, 5, 7})}, {15, 7});
    exact(t, "odd", "stop_gradient", {}, {numbers({3, 5, 7})}, {3, 5, 7});

    const auto slice = [&](const char* name, Shape x, int axis, int64_t start, int64_t length) {
      Shape y = x;
      y[size_t(axis)] = length;
      exact(t, name, "slice", attrs({{"axis", double(axis)}, {"start", double(start)}}), {numbers(x)}, y);
      exact(t, name, "pad", attrs({{"axis", double(axis)}, {"before", double(start)}}), {numbers(y)}, x);  // its gradient
    };
    slice("last axis", {5, 9, 64}, 2, 16, 32);
    slice("last axis, odd", {5, 9, 7}, 2, 3, 3);
    slice("last axis, odd start", {5, 64}, 1, 1, 32);
    slice("last axis, whole vectors of odd rows", {5, 41}, 1, 8, 32);
    slice("middle axis", {5, 9, 16}, 1, 2, 4);
    slice("first axis", {5, 9, 3}, 0, 1, 3);
    slice("to the end", {5, 9, 8}, 1, 4, 5);
    slice("from the start", {5, 9, 8}, 1, 0, 5);

    const auto concat = [&](const char* name, std::vector<Shape> xs, int axis) {
      std::vector<Operand> inputs;
      Shape y = xs[0];
      y[size_t(axis)] = 0;
      for (const Shape& x : xs) inputs.push_back(numbers(x)), y[size_t(axis)] += x[size_t(axis)];
      exact(t, name, "concat", attrs({{"axis", double(axis)}}), inputs, y);
    };
    concat("channels", {{2, 5, 5, 64}, {2, 5, 5, 32}}, 3);
    concat("channels, odd", {{2, 5, 5, 3}, {2, 5, 5, 1}, {2, 5, 5, 4}}, 3);
    concat("batch", {{2, 5, 3}, {1, 5, 3}}, 0);
    concat("one number each", {{1}, {1}, {1}}, 0);

    const auto broadcast = [&](const char* name, Shape x, Shape y) { exact(t, name, "broadcast", {}, {numbers(std::move(x))}, std::move(y)); };
    broadcast("one number", {1, 1, 1}, {3, 5, 64});
    broadcast("one number, odd", {1, 1}, {3, 7});
    broadcast("a number a sample", {3, 1, 1}, {3, 5, 64});
    broadcast("a vector a sample", {3, 1, 1, 16}, {3, 4, 5, 16});
    broadcast("a vector a sample, odd", {3, 1, 5}, {3, 4, 5});
    broadcast("inner axis", {4, 6, 1}, {4, 6, 32});
    broadcast("alternating", {1, 3, 1, 5, 1}, {2, 3, 4, 5, 2});
    broadcast("nothing repeats", {1, 3}, {1, 3});

    const auto transpose = [&](const char* name, Shape x, std::vector<double> permutation) {
      Shape y;
      for (const double axis : permutation) y.push_back(x[size_t(axis)]);
      exact(t, name, "transpose", attrs({{"permutation", permutation}}), {numbers(std::move(x))}, std::move(y));
    };
    transpose("matrix", {64, 96}, {1, 0});
    transpose("matrix, odd", {45, 67}, {1, 0});
    transpose("images to channels last", {2, 3, 17, 9}, {0, 2, 3, 1});
    transpose("images to channels first", {2, 17, 9, 3}, {0, 3, 1, 2});
    transpose("maps to channels first", {2, 7, 9, 40}, {0, 3, 1, 2});
    transpose("heads", {2, 5, 3, 16}, {0, 2, 1, 3});
    transpose("heads, odd", {2, 5, 3, 7}, {0, 2, 1, 3});
    transpose("batched, reversed", {3, 11, 5, 13}, {3, 2, 1, 0});
    transpose("six axes", {2, 3, 9, 2, 10, 2}, {4, 0, 3, 1, 5, 2});
    transpose("axes of length 1", {1, 33, 1, 40}, {3, 2, 1, 0});
    transpose("one number", {1, 1}, {1, 0});
  }
  const std::vector<double> bytes = {1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255, 0};
  exact(DType::u8, "bytes", "transpose", attrs({{"permutation", std::vector<double>{1, 0}}}), {given(DType::u8, {3, 4}, bytes)}, {4, 3});
  exact(DType::u8, "bytes", "broadcast", {}, {given(DType::u8, {12, 1}, bytes)}, {12, 32});
  exact(DType::u8, "bytes", "slice", attrs({{"axis", 1.0}, {"start", 1.0}}), {given(DType::u8, {3, 4}, bytes)}, {3, 2});
})

}  // namespace test
}  // namespace attune
