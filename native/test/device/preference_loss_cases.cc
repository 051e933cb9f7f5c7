// The fused preference loss: the tapes of four objectives, on maps that stay on chip and on maps that do not, target given or drawn, single samples, odd sizes.
#include <map>

#include "device_case.h"

namespace attune {
namespace test {

namespace {

/// Writes instructions in the order of lib/graph/tape-opcodes.ts.
struct Tape {
  std::vector<double> code, constants, outputs, coefficients;
  int next;

  explicit Tape(int inputs) : next(inputs) {}
  int emit(const std::string& op, std::vector<double> operands) {
    static const char* const names[] = {
        "constant",       "add",  "sub",  "mul",  "div",       "maximum",    "minimum", "greater", "silu_vjp",   "gelu_vjp", "gelu_tanh_vjp",
        "quick_gelu_vjp", "neg",  "exp",  "log",  "log1p",     "sqrt",       "rsqrt",   "square",  "abs",        "sigmoid",  "softplus",
        "tanh",           "relu", "silu", "gelu", "gelu_tanh", "quick_gelu", "sin",     "cos",     "reciprocal", "select",   "affine",
        "clamp",          "sum"};
    int opcode = 0;
    while (op != names[opcode]) opcode++;
    operands.resize(3);
    code.push_back(opcode), code.push_back(next);
    code.insert(code.end(), operands.begin(), operands.end());
    return next++;
  }
  int number(double v) { return constants.push_back(v), int(constants.size()) - 1; }
  int affine(int x, double scale, double shift = 0) { return emit("affine", {double(x), double(number(scale)), double(number(shift))}); }
  int of(const std::string& op, int a, int b = 0) { return emit(op, {double(a), double(b)}); }
  int mean(int x, int lanes) { return affine(of("sum", x), 1.0 / lanes); }
};

constexpr int E = 0, D = 1, P = 2, C = 3, kLoser = 4;

/// Diffusion-DPO: mean softplus(-s), s = -(beta / 2) (D_w - D_l); reported: loss, mean margin, margin by pair.
Tape dpo(int lanes, double beta) {
  Tape t(8);
  const int s = t.affine(t.of("sub", D, kLoser + D), -beta / 2), minus = t.of("neg", s);
  const int slope = t.affine(t.of("sigmoid", minus), beta / 2 / lanes);
  t.outputs = {double(t.mean(t.of("softplus", minus), lanes)), double(t.mean(s, lanes)), double(s)};
  t.coefficients = {-1, double(slope), -1, -1, -1, double(t.of("neg", slope)), -1, -1};
  return t;
}
/// DSPO: mean E_w - 2 pull C_w + pull^2 P_w, pull = beta sigmoid(-s).
Tape dspo(int lanes, double beta) {
  Tape t(8);
  const int s = t.affine(t.of("sub", D, kLoser + D), -beta / 2), doubt = t.of("sigmoid", t.of("neg", s)), pull = t.affine(doubt, beta);
  const int residual = t.of("add", t.of("sub", E, t.affine(t.of("mul", pull, C), 2)), t.of("mul", t.of("square", pull), P));
  const int by_pull = t.of("add", t.affine(C, -2), t.affine(t.of("mul", pull, P), 2));
  const int by_s = t.affine(t.of("mul", by_pull, t.of("mul", doubt, t.affine(doubt, -1, 1))), beta * beta / 2 / lanes);
  const int one = t.emit("constant", {double(t.number(1.0 / lanes))});
  t.outputs = {double(t.mean(residual, lanes))};
  t.coefficients = {
      double(one), double(by_s), double(t.affine(t.of("square", pull), 1.0 / lanes)), double(t.affine(pull, -2.0 / lanes)), -1, double(t.of("neg", by_s)), -1,
      -1};
  return t;
}
/// A loss that branches on a mean over the batch, as DSPO's for SDXL: the gradient hangs on all pairs.
Tape branching(int lanes) {
  Tape t(8);
  const int near = t.of("greater", t.emit("constant", {double(t.number(2.0))}), t.mean(P, lanes));
  const int weight = t.emit("select", {double(near), double(t.of("exp", t.of("neg", D))), double(t.of("tanh", kLoser + E))});
  t.outputs = {double(near), double(weight)};
  t.coefficients = {-1, -1, double(weight), -1, double(t.of("neg", weight)), -1, -1, double(near)};
  return t;
}
/// Single samples weighted by extra inputs, one by sample and one for all.
Tape weighted(int lanes) {
  Tape t(4 + 2);
  const int weight = t.of("mul", 4, 5);
  t.outputs = {double(t.mean(t.of("mul", weight, E), lanes))};
  t.coefficients = {double(t.affine(weight, 1.0 / lanes)), -1, -1, -1};
  return t;
}

DeviceCase loss_case(const std::string& name, const Tape& t, int arms, int lanes, Shape shape, DType prediction, DType target, DType reference) {
  shape.insert(shape.begin(), int64_t(arms) * lanes);
  DeviceCase c{name,      "preference_loss", {}, {tensor(prediction, shape), tensor(target, shape), tensor(reference, shape)}, {tensor(prediction, shape)},
               {42, 9, 3}};
  for (const int64_t d : shape) c.name += " " + std::to_string(d);
  c.name += std::string(" ") + dtype_name(prediction) + " " + dtype_name(target) + " " + dtype_name(reference);
  c.attrs = attrs({{"arms", double(arms)},
                   {"code", t.code},
                   {"constants", t.constants},
                   {"outputs", t.outputs},
                   {"coefficients", t.coefficients},
                   {"seed", 0.0},
                   {"step", 1.0},
                   {"offset", 2.0},
                   {"stream", 1.0}});
  c.tolerance = 8;
  return c;
}

/// The gradient alone, then what is reported, whose f64 sums cancel by the root of their length and an eighth of that, as in pair_sums.
void add_with(std::vector<DeviceCase>& cases, DeviceCase c, const std::vector<Operand>& scalars, double scalar_tolerance, double length) {
  DeviceCase gradient = c;
  Attrs a;
  for (const char* key : {"arms", "seed", "step", "offset", "stream"}) a.set(key, c.attrs.number(key));
  for (const char* key : {"code", "constants", "coefficients"}) a.set(key, c.attrs.list(key));
  a.set("outputs", std::vector<double>{});
  gradient.attrs = a;
  if (c.outputs[0].dtype == DType::f64) gradient.depth = 64 * length;  // slopes follow from those sums
  cases.push_back(gradient);
  c.name += ", reported";
  c.outputs.insert(c.outputs.end(), scalars.begin(), scalars.end());
  c.tolerance = scalar_tolerance, c.depth = 64 * length;
  cases.push_back(c);
}

void add_objectives(std::vector<DeviceCase>& cases, int lanes, const Shape& shape, DType prediction, DType target, DType reference, bool large) {
  const double length = double(shape[0] * shape[1] * shape[2]);
  const Operand one = tensor(DType::f64, {1}), each = tensor(DType::f64, {lanes});
  const auto add = [&](const char* name, const Tape& t, int arms, const std::vector<Operand>& scalars, std::vector<Operand> extras) {
    for (const bool drawn : {false, true}) {
      DeviceCase c = loss_case(std::string(name) + (drawn ? ", drawn" : ""), t, arms, lanes, shape, prediction, target, reference);
      c.large = large;
      if (drawn) c.inputs[1] = absent();
      if (arms == 1) c.inputs[2] = absent();
      c.inputs.insert(c.inputs.end(), extras.begin(), extras.end());
      // noise rounded to f32 moves f64 sums by 2^-24 of themselves, and what follows from them by a few times that
      add_with(cases, c, scalars, drawn && prediction != DType::f64 ? 8 * 0x1p29 : 16, length);
    }
  };
  add("dpo", dpo(lanes, 2), 2, {one, one, each}, {});
  add("dspo", dspo(lanes, 0.5), 2, {one}, {});
  if (lanes > 1) add("branching", branching(lanes), 2, {one, each}, {});
  add("weighted", weighted(lanes), 1, {one}, {each, one});
}

}  // namespace

DEVICE_CASES(preference_loss, {
  const DType types[][3] = {{DType::f32, DType::f32, DType::f32}, {DType::bf16, DType::f32, DType::bf16}, {DType::f64, DType::f64, DType::f64}};
  for (const auto& [prediction, target, reference] : types) {
    add_objectives(cases, 1, {1, 1, 1}, prediction, target, reference, false);
    add_objectives(cases, 3, {3, 5, 3}, prediction, target, reference, false);
    add_objectives(cases, 2, {32, 32, 4}, prediction, target, reference, false);
    add_objectives(cases, 2, {37, 61, 4}, prediction, target, reference, false);
  }
  add_objectives(cases, 5, {65, 32, 4}, DType::f32, DType::f32, DType::f32, false);
  DeviceCase most = loss_case("as many pairs as there may be", dpo(256, 2), 2, 256, {1, 3, 1}, DType::f32, DType::bf16, DType::f32);
  most.outputs.insert(most.outputs.end(), {tensor(DType::f64, {1}), tensor(DType::f64, {1}), tensor(DType::f64, {256})});
  most.depth = 64 * 3 * 256;
  cases.push_back(most);
  add_objectives(cases, 32, {64, 64, 4}, DType::f32, DType::f32, DType::f32, true);
  add_objectives(cases, 32, {64, 64, 4}, DType::bf16, DType::bf16, DType::bf16, true);
  add_objectives(cases, 64, {128, 128, 4}, DType::f32, DType::f32, DType::f32, true);
})

}  // namespace test
}  // namespace attune
