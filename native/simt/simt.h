// The host machine of the device kernels, as kernels see it: CUDA C++ for g++, by way of native/cuda/kernel.h.
//
// Every CUDA thread of a block is a fiber; it runs until it has to wait for others: at a barrier, a warp collective, an mbarrier. Who goes next, and when
// asynchronous copies land, is chosen by ATTUNE_SIMT (settings.h), so that one kernel can be seen under many schedules. Checks do not depend on the schedule:
// accesses are ordered by what synchronises them (shadow.h), not by when they happen to run.
//
// It shows wrong results, accesses out of bounds, misaligned or unordered, memory that nobody wrote, collectives that diverge, deadlocks. It does not show
// speed, weak memory order (a missing fence between proxies), or what PTX says: the twin of an instruction is compiled here, not its asm string (native/ptxi
// runs that).
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "machine.h"

#define threadIdx (::attune::simt::cur->index)
#define blockIdx (::attune::simt::view->index)
#define blockDim (::attune::simt::view->threads)
#define gridDim (::attune::simt::view->grid)
#define warpSize 32

// The place of a call in the source; the same as ATTUNE_HERE of kernel.h, for CUDA's own functions.
#define ATTUNE_SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(ATTUNE_SIMT_HERE) { attune::simt::sync_block(attune::simt::Vote::None, false, file, line); }
inline int __syncthreads_count(int p, ATTUNE_SIMT_HERE) { return attune::simt::sync_block(attune::simt::Vote::Count, p != 0, file, line); }
inline int __syncthreads_and(int p, ATTUNE_SIMT_HERE) { return attune::simt::sync_block(attune::simt::Vote::And, p != 0, file, line); }
inline int __syncthreads_or(int p, ATTUNE_SIMT_HERE) { return attune::simt::sync_block(attune::simt::Vote::Or, p != 0, file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, ATTUNE_SIMT_HERE) { attune::simt::sync_warp(mask, file, line); }
inline void __threadfence_block() {}
inline void __threadfence() { attune::simt::fence(); }
inline void __threadfence_system() { attune::simt::fence(); }

namespace attune {
namespace simt {
template <typename T>
T shuffle_value(uint32_t mask, Shuffle kind, T value, int operand, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4- and 8-byte numbers");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, kind, bits, operand, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace simt
}  // namespace attune

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, ATTUNE_SIMT_HERE) {
  return attune::simt::shuffle_value(mask, attune::simt::Shuffle::Index, value, lane, width, file, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ATTUNE_SIMT_HERE) {
  return attune::simt::shuffle_value(mask, attune::simt::Shuffle::Up, value, int(delta), width, file, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, ATTUNE_SIMT_HERE) {
  return attune::simt::shuffle_value(mask, attune::simt::Shuffle::Down, value, int(delta), width, file, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, ATTUNE_SIMT_HERE) {
  return attune::simt::shuffle_value(mask, attune::simt::Shuffle::Xor, value, lane_mask, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int p, ATTUNE_SIMT_HERE) { return attune::simt::ballot(mask, p != 0, file, line); }
inline int __any_sync(unsigned mask, int p, ATTUNE_SIMT_HERE) { return attune::simt::ballot(mask, p != 0, file, line) != 0; }
inline int __all_sync(unsigned mask, int p, ATTUNE_SIMT_HERE) { return attune::simt::ballot(mask, p == 0, file, line) == 0; }

// int and unsigned differ in min and max only.
#define ATTUNE_SIMT_REDUCE(name, T, kind)                                                      \
  inline T __reduce_##name##_sync(unsigned mask, T v, ATTUNE_SIMT_HERE) {                      \
    return T(attune::simt::reduce(mask, attune::simt::Reduce::kind, unsigned(v), file, line)); \
  }
ATTUNE_SIMT_REDUCE(add, int, Add)
ATTUNE_SIMT_REDUCE(add, unsigned, Add)
ATTUNE_SIMT_REDUCE(min, int, MinSigned)
ATTUNE_SIMT_REDUCE(min, unsigned, MinUnsigned)
ATTUNE_SIMT_REDUCE(max, int, MaxSigned)
ATTUNE_SIMT_REDUCE(max, unsigned, MaxUnsigned)
ATTUNE_SIMT_REDUCE(and, unsigned, And)
ATTUNE_SIMT_REDUCE(or, unsigned, Or)
ATTUNE_SIMT_REDUCE(xor, unsigned, Xor)
#undef ATTUNE_SIMT_REDUCE

#include "atomics.h"
#include "intrinsics.h"
