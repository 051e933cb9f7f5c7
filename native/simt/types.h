// The words and the vector types of CUDA C++ as g++ needs them: qualifiers that mean nothing here, dim3, and vectors with CUDA's alignments.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// name, alignments of the vectors of 2, 3 and 4
#define ATTUNE_SIMT_VECTORS(T, name, a2, a3, a4)                     \
  struct alignas(a2) name##2 { T x, y; };                            \
  struct alignas(a3) name##3 { T x, y, z; };                         \
  struct alignas(a4) name##4 { T x, y, z, w; };                      \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
ATTUNE_SIMT_VECTORS(signed char, char, 2, 1, 4)
ATTUNE_SIMT_VECTORS(unsigned char, uchar, 2, 1, 4)
ATTUNE_SIMT_VECTORS(short, short, 4, 2, 8)
ATTUNE_SIMT_VECTORS(unsigned short, ushort, 4, 2, 8)
ATTUNE_SIMT_VECTORS(int, int, 8, 4, 16)
ATTUNE_SIMT_VECTORS(unsigned, uint, 8, 4, 16)
ATTUNE_SIMT_VECTORS(long long, longlong, 16, 8, 16)
ATTUNE_SIMT_VECTORS(unsigned long long, ulonglong, 16, 8, 16)
ATTUNE_SIMT_VECTORS(float, float, 8, 4, 16)
ATTUNE_SIMT_VECTORS(double, double, 16, 8, 16)
#undef ATTUNE_SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
