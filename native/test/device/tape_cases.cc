#include "device_case.h"

namespace attune {
namespace test {

namespace {

// In the order of lib/graph/tape-opcodes.ts.
enum Opcode {
  constant,
  add,
  sub,
  mul,
  div,
  maximum,
  minimum,
  greater,
  silu_vjp,
  gelu_vjp,
  gelu_tanh_vjp,
  quick_gelu_vjp,
  neg,
  exp,
  log,
  log1p,
  sqrt,
  rsqrt,
  square,
  abs,
  sigmoid,
  softplus,
  tanh,
  relu,
  silu,
  gelu,
  gelu_tanh,
  quick_gelu,
  sin,
  cos,
  reciprocal,
  select,
  affine,
  clamp
};

struct Code {
  std::vector<double> numbers, constants;
  Code& op(Opcode opcode, int dst, int a = 0, int b = 0, int c = 0) {
    for (const double n : {double(opcode), double(dst), double(a), double(b), double(c)}) numbers.push_back(n);
    return *this;
  }
};

DeviceCase tape(const std::string& name, const Code& code, std::vector<double> results, std::vector<Operand> inputs, std::vector<Operand> outputs) {
  return {name, "tape", attrs({{"code", code.numbers}, {"constants", code.constants}, {"outputs", std::move(results)}}), std::move(inputs), std::move(outputs)};
}

}  // namespace

DEVICE_CASES(tape, {
  for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    // Every opcode, its operands positive where it needs that.
    for (int opcode = add; opcode <= reciprocal; opcode++) {
      const bool positive = opcode == log || opcode == sqrt || opcode == rsqrt || opcode == reciprocal || opcode == div || opcode == log1p;
      const Operand x = positive ? tensor(t, {33, 32}, 0.5, 2.5) : tensor(t, {33, 32}, 2);
      cases.push_back(tape(type + "opcode " + std::to_string(opcode), Code().op(Opcode(opcode), 2, 0, 1), {2}, {x, x}, {tensor(t, {33, 32})}));
    }
    // A chain whose operands broadcast in every way: whole vectors, then single elements. Each step rounds to T.
    Code chain;
    chain.constants = {0.5, -1.25, -3, 3};
    chain.op(silu, 3, 0)
        .op(mul, 3, 3, 1)
        .op(add, 4, 3, 2)
        .op(affine, 4, 4, 0, 1)
        .op(clamp, 5, 4, 2, 3)
        .op(constant, 6, 0)
        .op(sub, 6, 5, 6)
        .op(gelu_vjp, 7, 6, 1);
    for (const int64_t c : {16, 7}) {
      cases.push_back(tape(type + "broadcast chain over " + std::to_string(c), chain, {7, 5}, {tensor(t, {3, 50, c}), tensor(t, {c}), tensor(t, {3, 1, 1})},
                           {tensor(t, {3, 50, c}), tensor(t, {3, 50, c})}));
      cases.back().tolerance = 16;  // eight roundings, and where terms cancel their sum against a result of its size
      cases.push_back(tape(type + "in place over " + std::to_string(c), chain, {7}, {tensor(t, {3, 50, c}), tensor(t, {c}), tensor(t, {3, 1, 1})},
                           {over(0, t, {3, 50, c})}));
      cases.back().tolerance = 16;
    }
    // Exact in every type: small integers.
    std::vector<double> integers;
    for (int i = 0; i < 1300; i++) integers.push_back(double(i * 7919 % 23 - 11));
    Code order;
    order.constants = {3, -2};
    order.op(maximum, 2, 0, 1)
        .op(minimum, 3, 0, 1)
        .op(sub, 2, 2, 3)
        .op(affine, 3, 2, 1, 0)
        .op(neg, 3, 3)
        .op(relu, 4, 3)
        .op(abs, 3, 3)
        .op(greater, 5, 4, 3)
        .op(select, 5, 5, 3, 4)
        .op(add, 5, 5, 2);
    cases.push_back(tape(type + "integers", order, {5}, {given(t, {1300}, integers), tensor(t, {1})}, {tensor(t, {1300})}));
    cases.back().inputs[1] = given(t, {1}, {4}), cases.back().exact = true;
    // More code and constants than kernel parameters hold: x alternately plus and minus constants.
    Code more;
    for (int i = 0; i < 150; i++) {
      more.constants.push_back(i % 2 ? -(i - 1) % 9 : i % 9);
      more.op(constant, 2, i).op(add, 1, i ? 1 : 0, 2);
    }
    cases.push_back(tape(type + "long", more, {1}, {given(t, {1300}, integers)}, {tensor(t, {1300})}));
    cases.back().exact = true;
    cases.push_back(tape(type + "no input",
                         [] {
                           Code c;
                           c.constants = {2.5};
                           return c.op(constant, 0, 0);
                         }(),
                         {0}, {}, {tensor(t, {5, 3})}));
    cases.back().exact = true;
    cases.push_back(tape(type + "one element", Code().op(silu, 1, 0), {1}, {tensor(t, {1})}, {tensor(t, {1})}));
  }
  cases.push_back(tape("bf16 more vectors than the grid has threads", Code().op(mul, 2, 0, 1), {2},
                       {tensor(DType::bf16, {9, 8192}), tensor(DType::bf16, {8192})}, {tensor(DType::bf16, {9, 8192})}));
})

}  // namespace test
}  // namespace attune
