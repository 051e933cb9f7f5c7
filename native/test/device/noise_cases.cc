// The forward process: samples that begin inside a Philox block, both ends of the table, every kind of target, schedules to the bit where no cosine is
// involved.
#include "device_case.h"

namespace attune {
namespace test {

namespace {

constexpr int64_t kSteps = 20;

/// alphasCumprod from nearly 1 down to 0, as a schedule with no signal at its end has it.
Operand alphas() {
  std::vector<double> a;
  for (int64_t i = 0; i < kSteps; i++) a.push_back(double(float(0.999 * (1 - double(i) / double(kSteps - 1)))));
  return given(DType::f32, {kSteps}, a);
}
Operand timesteps(int64_t batch) {
  std::vector<double> t;
  for (int64_t b = 0; b < batch; b++) t.push_back(double((b * 7 + kSteps - 1) % kSteps));
  return given(DType::i32, {batch}, t);
}

std::string name_of(const Shape& shape, std::initializer_list<DType> types) {
  std::string name;
  for (const DType t : types) name += std::string(dtype_name(t)) + " ";
  for (const int64_t d : shape) name += " " + std::to_string(d);
  return name;
}

const std::vector<Shape> kShapes = {{1, 1, 1, 1}, {5, 1, 1, 1}, {3, 3, 5, 1}, {2, 8, 8, 4}, {3, 37, 19, 3}};

void add_pairs(std::vector<DeviceCase>& cases, const Shape& shape, DType from, DType to, bool large) {
  Shape both = shape;
  both[0] *= 2;
  for (const double offset : {0.0, 3.0}) {
    DeviceCase c{name_of(shape, {from, to}) + " offset " + std::to_string(int(offset)), "q_sample_pair", {}, {}, {}, {42, 9, offset}};
    c.large = large;
    const auto with = [&](const char* prediction) {
      c.attrs = attrs({{"seed", 0.0}, {"step", 1.0}, {"offset", 2.0}, {"stream", 1.0}, {"prediction", prediction}});
    };
    with("epsilon");
    c.inputs = {tensor(from, shape), tensor(from, shape), timesteps(shape[0]), alphas()}, c.outputs = {tensor(to, both)};
    cases.push_back(c);
    for (const char* prediction : {"epsilon", "v_prediction", "sample"}) {
      DeviceCase target = c;
      with(prediction);
      target.attrs = c.attrs, target.name += std::string(" ") + prediction, target.outputs.push_back(tensor(to, both));
      cases.push_back(target);
    }
    c.inputs[1] = absent(), c.name += " single", c.outputs = {tensor(to, shape), tensor(to, shape)};
    cases.push_back(c);
  }
}

void add_mixtures(std::vector<DeviceCase>& cases, const Shape& shape, DType t, DType noise, bool large) {
  for (const char* op : {"add_noise", "velocity"}) {
    DeviceCase c{name_of(shape, {t, noise}), op, {}, {tensor(t, shape), tensor(noise, shape), timesteps(shape[0]), alphas()}, {tensor(t, shape)}};
    c.large = large;
    cases.push_back(c);
  }
}

void add_steps(std::vector<DeviceCase>& cases, const Shape& shape, DType t, DType model, double clip) {
  DeviceCase c{name_of(shape, {t, model}) + (clip < 9 ? " clipped" : ""),
               "scheduler_step",
               {},
               {tensor(t, shape), tensor(model, shape), tensor(t, shape)},
               {tensor(t, shape)}};
  c.attrs = attrs({{"sample", 0.0}, {"output", 1.0}, {"clip", 2.0}, {"state", 3.0}, {"denoised", 4.0}, {"direct", 5.0}, {"noise", 6.0}});
  c.scalars = {1.25, -0.75, clip, 0.3, 0.6, -0.2, 0.1};
  c.tolerance = 16;  // a chain of six products and sums, whose terms are up to four times the result
  cases.push_back(c);
  c.inputs[2] = absent(), c.name += ", no noise";
  cases.push_back(c);
}

void add_schedule(std::vector<DeviceCase>& cases, const char* schedule, int64_t steps, bool zero_snr) {
  DeviceCase c{std::string(schedule) + (zero_snr ? " with no signal at its end, " : " ") + std::to_string(steps), "noise_schedule", {}, {}, {}};
  c.attrs = attrs({{"schedule", schedule}, {"betaStart", 0.00085}, {"betaEnd", 0.012}, {"zeroTerminalSnr", zero_snr}});
  c.outputs = std::vector<Operand>(4, tensor(DType::f32, {steps}));
  c.exact = std::string(schedule) != "squaredcos_cap_v2";  // the cosine of the host may be another in its last bit
  cases.push_back(c);
}

/// A timestep outside of the table is reported, the first by position, and stands for 0.
void add_bad_timesteps(std::vector<DeviceCase>& cases, DType t) {
  constexpr int64_t kBatch = 5;
  const Shape shape{kBatch, 7, 5, 3};
  for (const auto& [position, value] : {std::pair<int64_t, int32_t>{0, -1}, {2, int32_t(kSteps)}, {kBatch - 1, INT32_MAX}, {1, INT32_MIN}}) {
    std::vector<double> steps, stand_for;
    for (int64_t b = 0; b < kBatch; b++) {
      const bool wrong = b == position || (b > position && b % 2 == 0);
      steps.push_back(b == position ? double(value) : wrong ? -7 : double(b * 7 % kSteps)), stand_for.push_back(wrong ? 0 : steps.back());
    }
    Shape both = shape;
    both[0] *= 2;
    const Operand timestep = bad(DType::i32, {kBatch}, steps, stand_for);
    const std::string name = std::string(dtype_name(t)) + " bad timestep " + std::to_string(value) + " at " + std::to_string(position);
    const auto add = [&](DeviceCase c) { c.fault = {{value, int32_t(kSteps)}}, cases.push_back(std::move(c)); };
    for (const char* op : {"add_noise", "velocity"}) add({name, op, {}, {tensor(t, shape), tensor(t, shape), timestep, alphas()}, {tensor(t, shape)}});
    const Attrs a = attrs({{"seed", 0.0}, {"step", 1.0}, {"offset", 2.0}, {"stream", 1.0}, {"prediction", "v_prediction"}});
    add({name, "q_sample_pair", a, {tensor(t, shape), tensor(t, shape), timestep, alphas()}, {tensor(t, both), tensor(t, both)}, {42, 9, 3}});
  }
}

}  // namespace

DEVICE_CASES(noise, {
  const std::pair<DType, DType> types[] = {
      {DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}, {DType::f64, DType::f64}};
  for (const auto& [a, b] : types)
    for (const Shape& shape : kShapes) {
      add_pairs(cases, shape, a, b, false);
      add_mixtures(cases, shape, a, b, false);
      for (const double clip : {0.75, 3e38}) add_steps(cases, shape, a, b, clip);
    }
  for (const DType t : {DType::f32, DType::bf16}) add_bad_timesteps(cases, t);
  add_pairs(cases, {64, 128, 128, 4}, DType::f32, DType::bf16, true);
  add_mixtures(cases, {64, 128, 128, 4}, DType::f32, DType::f32, true);
  for (const int64_t steps : {2, 3, 1000, 1001})
    for (const char* schedule : {"linear", "scaled_linear", "squaredcos_cap_v2"})
      for (const bool zero_snr : {false, true})
        if (!zero_snr || std::string(schedule) != "squaredcos_cap_v2") add_schedule(cases, schedule, steps, zero_snr);
})

}  // namespace test
}  // namespace attune
