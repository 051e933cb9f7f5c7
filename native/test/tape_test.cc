// A tape gives the bits of its ops run one by one: every opcode alone, then random programs of many instructions with broadcast inputs and several outputs.
// The list of opcodes below is lib/graph/tape-opcodes.ts, in order.
#include "call.h"

using namespace attune;
using namespace attune::test;
using Shape = std::vector<int64_t>;

enum Kind { kConstant, kBinary, kUnary, kSelect, kAffine, kClamp };
const struct {
  const char* op;
  Kind kind;
} kOps[] = {{"constant", kConstant},
            {"add", kBinary},
            {"sub", kBinary},
            {"mul", kBinary},
            {"div", kBinary},
            {"maximum", kBinary},
            {"minimum", kBinary},
            {"greater", kBinary},
            {"silu_vjp", kBinary},
            {"gelu_vjp", kBinary},
            {"gelu_tanh_vjp", kBinary},
            {"quick_gelu_vjp", kBinary},
            {"neg", kUnary},
            {"exp", kUnary},
            {"log", kUnary},
            {"log1p", kUnary},
            {"sqrt", kUnary},
            {"rsqrt", kUnary},
            {"square", kUnary},
            {"abs", kUnary},
            {"sigmoid", kUnary},
            {"softplus", kUnary},
            {"tanh", kUnary},
            {"relu", kUnary},
            {"silu", kUnary},
            {"gelu", kUnary},
            {"gelu_tanh", kUnary},
            {"quick_gelu", kUnary},
            {"sin", kUnary},
            {"cos", kUnary},
            {"reciprocal", kUnary},
            {"select", kSelect},
            {"affine", kAffine},
            {"clamp", kClamp}};
constexpr int kOpcodes = int(sizeof(kOps) / sizeof(kOps[0]));

struct Program {
  std::vector<double> code, constants, outputs;
  Attrs attrs() const { return attributes({{"code", code}, {"constants", constants}, {"outputs", outputs}}); }
  void add(int opcode, int dst, int a, int b, int c) {
    for (const int x : {opcode, dst, a, b, c}) code.push_back(x);
  }
};

/// The tape's ops one kernel call each, over whole tensors.
std::vector<Tensor> one_by_one(const Program& p, const std::string& isa, DType t, const Shape& shape, std::vector<Tensor>& inputs) {
  std::vector<Tensor> registers(32, Tensor(t, shape));
  for (size_t k = 0; k < inputs.size(); k++) {
    Tensor zero(t, shape, -0.0);  // x + -0 is x, bit for bit
    run(find_kernel("cpu", "add", isa), {}, {&inputs[k], &zero}, {&registers[k]});
  }
  for (size_t i = 0; i < p.code.size(); i += 5) {
    const auto& op = kOps[int(p.code[i])];
    const auto operand = [&](int k) { return &registers[size_t(p.code[i + 1 + size_t(k)])]; };
    const auto constant = [&](int k) { return p.constants[size_t(p.code[i + 1 + size_t(k)])]; };
    Tensor result(t, shape);
    const char* name = op.kind == kConstant ? "full" : op.op;
    const KernelFn fn = find_kernel("cpu", name, isa);
    switch (op.kind) {
      case kConstant: run(fn, attributes({{"value", constant(1)}}), {}, {&result}); break;
      case kUnary: run(fn, {}, {operand(1)}, {&result}); break;
      case kBinary: run(fn, {}, {operand(1), operand(2)}, {&result}); break;
      case kSelect: run(fn, {}, {operand(1), operand(2), operand(3)}, {&result}); break;
      case kAffine: run(fn, attributes({{"scale", constant(2)}, {"shift", constant(3)}}), {operand(1)}, {&result}); break;
      case kClamp: run(fn, attributes({{"min", constant(2)}, {"max", constant(3)}}), {operand(1)}, {&result}); break;
    }
    *operand(0) = result;
  }
  std::vector<Tensor> out;
  for (const double r : p.outputs) out.push_back(registers[size_t(r)]);
  return out;
}

bool same_or_nan(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.numel(); i++)
    if (a.get(i) != b.get(i) && !(std::isnan(a.get(i)) && std::isnan(b.get(i)))) return false;
  return true;
}

void check(const std::string& what, const Program& p, const std::string& isa, KernelFn fn, DType t, const Shape& shape, std::vector<Tensor>& inputs) {
  std::vector<Tensor> out(p.outputs.size(), Tensor(t, shape));
  Tensors in, to;
  for (Tensor& x : inputs) in.push_back(&x);
  for (Tensor& y : out) to.push_back(&y);
  run_on_threads(what, fn, p.attrs(), in, to);
  const std::vector<Tensor> expected = one_by_one(p, isa, t, shape, inputs);
  for (size_t k = 0; k < out.size(); k++)
    expect(same_or_nan(out[k], expected[k]), what + " " + isa + " " + dtype_name(t) + ": output " + std::to_string(k) + " differs from its ops");
  if (inputs[0].shape != shape) return;
  to[0] = in[0];  // output 0 in the memory of input 0
  run(fn, p.attrs(), in, to);
  expect(same_or_nan(*in[0], expected[0]), what + ": another result in place");
}

std::vector<Tensor> inputs_of(DType t, const std::vector<Shape>& shapes, uint64_t seed) {
  std::vector<Tensor> inputs;
  for (const Shape& s : shapes) {
    Tensor x(t, s, 0.0);
    const auto v = gaussian(x.numel(), seed++);
    for (int64_t i = 0; i < x.numel(); i++) x.set(i, v[size_t(i)]);
    inputs.push_back(x);
  }
  return inputs;
}

void each_opcode() {
  const Shape shape = {3, 7, 41};
  for (const auto& [isa, fn] : kernels_of("tape"))
    for (const DType t : {DType::f32, DType::f64})
      for (int opcode = 0; opcode < kOpcodes; opcode++) {
        Program p;
        p.constants = {0.5, -0.25, 0.75};
        const Kind kind = kOps[opcode].kind;
        p.add(opcode, 3, 0, kind == kUnary || kind == kConstant ? 0 : 1, kind == kSelect || kind == kAffine || kind == kClamp ? 2 : 0);
        p.outputs = {3};
        std::vector<Tensor> inputs = inputs_of(t, {shape, {41}, {3, 1, 1}}, 1);
        check(kOps[opcode].op, p, isa, fn, t, shape, inputs);
      }
}

void random_programs() {
  const std::vector<std::vector<Shape>> shapes = {
      {{5, 1000}, {1}, {1000}}, {{2, 30, 30, 4}, {2, 30, 30, 1}, {2, 1, 1, 4}, {4}}, {{40000}, {40000}}, {{1}, {1}}, {{7, 1}, {1, 9}}};
  uint64_t state = 88172645463325252ull;
  const auto below = [&](int n) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return int(state % uint64_t(n));
  };
  for (int round = 0; round < 40; round++) {
    const auto& in_shapes = shapes[size_t(below(int(shapes.size())))];
    const int inputs = int(in_shapes.size()), registers = 32 - below(20), length = 1 + below(40);
    Program p;
    p.constants = {0.5, -1.25, 2, -0.75, 1.5};
    for (int r = inputs; r < registers; r++) p.add(0, r, below(5), 0, 0);
    for (int i = 0; i < length; i++) {
      const int opcode = below(kOpcodes);
      const bool constants = kOps[opcode].kind == kAffine || kOps[opcode].kind == kClamp;
      p.add(opcode, inputs + below(registers - inputs), kOps[opcode].kind == kConstant ? below(5) : below(registers), constants ? below(5) : below(registers),
            constants ? below(5) : below(registers));
    }
    for (int k = 0; k < 1 + round % 3; k++) p.outputs.push_back(inputs + below(registers - inputs));
    const Shape out = in_shapes[0] == Shape{7, 1} ? Shape{7, 9} : in_shapes[0];
    for (const auto& [isa, fn] : kernels_of("tape"))
      for (const DType t : {DType::f32, DType::f64}) {
        std::vector<Tensor> tensors = inputs_of(t, in_shapes, uint64_t(round));
        check("random program " + std::to_string(round), p, isa, fn, t, out, tensors);
      }
  }
}

/// A program that would touch memory outside its registers is refused.
void bad_programs() {
  const std::vector<std::vector<double>> bad = {{99, 1, 0, 0, 0}, {1, 0, 0, 0, 0},  {1, 32, 0, 0, 0}, {1, 1, 0, 40, 0},
                                                {0, 1, 3, 0, 0},  {32, 1, 0, 0, 7}, {-1, 1, 0, 0, 0}, {31, 1, 0, 0, -1}};
  for (const auto& [isa, fn] : kernels_of("tape"))
    for (const auto& code : bad) {
      Program p;
      p.code = code, p.constants = {1}, p.outputs = {1};
      Tensor x(DType::f32, {4}, 1.0), y(DType::f32, {4});
      bool refused = false;
      try {
        run(fn, p.attrs(), {&x}, {&y});
      } catch (const Error& e) { refused = e.code == "ERR_PROGRAM"; }
      expect(refused, "tape " + isa + ": accepts opcode " + std::to_string(code[0]) + " with a bad operand");
    }
}

int main() {
  each_opcode();
  random_programs();
  bad_programs();
  return finish("tape");
}
