#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {

namespace {

const std::vector<DType> kFloats = {DType::bf16, DType::f32, DType::f64};

std::string in(DType t, const std::string& what) { return std::string(dtype_name(t)) + " " + what; }

struct Unary {
  const char* op;
  double scale, shift;  // of the input
};

}  // namespace

// Most shapes are a few thousand elements: a block's worth of vectors, and single elements behind them.
DEVICE_CASES(unary, {
  // Inputs reach where results saturate; those of log, sqrt and rsqrt stay positive (the generator's numbers are within 3 deviations).
  const Unary ops[] = {{"neg", 1, 0},        {"exp", 4, 0},    {"log", 1, 3.01}, {"log1p", 0.3, 0},   {"sqrt", 1, 3.01},
                       {"rsqrt", 1, 3.5},    {"square", 2, 0}, {"abs", 1, 0},    {"sigmoid", 9, 0},   {"softplus", 9, 0},
                       {"tanh", 1, 0},       {"relu", 1, 0},   {"silu", 5, 0},   {"gelu", 3, 0},      {"gelu_tanh", 3, 0},
                       {"quick_gelu", 4, 0}, {"sin", 1000, 0}, {"cos", 1000, 0}, {"reciprocal", 1, 4}};
  for (const DType t : kFloats)
    for (const Unary& u : ops) cases.push_back({in(t, "odd"), u.op, {}, {tensor(t, {3, 23, 37}, u.scale, u.shift)}, {tensor(t, {3, 23, 37})}});
  for (const DType t : kFloats) {
    cases.push_back({in(t, "one element"), "silu", {}, {tensor(t, {1})}, {tensor(t, {1})}});
    cases.push_back({in(t, "rank 0"), "exp", {}, {tensor(t, {})}, {tensor(t, {})}});
    cases.push_back({in(t, "in place"), "silu", {}, {tensor(t, {9, 300})}, {over(0, t, {9, 300})}});
    for (const char* op : {"silu_vjp", "gelu_vjp", "gelu_tanh_vjp", "quick_gelu_vjp"}) {
      cases.push_back({in(t, "odd"), op, {}, {tensor(t, {11, 211}), tensor(t, {11, 211}, 4)}, {tensor(t, {11, 211})}});
      cases.push_back({in(t, "in place"), op, {}, {tensor(t, {40, 64}), tensor(t, {40, 64}, 4)}, {over(0, t, {40, 64})}});
    }
    cases.push_back({in(t, "scale and shift"), "affine", attrs({{"scale", -1.5}, {"shift", 0.25}}), {tensor(t, {3, 841})}, {tensor(t, {3, 841})}});
    cases.push_back({in(t, "both ends"), "clamp", attrs({{"min", -0.5}, {"max", 0.75}}), {tensor(t, {3, 841})}, {tensor(t, {3, 841})}});
    cases.back().exact = true;
    // NaN, infinities and zeros go the way they go on the cpu; the results are exact.
    const double inf = INFINITY;
    const std::pair<const char*, std::vector<double>> special[] = {
        {"exp", {NAN, inf, -inf, 0, -0.0}}, {"log", {NAN, inf, 0, -1, 1}},    {"log1p", {NAN, inf, -1, -2, 0}}, {"sqrt", {NAN, inf, 0, -1, 4}},
        {"tanh", {NAN, inf, -inf, 0}},      {"relu", {NAN, inf, -inf, -0.0}}, {"rsqrt", {NAN, inf, 0, -1, 4}},  {"sigmoid", {NAN, inf, -inf, 0, 300}},
        {"softplus", {NAN, inf, -inf}},     {"gelu", {NAN, inf, 0}}};
    for (const auto& [op, values] : special) {
      const int64_t n = int64_t(values.size());
      cases.push_back({in(t, "special numbers"), op, {}, {given(t, {n}, values)}, {tensor(t, {n})}});
      cases.back().exact = true;
    }
    cases.push_back({in(t, "special numbers"), "clamp", attrs({{"min", -2.0}, {"max", 2.0}}), {given(t, {4}, {NAN, inf, -inf, 1})}, {tensor(t, {4})}});
    cases.back().exact = true;
  }
})

DEVICE_CASES(binary, {
  for (const DType t : kFloats) {
    for (const char* op : {"add", "sub", "mul", "maximum", "minimum", "greater", "div"}) {
      DeviceCase c{
          in(t, "same shape, odd"), op, {}, {tensor(t, {5, 17, 29}), tensor(t, {5, 17, 29}, 1, std::string(op) == "div" ? 4 : 0)}, {tensor(t, {5, 17, 29})}};
      c.exact = std::string(op) == "maximum" || std::string(op) == "minimum" || std::string(op) == "greater";
      cases.push_back(c);
    }
    const auto sub = [&](const char* name, Shape a, Shape b, Shape y) {
      cases.push_back({in(t, name), "sub", {}, {tensor(t, a), tensor(t, b)}, {tensor(t, y)}});
    };
    sub("scalar right", {3, 160, 8}, {1}, {3, 160, 8});
    sub("scalar left", {1}, {3, 841}, {3, 841});
    sub("both scalars", {1, 1}, {1}, {1, 1});
    sub("last axis", {2, 3, 50, 16}, {16}, {2, 3, 50, 16});
    sub("last axis, odd", {2, 3, 5, 7}, {7}, {2, 3, 5, 7});
    sub("per sample", {3, 14, 5, 24}, {3, 1, 1, 24}, {3, 14, 5, 24});
    sub("per sample on the left, odd", {3, 1, 1, 5}, {3, 4, 2, 5}, {3, 4, 2, 5});
    sub("one number a sample", {3, 24, 5, 8}, {3, 1, 1, 1}, {3, 24, 5, 8});
    sub("column against row", {90, 1}, {1, 32}, {90, 32});
    sub("alternating axes", {2, 1, 3, 1, 4}, {1, 5, 1, 2, 1}, {2, 5, 3, 2, 4});
    sub("inner axis repeats on the left", {2, 48, 1}, {2, 48, 32}, {2, 48, 32});
    DeviceCase nan{in(t, "NaN on either side"), "maximum", {}, {given(t, {4}, {NAN, 1, 2, 3}), given(t, {4}, {0, NAN, 5, 1})}, {tensor(t, {4})}};
    nan.exact = true;
    cases.push_back(nan);
    cases.push_back({in(t, "in place"), "add", {}, {tensor(t, {3, 50, 16}), tensor(t, {16})}, {over(0, t, {3, 50, 16})}});
    cases.push_back({in(t, "in place, odd"), "mul", {}, {tensor(t, {3, 7}), tensor(t, {3, 1})}, {over(0, t, {3, 7})}});
    cases.push_back(
        {in(t, "all broadcast"), "select", {}, {given(t, {4, 1}, {1, 0, -1, 0}), tensor(t, {3, 1, 200}), tensor(t, {1})}, {tensor(t, {3, 4, 200})}});
    cases.back().exact = true;
    cases.push_back({in(t, "same shape, odd"), "select", {}, {given(t, {5}, {0, 2, -0.0, NAN, 1}), tensor(t, {5}), tensor(t, {5})}, {tensor(t, {5})}});
    cases.back().exact = true;
    DeviceCase large{
        in(t, "residual of 64^2 x 320, 16 samples"), "add", {}, {tensor(t, {16, 64, 64, 320}), tensor(t, {16, 64, 64, 320})}, {tensor(t, {16, 64, 64, 320})}};
    large.large = true;
    cases.push_back(large);
  }
  cases.push_back({"bf16 more vectors than the grid has threads",
                   "add",
                   {},
                   {tensor(DType::bf16, {9, 8192}), tensor(DType::bf16, {8192})},
                   {tensor(DType::bf16, {9, 8192})}});
  for (const char* op : {"add", "sub", "mul"}) {
    cases.push_back({"i32", op, {}, {given(DType::i32, {3, 2}, {1, -2, 3, 2147483647, 5, 6}), given(DType::i32, {2}, {7, -1})}, {tensor(DType::i32, {3, 2})}});
    cases.back().exact = true;
  }
})

DEVICE_CASES(cast, {
  const std::vector<DType> all = {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32};
  for (const DType from : all)
    for (const DType to : all) {
      if (from == to) continue;
      // Numbers of every binary order that f16 has, past both of its ends; ties to even and halves for i32.
      std::vector<double> values = {0, -0.0, 0.5, 1.5, -2.5, 1.0 + 1.0 / 256, 1.0 + 3.0 / 256, 65504, 65519.99, 65520, -65536};
      for (int e = -27; e < 18; e++) values.push_back(std::ldexp(e % 2 ? 1.2345678901 : -1.7654321098, e));
      if (from != DType::i32) values.insert(values.end(), {INFINITY, -INFINITY});
      if (from != DType::i32 && to != DType::i32) values.push_back(NAN);
      while (values.size() < 1042) values.push_back(values[values.size() - 45] * 0.7);
      const int64_t n = int64_t(values.size());
      cases.push_back({std::string(dtype_name(from)) + " to " + dtype_name(to), "cast", {}, {given(from, {n}, values)}, {tensor(to, {n})}});
      cases.back().exact = true;
    }
  cases.push_back({"more than the grid has threads", "cast", {}, {tensor(DType::f32, {3, 12007})}, {tensor(DType::bf16, {3, 12007})}});
  cases.back().exact = true;
})

}  // namespace test
}  // namespace attune
