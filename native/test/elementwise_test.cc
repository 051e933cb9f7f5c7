// Elementwise ops against long double formulas, in units of rounding: the vectorised float functions promise 2 units in the last place, products of them a
// few more. Broadcasting against index arithmetic, casts against exact rounding, gradients against differences.
#include "call.h"

using namespace attune;
using namespace attune::test;
using real = long double;

real sigmoid(real x) { return 1 / (1 + std::exp(-x)); }
real normal_cdf(real x) { return std::erfc(-x / std::sqrt(real(2))) / 2; }
real gelu_tanh(real x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846264338327950288L) * (x + 0.044715L * x * x * x))); }

struct Unary {
  const char* op;
  real (*exact)(real);
  double low, high;
  double ulps;      // relative to the exact value ...
  double absolute;  // ... or to x times this much: where a factor goes to zero, its relative error means nothing
};

// exp(-x) amplifies the rounding of its argument by |x|, which is where the larger bounds of silu and quick_gelu come from.
const Unary kUnary[] = {
    {"neg", [](real x) { return -x; }, -9, 9, 0, 0},
    {"exp", [](real x) { return std::exp(x); }, -87, 88, 3, 0},
    {"log", [](real x) { return std::log(x); }, 1e-30, 1e30, 4, 0},
    {"log", [](real x) { return std::log(x); }, 0.5, 2, 4, 0},
    {"log1p", [](real x) { return std::log1p(x); }, -0.9, 9, 6, 0},
    {"log1p", [](real x) { return std::log1p(x); }, -1e-4, 1e-4, 6, 0},
    {"sqrt", [](real x) { return std::sqrt(x); }, 0, 1e9, 1, 0},
    {"rsqrt", [](real x) { return 1 / std::sqrt(x); }, 1e-9, 1e9, 3, 0},
    {"square", [](real x) { return x * x; }, -9, 9, 1, 0},
    {"abs", [](real x) { return std::fabs(x); }, -9, 9, 0, 0},
    {"sigmoid", sigmoid, -80, 80, 5, 0},
    {"softplus", [](real x) { return std::fmax(x, real(0)) + std::log1p(std::exp(-std::fabs(x))); }, -60, 60, 8, 0},
    {"tanh", [](real x) { return std::tanh(x); }, -12, 12, 5, 0},
    {"relu", [](real x) { return x > 0 ? x : 0; }, -9, 9, 0, 0},
    {"silu", [](real x) { return x * sigmoid(x); }, -60, 60, 6, 0},
    {"gelu", [](real x) { return x * normal_cdf(x); }, -12, 12, 4, 1},
    {"gelu_tanh", gelu_tanh, -12, 12, 12, 1},
    {"quick_gelu", [](real x) { return x * sigmoid(1.702L * x); }, -12, 12, 30, 0},
    {"sin", [](real x) { return std::sin(x); }, -1000, 1000, 2, 0},
    {"cos", [](real x) { return std::cos(x); }, -1000, 1000, 2, 0},
    {"reciprocal", [](real x) { return 1 / x; }, 0.01, 100, 1, 0},
};

void unary_accuracy() {
  for (const Unary& u : kUnary)
    for (const auto& [isa, fn] : kernels_of(u.op))
      for (const DType t : {DType::f32, DType::f64}) {
        const int64_t n = 20011;
        Tensor x(t, {n}), y(t, {n});
        for (int64_t i = 0; i < n; i++) x.set(i, u.low + (u.high - u.low) * double(i) / double(n - 1));
        const std::string what = std::string(u.op) + " " + isa + " " + dtype_name(t);
        run_on_threads(what, fn, {}, {&x}, {&y});
        std::vector<double> expected, bound;
        for (int64_t i = 0; i < n; i++) {
          const real exact = u.exact(real(x.get(i)));
          expected.push_back(double(exact)), bound.push_back(u.ulps * roundoff(t) * 2 * (std::fabs(double(exact)) + u.absolute * std::fabs(x.get(i))));
        }
        expect_within(what, y.values(), expected, bound);
        run(fn, {}, {&x}, {&x});
        expect(x.same_bits(y), what + ": another result in place");
      }
}

void special_values() {
  const double inf = HUGE_VAL, nan = std::nan("");
  const struct {
    const char* op;
    double x, y;
  } cases[] = {
      {"exp", -inf, 0},
      {"exp", inf, inf},
      {"exp", 200, inf},
      {"exp", -200, 0},
      {"exp", nan, nan},
      {"exp", -100, std::exp(-100.0)},
      {"log", 0, -inf},
      {"log", -1, nan},
      {"log", inf, inf},
      {"log", nan, nan},
      {"log", 1e-42, std::log(double(1e-42f))},
      {"log1p", 0, 0},
      {"log1p", -1, -inf},
      {"log1p", inf, inf},
      {"log1p", -2, nan},
      {"sigmoid", inf, 1},
      {"sigmoid", -inf, 0},
      {"sigmoid", nan, nan},
      {"softplus", 1000, 1000},
      {"softplus", -1000, 0},
      {"softplus", nan, nan},
      {"tanh", inf, 1},
      {"tanh", -inf, -1},
      {"tanh", nan, nan},
      {"relu", nan, nan},
      {"gelu", 100, 100},
      {"gelu", -100, 0},
      {"gelu", nan, nan},
      {"silu", 1000, 1000},
      {"silu", -1000, 0},
      {"gelu_tanh", 100, 100},
      {"gelu_tanh", -100, 0},
      {"abs", -inf, inf},
      {"rsqrt", 0, inf},
  };
  for (const auto& c : cases)
    for (const auto& [isa, fn] : kernels_of(c.op)) {
      Tensor x(DType::f32, {33}, c.x), y(DType::f32, {33});
      run(fn, {}, {&x}, {&y});
      for (int64_t i = 0; i < 33; i++) {
        const double v = y.get(i);
        const bool ok = std::isnan(c.y) ? std::isnan(v) : std::isinf(c.y) || c.y == 0 ? v == c.y : std::fabs(v - c.y) <= 1e-5 * std::fabs(c.y) + 1e-44;
        if (!ok) return expect(false, std::string(c.op) + " " + isa + " of " + std::to_string(c.x) + " is " + std::to_string(v));
      }
    }
}

/// dy * f'(x) against central differences of f in long double.
void activation_gradients() {
  const struct {
    const char* op;
    real (*f)(real);
  } cases[] = {{"silu_vjp", [](real x) { return x * sigmoid(x); }},
               {"gelu_vjp", [](real x) { return x * normal_cdf(x); }},
               {"gelu_tanh_vjp", gelu_tanh},
               {"quick_gelu_vjp", [](real x) { return x * sigmoid(1.702L * x); }}};
  for (const auto& c : cases)
    for (const auto& [isa, fn] : kernels_of(c.op))
      for (const DType t : {DType::f32, DType::f64}) {
        const int64_t n = 4001;
        Tensor x(t, {n}), dy(t, {n}, gaussian(n, 3)), dx(t, {n});
        for (int64_t i = 0; i < n; i++) x.set(i, -8 + 16 * double(i) / double(n));
        run_on_threads(c.op, fn, {}, {&dy, &x}, {&dx});
        std::vector<double> expected, bound;
        for (int64_t i = 0; i < n; i++) {
          const real h = 1e-5L, at = x.get(i), slope = (c.f(at + h) - c.f(at - h)) / (2 * h);
          expected.push_back(dy.get(i) * double(slope));
          bound.push_back(std::fabs(dy.get(i)) * (1e-10 + 40 * roundoff(t)));  // h^2 f''' / 6, and rounding
        }
        expect_within(std::string(c.op) + " " + isa + " " + dtype_name(t), dx.values(), expected, bound);
      }
}

using Shape = std::vector<int64_t>;

int64_t broadcast_index(int64_t i, const Shape& out, const Shape& in) {
  int64_t index = 0, stride = 1;
  for (size_t k = 0; k < out.size(); k++) {
    const int64_t coordinate = i % out[out.size() - 1 - k];
    i /= out[out.size() - 1 - k];
    if (k < in.size()) index += (in[in.size() - 1 - k] == 1 ? 0 : coordinate) * stride, stride *= in[in.size() - 1 - k];
  }
  return index;
}

void broadcasting() {
  const struct {
    Shape a, b, out;
  } cases[] = {
      {{7}, {7}, {7}},
      {{40000}, {1}, {40000}},
      {{1}, {3, 50}, {3, 50}},
      {{2, 9, 9, 320}, {320}, {2, 9, 9, 320}},
      {{2, 5, 7, 64}, {2, 1, 1, 64}, {2, 5, 7, 64}},
      {{3, 4, 5, 4}, {3, 4, 5, 1}, {3, 4, 5, 4}},
      {{3, 4, 5, 4}, {3, 1, 1, 1}, {3, 4, 5, 4}},
      {{3, 1, 2, 1, 5}, {4, 1, 3, 1}, {3, 4, 2, 3, 5}},
      {{6, 1}, {1, 7}, {6, 7}},
      {{1, 1, 40, 1}, {2, 3, 1, 50}, {2, 3, 40, 50}},
      {{}, {4}, {4}},
  };
  const struct {
    const char* op;
    double (*f)(double, double);
  } ops[] = {{"add", [](double a, double b) { return a + b; }},
             {"sub", [](double a, double b) { return a - b; }},
             {"mul", [](double a, double b) { return a * b; }},
             {"div", [](double a, double b) { return a / b; }},
             {"maximum", [](double a, double b) { return a > b ? a : b; }},
             {"minimum", [](double a, double b) { return a < b ? a : b; }},
             {"greater", [](double a, double b) { return a > b ? 1.0 : 0.0; }}};
  for (const auto& c : cases)
    for (const auto& op : ops)
      for (const auto& [isa, fn] : kernels_of(op.op))
        for (const DType t : {DType::f32, DType::f64}) {
          Tensor y(t, c.out), a(t, c.a, 0.0), b(t, c.b, 0.0);
          const auto u = gaussian(a.numel(), 1), v = gaussian(b.numel(), 2);
          for (int64_t i = 0; i < a.numel(); i++) a.set(i, u[size_t(i)]);
          for (int64_t i = 0; i < b.numel(); i++) b.set(i, v[size_t(i)] + 4);
          const std::string what = std::string(op.op) + " " + isa + " " + dtype_name(t) + " into rank " + std::to_string(c.out.size());
          run_on_threads(what, fn, {}, {&a, &b}, {&y});
          Tensor expected(t, c.out);
          for (int64_t i = 0; i < y.numel(); i++) expected.set(i, op.f(a.get(broadcast_index(i, c.out, c.a)), b.get(broadcast_index(i, c.out, c.b))));
          expect(y.same_bits(expected), what + ": differs from index arithmetic");
        }
}

void select_affine_clamp() {
  const Shape out = {3, 40, 6};
  for (const auto& [isa, fn] : kernels_of("select")) {
    Tensor c(DType::f32, {3, 1, 1}, std::vector<double>{0, 1, -2}), a(DType::f32, out, gaussian(720, 1)), b(DType::f32, {6}, gaussian(6, 2)),
        y(DType::f32, out);
    run_on_threads("select " + isa, fn, {}, {&c, &a, &b}, {&y});
    for (int64_t i = 0; i < 720; i++)
      if (y.get(i) != (i / 240 > 0 ? a.get(i) : b.get(i % 6))) return expect(false, "select " + isa + ": element " + std::to_string(i));
  }
  Tensor x(DType::f64, {1000}, gaussian(1000, 5)), y(DType::f64, {1000});
  for (const auto& [isa, fn] : kernels_of("affine")) {
    run(fn, attributes({{"scale", 1.5}, {"shift", -0.25}}), {&x}, {&y});
    for (int64_t i = 0; i < 1000; i++)
      if (std::fabs(y.get(i) - (1.5 * x.get(i) - 0.25)) > 4e-16) return expect(false, "affine " + isa);
  }
  for (const auto& [isa, fn] : kernels_of("clamp")) {
    run(fn, attributes({{"min", -0.5}, {"max", 0.75}}), {&x}, {&y});
    for (int64_t i = 0; i < 1000; i++)
      if (y.get(i) != std::fmin(std::fmax(x.get(i), -0.5), 0.75)) return expect(false, "clamp " + isa);
  }
}

/// A 16-bit float as a number, by its definition.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, e = int(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double m = double(bits & ((1u << mantissa_bits) - 1)) / double(1 << mantissa_bits), sign = bits >> 15 ? -1 : 1;
  if (e == (1 << exponent_bits) - 1) return m == 0 ? sign * HUGE_VAL : std::nan("");
  return e == 0 ? sign * std::ldexp(m, 1 - bias) : sign * std::ldexp(1 + m, e - bias);
}

void casts() {
  for (const auto& [isa, fn] : kernels_of("cast"))
    for (const DType half : {DType::bf16, DType::f16}) {
      const int exponent = half == DType::bf16 ? 8 : 5, mantissa = 15 - exponent;
      const std::string what = std::string("cast ") + isa + " " + dtype_name(half);
      Tensor all(half, {65536});
      for (int64_t i = 0; i < 65536; i++) all.set(i, double(i));
      for (const DType wide : {DType::f32, DType::f64}) {
        Tensor x(wide, {65536}), back(half, {65536});
        run_on_threads(what, fn, {}, {&all}, {&x});
        run_on_threads(what, fn, {}, {&x}, {&back});
        for (uint32_t i = 0; i < 65536; i++) {
          const double exact = value_of(i, exponent, mantissa);
          if (std::isnan(exact) ? !std::isnan(x.get(i)) : x.get(i) != exact) return expect(false, what + ": loads " + std::to_string(i) + " wrongly");
          if (!std::isnan(exact) && back.get(i) != double(i)) return expect(false, what + ": does not return " + std::to_string(i));
        }
        // Between neighbours: the middle goes to the even one, anything else to the nearer; a double just off the middle must not be rounded twice.
        const uint32_t finite = (((1u << exponent) - 1) << mantissa) - 1;
        Tensor y(wide, {3 * int64_t(finite)}), rounded(half, {3 * int64_t(finite)});
        const double off = wide == DType::f32 ? 0x1p-10 : 0x1p-40;
        for (uint32_t i = 0; i < finite; i++) {
          const double a = value_of(i, exponent, mantissa), b = value_of(i + 1, exponent, mantissa), middle = (a + b) / 2;
          y.set(3 * i, middle), y.set(3 * i + 1, middle - off * (b - a)), y.set(3 * i + 2, middle + off * (b - a));
        }
        run(fn, {}, {&y}, {&rounded});
        for (uint32_t i = 1024; i < finite; i++)  // below, f32 itself cannot hold the middle of two bf16 denormals
          if (rounded.get(3 * i) != double(i + (i & 1)) || rounded.get(3 * i + 1) != double(i) || rounded.get(3 * i + 2) != double(i + 1))
            return expect(false, what + " from " + dtype_name(wide) + ": rounds near " + std::to_string(i) + " wrongly");
      }
    }
  for (const auto& [isa, fn] : kernels_of("cast")) {
    Tensor x(DType::f64, {8}, std::vector<double>{0.5, 1.5, -2.5, 2.4999, 3e9, -3e9, 2147483646.5, -7}), y(DType::i32, {8}), f(DType::f32, {8});
    run(fn, {}, {&x}, {&y});
    const double expected[] = {0, 2, -2, 2, 2147483647, -2147483648.0, 2147483646, -7};
    for (int i = 0; i < 8; i++) expect(y.get(i) == expected[i], "cast " + isa + " to i32: element " + std::to_string(i));
    run(fn, {}, {&y}, {&f});
    expect(f.get(1) == 2 && f.get(7) == -7, "cast " + isa + " from i32");
  }
}

int main() {
  unary_accuracy();
  special_values();
  activation_gradients();
  broadcasting();
  select_affine_clamp();
  casts();
  return finish("elementwise");
}
