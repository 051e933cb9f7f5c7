#include "finite.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

namespace attune {

namespace {

struct Statistics {
  int64_t size = 0, nonfinite = 0, first = -1;  // first: index of the first non-finite element
  double first_value = 0;
  double min = std::numeric_limits<double>::infinity(), max = -min;  // of the finite ones
};

float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

double from_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

template <typename T, typename Read>
Statistics scan(const TensorRef& x, Read&& read) {
  Statistics s;
  s.size = x.numel();
  const T* data = x.as<T>();
  for (int64_t i = 0; i < s.size; i++) {
    const double v = read(data[i]);
    if (std::isfinite(v)) {
      if (v < s.min) s.min = v;
      if (v > s.max) s.max = v;
    } else if (s.nonfinite++ == 0) {
      s.first = i, s.first_value = v;
    }
  }
  return s;
}

Statistics statistics(const TensorRef& x) {
  switch (x.dtype) {
    case DType::f64: return scan<double>(x, [](double v) { return v; });
    case DType::f32: return scan<float>(x, [](float v) { return double(v); });
    case DType::bf16: return scan<uint16_t>(x, from_bf16);
    case DType::f16: return scan<uint16_t>(x, from_f16);
    case DType::i32: return scan<int32_t>(x, [](int32_t v) { return double(v); });
    case DType::u8: return scan<uint8_t>(x, [](uint8_t v) { return double(v); });
  }
  return {};
}

std::string number(double v) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", v);
  return buffer;
}

std::string describe(const TensorRef& x) {
  if (!x.data) return "absent";
  const Statistics s = statistics(x);
  const int64_t finite = s.size - s.nonfinite;
  std::string text = type_of(x) + (finite ? ", from " + number(s.min) + " to " + number(s.max) : "");
  return text + ", " + number(100.0 * double(finite) / double(s.size)) + "% finite";
}

}  // namespace

void require_finite(const Instruction& instruction) {
  const size_t n_in = instruction.inputs.size();
  for (size_t o = 0; o < instruction.outputs.size(); o++) {
    const Statistics s = statistics(instruction.operands[n_in + o]);
    if (s.nonfinite == 0) continue;
    std::string message = place_of(instruction) + ": output " + std::to_string(o) + " has " + std::to_string(s.nonfinite) + " non-finite of " +
                          std::to_string(s.size) + " values, the first (" + number(s.first_value) + ") at index " + std::to_string(s.first);
    for (size_t i = 0; i < n_in; i++) {
      bool overwritten = false;
      for (size_t k = 0; k < instruction.outputs.size(); k++) overwritten |= instruction.operands[i].data == instruction.operands[n_in + k].data;
      message += "; input " + std::to_string(i) + (overwritten ? ": overwritten in place" : ": " + describe(instruction.operands[i]));
    }
    throw Error("ERR_NONFINITE", message, instruction.op, instruction.label);
  }
}

}  // namespace attune
