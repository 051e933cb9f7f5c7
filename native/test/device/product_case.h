// What cases of products share.
#pragma once
#include "device_case.h"

namespace attune {
namespace test {

/// Operand and output types: products of bf16 are exact in f32, so an f32 output is held to the rounding of sums alone.
struct Types {
  DType in, out;
};
inline const Types kProductTypes[] = {{DType::bf16, DType::bf16}, {DType::bf16, DType::f32}, {DType::f32, DType::f32}};
inline std::string text(const Types& t) { return std::string(dtype_name(t.in)) + " to " + dtype_name(t.out) + " "; }

/// Additions of a sum over k, for a case's `depth`. Tensor cores add 16 products at a time and cut the sum off instead of rounding it: k / 16 errors of half a
/// bit on average, all towards zero, of a sum that grows like a square root, make k / 24 roundings where independent ones make sqrt(k). The bound is four times
/// the root of what this returns.
inline double sum_depth(DType in, double k) { return in == DType::bf16 ? k + (k / 96) * (k / 96) : k; }

}  // namespace test
}  // namespace attune
