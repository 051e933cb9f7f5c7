// Loops over lanes, and handlers made from a function of one lane. An Op is a struct with a static `of`.
#pragma once
#include <cstring>

#include "build.h"
#include "machine.h"

namespace attune {
namespace ptxi {

/// f(lane) for the lanes of m. With all 32 the loop is one that a compiler turns into vectors: a lane reads and writes its own places only.
template <typename F>
inline __attribute__((always_inline)) void each(Mask m, F&& f) {
  if (m == kAllLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < 32; lane++) f(lane);
  } else {
    for (; m; m &= m - 1) f(__builtin_ctz(m));
  }
}

/// The lanes of which f(lane) holds. Asks all 32, as a test has no effect.
template <typename F>
inline __attribute__((always_inline)) Mask collect(F&& f) {
  Mask result = 0;
  for (int lane = 0; lane < 32; lane++) result |= Mask(f(lane) ? 1 : 0) << lane;
  return result;
}

/// A predicate takes the bits of `value` where m has lanes.
inline void assign(Mask& predicate, Mask m, Mask value) { predicate = (predicate & ~m) | (value & m); }

template <typename To, typename From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <typename Op, typename D, typename A = D>
void unary(Machine& x, const Instruction& i, Mask m) {
  D* d = x.lanes<D>(i.operand[0]);
  const A* a = x.lanes<A>(i.operand[1]);
  each(m, [&](int l) { d[l] = Op::of(a[l]); });
}
template <typename Op, typename D, typename A = D, typename B = A>
void binary(Machine& x, const Instruction& i, Mask m) {
  D* d = x.lanes<D>(i.operand[0]);
  const A* a = x.lanes<A>(i.operand[1]);
  const B* b = x.lanes<B>(i.operand[2]);
  each(m, [&](int l) { d[l] = Op::of(a[l], b[l]); });
}
template <typename Op, typename D, typename A = D, typename B = A, typename C = D>
void ternary(Machine& x, const Instruction& i, Mask m) {
  D* d = x.lanes<D>(i.operand[0]);
  const A* a = x.lanes<A>(i.operand[1]);
  const B* b = x.lanes<B>(i.operand[2]);
  const C* c = x.lanes<C>(i.operand[3]);
  each(m, [&](int l) { d[l] = Op::of(a[l], b[l], c[l]); });
}

/// d, a, b, ..: the first operand written, the others read, all of one type.
inline void operands(Build& b, Type type, int sources) {
  b.write(0, 0, type);
  for (int k = 1; k <= sources; k++) b.read(k, size_t(k), type);
}

}  // namespace ptxi
}  // namespace attune
