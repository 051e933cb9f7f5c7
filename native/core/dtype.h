// Element types that cross the language border, by the names TypeScript uses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace attune {

enum class DType : uint8_t { f64, f32, bf16, f16, i32, u8 };

constexpr size_t dtype_size(DType t) {
  switch (t) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr const char* dtype_name(DType t) {
  switch (t) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
  }
  return "?";
}

/// False when `name` is none of ours; *out is then left alone.
constexpr bool parse_dtype(std::string_view name, DType* out) {
  for (DType t : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8})
    if (name == dtype_name(t)) return *out = t, true;
  return false;
}

}  // namespace attune
