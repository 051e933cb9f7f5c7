// preference_loss: pair sums, the scalar stage of an objective as a tape over lanes (a lane is a pair, or a single sample), and the gradient of the prediction.
// The encoding stands in lib/graph/ops/preference-loss.ts; opcodes are those of tape.cc and, behind them, `sum` over all lanes.
#include <cstring>

#include "pair_sums.h"
#include "random.h"
#include "scalar_ops.h"

ATTUNE_CPU_BEGIN
namespace {

#define ATTUNE_OPCODE(name, expression) op_##name,
enum Opcode : int32_t { op_constant, ATTUNE_BINARY_OPS(ATTUNE_OPCODE) ATTUNE_UNARY_OPS(ATTUNE_OPCODE) op_select, op_affine, op_clamp, op_sum };
#undef ATTUNE_OPCODE

constexpr int kRegisters = 64, kLanes = 256;

/// Registers by number, a row of lanes each.
struct LossTape {
  const std::vector<double>&code, &constants;
  int64_t lanes;
  double (*registers)[kLanes];

  double* at(double r) const {
    if (!(r >= 0 && r < kRegisters)) throw Error("ERR_PROGRAM", "preference_loss: a register is out of range");
    return registers[int(r)];
  }
  double constant(double i) const {
    if (!(i >= 0 && i < double(constants.size()))) throw Error("ERR_PROGRAM", "preference_loss: a constant is out of range");
    return constants[size_t(i)];
  }

  void run() const {
    for (size_t i = 0; i + 5 <= code.size(); i += 5) execute(&code[i]);
  }
  /// y[lane] = f(lane), lane by lane.
  template <typename F>
  void each(double* y, F&& f) const {
    for (int64_t lane = 0; lane < lanes; lane++) y[lane] = f(lane);
  }
  void execute(const double* in) const {
    double* y = at(in[1]);
    const auto reg = [&](int k) -> const double* { return at(in[2 + k]); };
    switch (int32_t(in[0])) {
#define ATTUNE_BINARY_CASE(name, expression) \
  case op_##name: return each(y, [a = reg(0), b = reg(1)](int64_t k) { return name##_op::apply(a[k], b[k]); });
      ATTUNE_BINARY_OPS(ATTUNE_BINARY_CASE)
#define ATTUNE_UNARY_CASE(name, expression) \
  case op_##name: return each(y, [a = reg(0)](int64_t k) { return name##_op::apply(a[k]); });
      ATTUNE_UNARY_OPS(ATTUNE_UNARY_CASE)
      case op_constant: return each(y, [v = constant(in[2])](int64_t) { return v; });
      case op_select: return each(y, [a = reg(0), b = reg(1), c = reg(2)](int64_t k) { return a[k] != 0 ? b[k] : c[k]; });
      case op_affine: return each(y, [a = reg(0), p = constant(in[3]), q = constant(in[4])](int64_t k) { return p * a[k] + q; });
      case op_clamp: return each(y, [a = reg(0), p = constant(in[3]), q = constant(in[4])](int64_t k) { return clamp_value(a[k], p, q); });
      case op_sum: {
        double total = 0;
        for (int64_t k = 0; k < lanes; k++) total += reg(0)[k];
        return each(y, [=](int64_t) { return total; });
      }
      default: throw Error("ERR_PROGRAM", "preference_loss: unknown opcode");
    }
  }
};

template <typename T>
void preference_loss(const OpArgs& args) {
  const TensorRef& prediction = args.in[0];
  const int64_t arms = args.attrs.integer("arms"), lanes = prediction.dims[0] / arms, rows = arms * lanes, n = prediction.numel() / rows;
  const auto &outputs = args.attrs.list("outputs"), &coefficients = args.attrs.list("coefficients");
  if (lanes > kLanes) throw Error("ERR_PROGRAM", "preference_loss: expected at most 256 pairs, received " + std::to_string(lanes));

  const int64_t chunks = rows * ceil_div(n, kChunk), noise = args.has(1) ? 0 : rows * n;
  auto* registers =
      static_cast<double (*)[kLanes]>(args.workspace.get(kRegisters * kLanes * sizeof(double) + size_t(chunks) * sizeof(Sums) + size_t(noise) * sizeof(T)));
  Sums* partials = reinterpret_cast<Sums*>(registers + kRegisters);
  TensorRef target = args.has(1) ? args.in[1] : prediction;
  if (!args.has(1)) {  // the noise of the draw, once for each arm
    T* drawn = reinterpret_cast<T*>(partials + chunks);
    Draw(args, n).template normals<T>(args.pool, lanes * n, [&](int64_t at, int64_t count, const T* z) {
      for (int64_t arm = 0; arm < arms; arm++) std::memcpy(drawn + arm * lanes * n + at, z, size_t(count) * sizeof(T));
    });
    target.data = drawn, target.dtype = sizeof(T) == 8 ? DType::f64 : DType::f32;
  }
  const PairMaps<T> maps(prediction, target, args.has(2) ? &args.in[2] : nullptr, rows);

  double sums[4][2 * kLanes], slopes[4][2 * kLanes] = {};
  pair_sums_of(args.pool, maps, partials, {sums[0], sums[1], sums[2], sums[3]});
  const LossTape tape{args.attrs.list("code"), args.attrs.list("constants"), lanes, registers};
  for (int64_t arm = 0; arm < arms; arm++)
    for (int k = 0; k < 4; k++)
      for (int64_t lane = 0; lane < lanes; lane++) tape.at(double(4 * arm + k))[lane] = sums[k][arm * lanes + lane];
  for (int i = 3; i < args.n_in; i++)
    for (int64_t lane = 0; lane < lanes; lane++)
      tape.at(double(4 * arms + i - 3))[lane] = args.in[i].as<const double>()[args.in[i].numel() == lanes ? lane : 0];
  tape.run();
  for (int k = 1; k < args.n_out; k++)
    for (int64_t lane = 0; lane < args.out[k].numel(); lane++) args.out[k].as<double>()[lane] = tape.at(outputs[size_t(k - 1)])[lane];
  for (int64_t i = 0; i < 4 * arms; i++)
    if (const double r = coefficients[size_t(i)]; r >= 0)
      for (int64_t lane = 0; lane < lanes; lane++) slopes[i % 4][i / 4 * lanes + lane] = tape.at(r)[lane];
  pair_gradient(args.pool, maps, {slopes[0], slopes[1], slopes[2], slopes[3]}, args.out[0]);
}

void preference_loss_kernel(const OpArgs& args) {
  dispatch_maps(args.in[0].dtype, [&](auto tag) { preference_loss<decltype(tag)>(args); });
}

}  // namespace

REGISTER_CPU(preference_loss, preference_loss_kernel)
ATTUNE_CPU_END
