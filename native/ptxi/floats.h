// What the families of floating-point instructions share.
#pragma once
#include <cmath>

#include "lanes.h"

namespace attune {
namespace ptxi {

inline float canonical_nan(float) { return bits<float>(0x7fffffffu); }
inline double canonical_nan(double) { return bits<double>(uint64_t(0x7fffffffffffffffu)); }

/// A subnormal becomes a zero of its sign (.ftz).
inline float flush(float v) { return (bits<uint32_t>(v) & 0x7f800000u) == 0 ? bits<float>(bits<uint32_t>(v) & 0x80000000u) : v; }
inline double flush(double v) { return (bits<uint64_t>(v) & 0x7ff0000000000000u) == 0 ? bits<double>(bits<uint64_t>(v) & 0x8000000000000000u) : v; }

/// To [0, 1]; NaN becomes 0 (.sat).
template <typename T>
T saturate(T v) {
  return v > T(0) ? (v < T(1) ? v : T(1)) : T(0);
}

struct MinNumber {  // of a number and a NaN, the number; -0 < +0
  template <typename T>
  static T of(T a, T b) {
    if (a != a) return b != b ? canonical_nan(a) : b;
    if (b != b) return a;
    return a < b || (a == b && std::signbit(a)) ? a : b;
  }
};
struct MaxNumber {
  template <typename T>
  static T of(T a, T b) {
    if (a != a) return b != b ? canonical_nan(a) : b;
    if (b != b) return a;
    return a > b || (a == b && !std::signbit(a)) ? a : b;
  }
};

enum class Rounding : uint8_t { nearest, zero, down, up };
inline Rounding take_rounding(Build& b) {
  const int k = b.take_one({"rn", "rz", "rm", "rp"});
  return k <= 0 ? Rounding::nearest : Rounding(k);
}
/// Sets the host's rounding while it lives. Operands must be volatile, or the compiler moves the arithmetic out.
class RoundingScope {
 public:
  explicit RoundingScope(Rounding r);
  ~RoundingScope();

 private:
  int before_;
};

}  // namespace ptxi
}  // namespace attune
