// What every CPU kernel file includes. Each file of native/cpu is compiled once per instruction set (see CMakeLists.txt) with ATTUNE_ISA set to
// generic, avx2 or avx512; all its code lies in a namespace of that name, so that no function compiled for AVX-512 is ever linked into the
// generic path. For the same reason kernel files use no std:: containers or algorithms, only plain loops: a std::vector<T>::push_back
// emitted with AVX-512 instructions could be the copy that the linker keeps for everybody.
#pragma once
#include <cmath>
#include <cstdint>

#include "../core/op.h"

#ifndef ATTUNE_ISA
#define ATTUNE_ISA generic
#endif
#define ATTUNE_STRINGIFY_(x) #x
#define ATTUNE_STRINGIFY(x) ATTUNE_STRINGIFY_(x)
#define ATTUNE_CONCAT_(a, b) a##b
#define ATTUNE_CONCAT(a, b) ATTUNE_CONCAT_(a, b)

// namespace attune::cpu::avx512 { ... }
#define ATTUNE_CPU_BEGIN \
  namespace attune {     \
  namespace cpu {        \
  namespace ATTUNE_ISA {
#define ATTUNE_CPU_END \
  }                    \
  }                    \
  }

/// REGISTER_CPU(group_norm, group_norm_kernel): inside ATTUNE_CPU_BEGIN/END, once per op.
#define REGISTER_CPU(op, fn) \
  [[maybe_unused]] static const bool ATTUNE_CONCAT(registered_, op) = ::attune::register_kernel({"cpu", #op, ATTUNE_STRINGIFY(ATTUNE_ISA), fn});

ATTUNE_CPU_BEGIN

/// Runs body with a float or double tag: dispatch(dtype, [&](auto tag) { using T = decltype(tag); ... }).
template <typename Body>
inline void dispatch(DType t, Body&& body) {
  if (t == DType::f32) body(float{});
  else if (t == DType::f64) body(double{});
  else throw Error("ERR_PROGRAM", std::string("the cpu backend computes in f32 or f64, received ") + dtype_name(t));
}

ATTUNE_CPU_END
