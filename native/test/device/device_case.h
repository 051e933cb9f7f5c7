// Every kernel of a device object against the cpu backend in f64, on the same program text: an op, attributes, shapes. A family file lists its cases with
// DEVICE_CASES; device_test.cc runs them on the object that the command line names (simt, ptxi or a GPU).
//
// Inputs are random numbers that the dtype represents, so the reference sees the very same numbers. Outputs are poisoned with NaN, guarded on both sides, and
// held against the reference by relative L2 and by the largest error; both bounds are multiples of the rounding of the dtype, given per case where an op adds
// more.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "../../core/device.h"
#include "../../core/op.h"

namespace attune {
namespace test {

using Shape = std::vector<int64_t>;

/// One operand. `values`, where given, are used as they are (indices, masks), again and again where there are more elements; else numbers with mean `shift` and
/// deviation `scale`.
struct Operand {
  DType dtype = DType::f32;
  Shape shape;
  double scale = 1, shift = 0;
  std::vector<double> values;
  std::vector<double> stand_for;  // what the reference sees instead of `values`: it throws at bad data, which a device reports and replaces
  bool absent = false;            // an optional input that is not given
  int made_by = -1;      // input only: the reference's output `made_by` of the case's `before` op (y, lse, mean, rstd of a forward pass), rounded to dtype
  int in_place_of = -1;  // output only: written over this input (effects: accumulate, adamw); it starts with the input's values, not with NaN
};

struct DeviceCase {
  std::string name;  // unique within its op: "3x3 s2, odd"
  std::string op;
  Attrs attrs;
  std::vector<Operand> inputs, outputs;
  std::vector<double> scalars = {};
  /// The forward op whose results a vjp takes: run by the reference over these inputs of the case (by index), with `attrs`; its outputs have these shapes.
  struct Before {
    std::string op;
    std::vector<int> inputs;  // -1: absent
    std::vector<Shape> outputs;
  };
  std::vector<Before> before = {};  // none or one
  double tolerance =
      4;  // times the rounding of an output's dtype (bf16 2^-9, f32 2^-24 times sqrt of the `depth`, f64 2^-53): relative L2; peaks may be 8 times that
  double depth = 1;    // additions that one output element takes part in
  bool large = false;  // SD 1.5 and SDXL sizes: only on a GPU, or with --large
  bool exact = false;  // bits must be equal (integers, copies, random numbers)
  struct BadIndex {
    int32_t value, limit;
  };
  /// The one that the fault record must name, alone or where an earlier instruction has not reported; none: it must stay empty.
  std::vector<BadIndex> fault = {};
};

/// Appends cases; called by static initialisers.
bool add_cases(std::function<void(std::vector<DeviceCase>&)> fill);
#define DEVICE_CASES(family, ...) \
  [[maybe_unused]] static const bool cases_##family = ::attune::test::add_cases([](std::vector<::attune::test::DeviceCase> & cases) __VA_ARGS__);

inline Attrs attrs(std::initializer_list<std::pair<const char*, Attrs::Value>> items) {
  Attrs a;
  for (const auto& [key, value] : items) a.set(key, value);
  return a;
}
inline Operand tensor(DType dtype, Shape shape, double scale = 1, double shift = 0) {
  Operand o;
  o.dtype = dtype, o.shape = std::move(shape), o.scale = scale, o.shift = shift;
  return o;
}
inline Operand given(DType dtype, Shape shape, std::vector<double> values) {
  Operand o = tensor(dtype, std::move(shape));
  o.values = std::move(values);
  return o;
}
/// Values of which the reference sees others.
inline Operand bad(DType dtype, Shape shape, std::vector<double> values, std::vector<double> stand_for) {
  Operand o = given(dtype, std::move(shape), std::move(values));
  o.stand_for = std::move(stand_for);
  return o;
}
inline Operand absent() {
  Operand o;
  o.absent = true;
  return o;
}
inline Operand from_before(DType dtype, Shape shape, int output) {
  Operand o = tensor(dtype, std::move(shape));
  o.made_by = output;
  return o;
}
inline Operand over(int input, DType dtype, Shape shape) {
  Operand o = tensor(dtype, std::move(shape));
  o.in_place_of = input;
  return o;
}

}  // namespace test
}  // namespace attune
