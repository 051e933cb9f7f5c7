// The 8-bit codes against the code books of bitsandbytes (functional.py, create_dynamic_map) and a search for the nearest entry; stochastic rounding against
// its mean; adamw8 against adamw, and on a problem that bf16 parameters rounded to nearest cannot solve.
#include <algorithm>

#include "../core/dynamic_code.h"
#include "call.h"

using namespace attune;
using namespace attune::test;
namespace code = attune::dynamic_code;

std::vector<double> bitsandbytes_map(bool is_signed) {
  const int max_exponent_bits = 7, non_sign_bits = 7;
  std::vector<double> data = {0, 1};
  for (int i = 0; i < max_exponent_bits; i++) {
    const int items = (1 << (i + non_sign_bits - max_exponent_bits + (is_signed ? 0 : 1))) + 1;
    for (int j = 0; j + 1 < items; j++) {
      const double low = 0.1 + 0.9 * j / (items - 1), high = 0.1 + 0.9 * (j + 1) / (items - 1),
                   value = std::pow(10.0, i - (max_exponent_bits - 1)) * (low + high) / 2;
      data.push_back(value);
      if (is_signed) data.push_back(-value);
    }
  }
  std::sort(data.begin(), data.end());
  return data;
}

void code_book(bool is_signed) {
  const std::string what = is_signed ? "signed" : "unsigned";
  const std::vector<double> map = bitsandbytes_map(is_signed);
  expect(map.size() == 256, what + ": the map has 256 entries");
  const auto decode = [&](int c) { return double(is_signed ? code::decode_signed(uint8_t(c)) : code::decode_unsigned(uint8_t(c))); };
  const auto encode = [&](float a) { return int(is_signed ? code::encode_signed(a) : code::encode_unsigned(a)); };
  for (int c = 0; c < 256; c++) {
    expect(std::fabs(decode(c) - map[size_t(c)]) <= 0x1p-22 * std::fabs(map[size_t(c)]),
           what + ": code " + std::to_string(c) + " is " + std::to_string(decode(c)));
    expect(encode(float(decode(c))) == c, what + ": code " + std::to_string(c) + " does not come back");
  }
  const auto check = [&](float a) {
    const double got = decode(encode(a));
    const auto above = std::lower_bound(map.begin(), map.end(), double(a));
    double nearest = above == map.end() ? INFINITY : std::fabs(*above - a);
    if (above != map.begin()) nearest = std::min(nearest, std::fabs(*std::prev(above) - a));
    if (!is_signed && a > 0 && a < map[1]) nearest = map[1] - a;  // what is not 0 is never stored as 0
    if (!(std::fabs(got - a) <= nearest + 1e-6 * std::fabs(a))) expect(false, what + ": " + std::to_string(a) + " became " + std::to_string(got));
    // Nowhere is the error above half a bin of the top decade: 0.45 / 64 or 0.45 / 128 of the block's largest. Below -0.993 there is no code for -1.
    const double most = a < map[0] ? map[0] - a : 0.45 / (is_signed ? 64 : 128);
    if (!(std::fabs(got - a) <= most + 1e-6)) expect(false, what + ": the error at " + std::to_string(a) + " is " + std::to_string(got - a));
  };
  for (size_t c = 0; c + 1 < map.size(); c++) {
    const float middle = float((map[c] + map[c + 1]) / 2);
    for (const float a : {middle, std::nextafter(middle, 2.f), std::nextafter(middle, -2.f), float(map[c]) * 1.001f}) check(a);
  }
  for (const double x : random_values(100000, is_signed ? 1 : 2)) {
    const float a = float(std::pow(10.0, 8 * std::fabs(x) - 8)) * (is_signed && x < 0 ? -1.f : 1.f);
    check(a);
  }
  check(0.f), check(1.f), check(is_signed ? -1.f : 1e-30f);
}

void stochastic_rounding() {
  for (const float x : {1.0f, 1.00390625f, 1.001f, -3.14159265f, 1e-20f, 65504.5f}) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    double sum = 0;
    for (uint32_t r = 0; r < 65536; r++) {
      const uint32_t wide = uint32_t(code::round_stochastic(bits, r)) << 16;
      float y;
      std::memcpy(&y, &wide, 4);
      sum += double(y);
    }
    expect(std::fabs(sum / 65536 - double(x)) <= 1e-9 * std::fabs(double(x)),
           "stochastic rounding of " + std::to_string(x) + " has mean " + std::to_string(sum / 65536));
  }
  expect(code::round_stochastic(0x7f800000u, 0xffffu) == 0x7f80, "infinity stays");
  expect(code::round_stochastic(0xffffffffu, 0xffffu) == 0x7fff, "NaN stays");
}

struct State {
  Tensor p, m, v, m_max, v_max;
  State(DType t, int64_t n, const std::vector<double>& values)
      : p(t, {n}, values),
        m(DType::u8, {n}, 0.0),
        v(DType::u8, {n}, 0.0),
        m_max(DType::f32, {(n + 255) / 256}, 0.0),
        v_max(DType::f32, {(n + 255) / 256}, 0.0) {}
  void step(KernelFn fn, Tensor* grad, int t, double rate, bool stochastic, int threads) {
    const Attrs attrs = attributes({{"beta1", 0.9},
                                    {"beta2", 0.999},
                                    {"eps", 1e-8},
                                    {"weightDecay", 0.0},
                                    {"lr", 0.0},
                                    {"correction1", 1.0},
                                    {"correction2", 2.0},
                                    {"seed", 3.0},
                                    {"step", 4.0},
                                    {"stream", 5.0},
                                    {"stochastic", stochastic}});
    run(fn, attrs, {&p, grad, &m, &v, &m_max, &v_max}, {&p, &m, &v, &m_max, &v_max}, {rate, 1 - std::pow(0.9, t), 1 - std::pow(0.999, t), 11, double(t)},
        threads);
  }
};

/// Against adamw in f64, over steps of random gradients of magnitudes that differ by element: a moment is off by at most half a bin of its block's largest a
/// step, and errors of earlier steps shrink by beta. What the parameter did is off by some per cent, without drift.
void follows_adamw(const std::string& isa, KernelFn fn, KernelFn exact) {
  const int64_t n = 5000;
  const int steps = 100;
  const auto start = gaussian(n, 1);
  State state(DType::f32, n, start), alone(DType::f32, n, start);
  Tensor p(DType::f64, {n}, start), m(DType::f64, {n}, 0.0), v(DType::f64, {n}, 0.0);
  for (int t = 1; t <= steps; t++) {
    auto g = gaussian(n, 100 + uint64_t(t));
    for (int64_t i = 0; i < n; i++) g[size_t(i)] = double(float((g[size_t(i)] + 0.5) * std::exp(double(i % 7) / 3)));
    Tensor narrow(DType::f32, {n}, g), wide(DType::f64, {n}, g);
    state.step(fn, &narrow, t, 1e-3, false, 3), alone.step(fn, &narrow, t, 1e-3, false, 1);
    const Attrs attrs =
        attributes({{"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}, {"weightDecay", 0.0}, {"lr", 0.0}, {"correction1", 1.0}, {"correction2", 2.0}});
    run(exact, attrs, {&p, &wide, &m, &v}, {&p, &m, &v}, {1e-3, 1 - std::pow(0.9, t), 1 - std::pow(0.999, t)});
  }
  expect(state.p.same_bits(alone.p) && state.m.same_bits(alone.m) && state.v.same_bits(alone.v), "adamw8 " + isa + ": differs between 1 and 3 threads");
  double off = 0, moved = 0;
  for (int64_t i = 0; i < n; i++) {
    const double m_most = state.m_max.get(i / 256), m_got = double(code::decode_signed(uint8_t(state.m.get(i)))) * m_most;
    if (!(std::fabs(m_got - m.get(i)) <= 0.45 / 64 / (1 - 0.9) * 1.1 * m_most))
      return expect(false, "adamw8 " + isa + ": first moment of element " + std::to_string(i));
    off += std::pow(state.p.get(i) - p.get(i), 2), moved += std::pow(p.get(i) - start[size_t(i)], 2);
  }
  expect(std::sqrt(off / moved) <= 0.05, "adamw8 " + isa + ": parameters moved off by " + std::to_string(std::sqrt(off / moved)));
}

/// Parameters in bf16 near 1, whose step is 2^-8, on their way to 0.75 by 2e-4 a step: nearest rounding never moves, stochastic rounding arrives.
void arrives(const std::string& isa, KernelFn fn) {
  const int64_t n = 1000;
  double end[2];
  for (const bool stochastic : {false, true}) {
    State state(DType::bf16, n, std::vector<double>(size_t(n), double(0x3f80)));
    const auto value = [&](int64_t i) {
      const uint32_t wide = uint32_t(state.p.get(i)) << 16;
      float y;
      std::memcpy(&y, &wide, 4);
      return double(y);
    };
    double sum = 0;
    for (int t = 1; t <= 3000; t++) {
      Tensor grad(DType::f32, {n}, 0.0);
      for (int64_t i = 0; i < n; i++) grad.set(i, value(i) - 0.75);
      state.step(fn, &grad, t, 2e-4, stochastic, 2);
    }
    for (int64_t i = 0; i < n; i++) sum += value(i);
    end[stochastic] = sum / double(n);
  }
  expect(end[0] == 1, "adamw8 " + isa + ": rounded to nearest, parameters should stay at 1, and are " + std::to_string(end[0]));
  expect(std::fabs(end[1] - 0.75) < 0.01, "adamw8 " + isa + ": rounded stochastically, parameters should reach 0.75, and are " + std::to_string(end[1]));
}

int main() {
  code_book(true), code_book(false);
  stochastic_rounding();
  const auto exact = kernels_of("adamw");
  for (const auto& [isa, fn] : kernels_of("adamw8")) follows_adamw(isa, fn, exact[0].second), arrives(isa, fn);
  return finish("adamw8");
}
