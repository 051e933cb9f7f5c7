// AdamW with moments in 8 bits: the reference of native/cuda/adamw8.cu, to the bit. Whatever holds the parameters, arithmetic is in float, every product that
// meets a sum in an explicit fma, and stochastic rounding leaves values of bf16.
#include "../core/dynamic_code.h"

#include "parallel.h"
#include "reduced_float.h"

ATTUNE_CPU_BEGIN
namespace {

using dynamic_code::kBlock;

/// Floats as they are stored, read and written as float.
struct Floats {
  void* data;
  DType dtype;

  explicit Floats(const TensorRef& t) : data(t.data), dtype(t.dtype) {}
  float get(int64_t i) const {
    if (dtype == DType::bf16) return BF16::load(static_cast<const uint16_t*>(data)[i]);
    return dtype == DType::f64 ? float(static_cast<const double*>(data)[i]) : static_cast<const float*>(data)[i];
  }
  void set(int64_t i, float v) const {
    if (dtype == DType::bf16) static_cast<uint16_t*>(data)[i] = BF16::store(v);
    else if (dtype == DType::f64) static_cast<double*>(data)[i] = double(v);
    else static_cast<float*>(data)[i] = v;
  }
};

struct Step {
  float beta1, rest1, beta2, rest2, eps, keep, step, root, scale = 1;
  philox::Key key;
  uint32_t stream, index;
  bool stochastic;

  explicit Step(const OpArgs& args) {
    const auto number = [&](const char* name) { return args.attrs.number(name); };
    const auto slot = [&](const char* name) { return args.scalars[args.attrs.integer(name)]; };
    beta1 = float(number("beta1")), rest1 = float(1.0 - number("beta1")), beta2 = float(number("beta2")), rest2 = float(1.0 - number("beta2"));
    eps = float(number("eps")), keep = float(std::fma(-slot("lr"), number("weightDecay"), 1.0));
    step = float(slot("lr") / slot("correction1")), root = float(1.0 / std::sqrt(slot("correction2")));
    if (args.has(6)) scale = float(*args.in[6].as<const double>());
    const uint64_t seed = uint64_t(slot("seed"));
    key = {uint32_t(seed), uint32_t(seed >> 32)}, stream = uint32_t(args.attrs.integer("stream")), index = uint32_t(slot("step"));
    stochastic = args.attrs.flag("stochastic");
  }

  float update(float p, float gradient, float* m, float* v) const {
    const float g = gradient * scale;
    *m = std::fma(rest1, g, beta1 * *m);
    *v = std::fma(rest2 * g, g, beta2 * *v);
    return std::fma(p, keep, -(step * *m / std::fma(std::sqrt(*v), root, eps)));
  }
  float rounded(float p, int64_t i) const {
    const uint64_t block = uint64_t(i / 8);
    const philox::Lanes words = philox::block(uint32_t(block), uint32_t(block >> 32), stream, index, key);
    return BF16::load(dynamic_code::round_stochastic(math::bits_of(p), dynamic_code::half_word(words, int(i % 8))));
  }
};

void update_block(const OpArgs& args, const Step& step, int64_t block) {
  const Floats param(args.out[0]), grad(args.in[1]), m_max(args.out[3]), v_max(args.out[4]);
  const int64_t at = block * kBlock, count = min_of(kBlock, args.in[0].numel() - at);
  uint8_t *m_codes = args.out[1].as<uint8_t>() + at, *v_codes = args.out[2].as<uint8_t>() + at;
  const float m_before = m_max.get(block), v_before = v_max.get(block);
  float m[kBlock], v[kBlock], m_most = 0, v_most = 0;
  for (int64_t i = 0; i < count; i++) {
    m[i] = dynamic_code::decode_signed(m_codes[i]) * m_before, v[i] = dynamic_code::decode_unsigned(v_codes[i]) * v_before;
    const float p = step.update(param.get(at + i), grad.get(at + i), &m[i], &v[i]);
    param.set(at + i, step.stochastic ? step.rounded(p, at + i) : p);
    m_most = std::fabs(m[i]) > m_most ? std::fabs(m[i]) : m_most, v_most = v[i] > v_most ? v[i] : v_most;
  }
  const auto unit = [](float most) { return most >= 1.17549435e-38f ? 1.f / most : 0.f; };  // of what has no reciprocal the codes are those of 0
  const float m_unit = unit(m_most), v_unit = unit(v_most);
  for (int64_t i = 0; i < count; i++) m_codes[i] = dynamic_code::encode_signed(m[i] * m_unit), v_codes[i] = dynamic_code::encode_unsigned(v[i] * v_unit);
  m_max.set(block, m_unit > 0 ? m_most : 0.f), v_max.set(block, v_unit > 0 ? v_most : 0.f);
}

void adamw8_kernel(const OpArgs& args) {
  const Step step(args);
  if (!std::isfinite(step.scale)) return;
  parallel_ranges(args.pool, ceil_div(args.in[0].numel(), kBlock), 16, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) update_block(args, step, block);
  });
}

}  // namespace

REGISTER_CPU(adamw8, adamw8_kernel)
ATTUNE_CPU_END
