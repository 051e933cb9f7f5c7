// The types that PTX instructions name. Registers themselves have only a width: an instruction says how it reads the bits.
#pragma once
#include <cstdint>
#include <string_view>

namespace attune {
namespace ptxi {

enum class Type : uint8_t { none, pred, b8, b16, b32, b64, u8, u16, u32, u64, s8, s16, s32, s64, f16, bf16, f16x2, bf16x2, tf32, f32, f64 };

constexpr std::string_view kTypeNames[] = {"none", "pred", "b8",  "b16", "b32",  "b64",   "u8",     "u16",  "u32", "u64", "s8",
                                           "s16",  "s32",  "s64", "f16", "bf16", "f16x2", "bf16x2", "tf32", "f32", "f64"};
constexpr int kTypeBytes[] = {0, 4, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 4, 4, 4, 8};  // a predicate is a mask of 32 lanes

constexpr int bytes_of(Type t) { return kTypeBytes[int(t)]; }
constexpr std::string_view name_of(Type t) { return kTypeNames[int(t)]; }
constexpr bool is_signed(Type t) { return t >= Type::s8 && t <= Type::s64; }
constexpr bool is_unsigned(Type t) { return t >= Type::u8 && t <= Type::u64; }
constexpr bool is_bits(Type t) { return t >= Type::b8 && t <= Type::b64; }
constexpr bool is_integer(Type t) { return t >= Type::b8 && t <= Type::s64; }
constexpr bool is_float(Type t) { return t >= Type::f16; }

/// Type::none if `name` is no type.
inline Type type_named(std::string_view name) {
  for (int t = 1; t < int(sizeof kTypeBytes / sizeof kTypeBytes[0]); t++)
    if (name == kTypeNames[t]) return Type(t);
  return Type::none;
}

enum class Space : uint8_t { generic, global, constant, shared, local, param };

}  // namespace ptxi
}  // namespace attune
