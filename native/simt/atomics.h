// CUDA's atomics on shared and global memory, in the types that CUDA has them for. Relaxed on a GPU; here they acquire and release, and the checks ask for the
// __threadfence() that would be needed (checks=full).
#pragma once
#include "machine.h"

// ATTUNE_SIMT_HERE is simt.h's.
namespace attune {
namespace simt {
template <typename T, typename F>
T update(T* p, const char* file, int line, F next) {
  check_atomic(p, sizeof(T), file, line);
  T old, to;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do { to = next(old); } while (!__atomic_compare_exchange(p, &old, &to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  return old;
}
}  // namespace simt
}  // namespace attune

#define ATTUNE_SIMT_ATOMIC(name, T, expression)                                         \
  inline T name(T* p, T v, ATTUNE_SIMT_HERE) {                                          \
    return attune::simt::update(p, file, line, [&](T old) -> T { return expression; }); \
  }
#define ATTUNE_SIMT_ATOMICS(T)                                                                    \
  ATTUNE_SIMT_ATOMIC(atomicMin, T, old < v ? old : v)                                             \
  ATTUNE_SIMT_ATOMIC(atomicMax, T, old > v ? old : v)                                             \
  ATTUNE_SIMT_ATOMIC(atomicExch, T, ((void)old, v))                                               \
  ATTUNE_SIMT_ATOMIC(atomicAnd, T, old& v)                                                        \
  ATTUNE_SIMT_ATOMIC(atomicOr, T, old | v)                                                        \
  ATTUNE_SIMT_ATOMIC(atomicXor, T, old ^ v)                                                       \
  inline T atomicCAS(T* p, T expected, T v, ATTUNE_SIMT_HERE) {                                   \
    return attune::simt::update(p, file, line, [&](T old) { return old == expected ? v : old; }); \
  }
ATTUNE_SIMT_ATOMICS(int)
ATTUNE_SIMT_ATOMICS(unsigned)
ATTUNE_SIMT_ATOMICS(unsigned long long)
ATTUNE_SIMT_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(v)))
ATTUNE_SIMT_ATOMIC(atomicAdd, unsigned, old + v)
ATTUNE_SIMT_ATOMIC(atomicAdd, unsigned long long, old + v)
ATTUNE_SIMT_ATOMIC(atomicAdd, float, old + v)
ATTUNE_SIMT_ATOMIC(atomicAdd, double, old + v)
ATTUNE_SIMT_ATOMIC(atomicSub, int, int(unsigned(old) - unsigned(v)))
ATTUNE_SIMT_ATOMIC(atomicSub, unsigned, old - v)
ATTUNE_SIMT_ATOMIC(atomicExch, float, ((void)old, v))
ATTUNE_SIMT_ATOMIC(atomicInc, unsigned, old >= v ? 0 : old + 1)
ATTUNE_SIMT_ATOMIC(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
#undef ATTUNE_SIMT_ATOMICS
#undef ATTUNE_SIMT_ATOMIC
