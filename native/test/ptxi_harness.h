// Runs snippets of PTX as kernels, and small kernels as they stand.
#pragma once
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "ptxi/hopper.h"
#include "ptxi/module.h"
#include "ptxi/ptxi.h"

extern "C" __attribute__((visibility("default"))) inline void ptxi_test_kernel() {}

namespace attune {
namespace ptxi_test {

using ptxi::Arrival;
using ptxi::Order;

inline int checks = 0, failures = 0;

inline void fail(const std::string& what, const std::string& how) {
  static std::string last;  // said once, not for each lane
  if (what != last) std::printf("FAIL %s: %s\n", what.c_str(), how.c_str());
  last = what;
  failures++;
}
inline void same(const std::string& what, uint64_t got, uint64_t want) {
  checks++;
  char text[96];
  std::snprintf(text, sizeof text, "expected %llx, received %llx", static_cast<unsigned long long>(want), static_cast<unsigned long long>(got));
  if (got != want) fail(what, text);
}
/// The error contains this; "": there is none.
inline void finds(const std::string& what, const std::string& error, const std::string& part) {
  checks++;
  if (part.empty() ? !error.empty() : error.find(part) == std::string::npos) fail(what, "expected \"" + part + "\", received \"" + error + "\"");
}

template <typename T>
uint64_t bits_of(T v) {
  uint64_t u = 0;
  std::memcpy(&u, &v, sizeof v);
  return u;
}

/// Device memory of the tests: exact to the byte.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : memory_(bytes / 8 + 3, 0) {
    begin_ = reinterpret_cast<unsigned char*>(memory_.data());
    begin_ += (16 - reinterpret_cast<uintptr_t>(begin_) % 16) % 16;
    all()[begin_] = bytes;
  }
  ~Buffer() { all().erase(begin_); }
  Buffer(const Buffer&) = delete;
  unsigned char* data() { return begin_; }
  static std::map<const unsigned char*, size_t>& all() {
    static std::map<const unsigned char*, size_t> buffers;
    return buffers;
  }

 private:
  std::vector<uint64_t> memory_;
  unsigned char* begin_;
};

inline std::string access_error(const void* p, size_t bytes, bool write) {
  const auto* at = static_cast<const unsigned char*>(p);
  auto next = Buffer::all().upper_bound(at);
  if (next != Buffer::all().begin()) {
    const auto& [begin, size] = *std::prev(next);
    if (at + bytes <= begin + size) return "";
    return std::string(write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes at byte " + std::to_string(at - begin) + " of " +
           std::to_string(size);
  }
  return "no memory of the device";
}

inline ptxi::Options options(Order order = Order::forward, Arrival copies = Arrival::late, uint64_t seed = 7) {
  ptxi::Options o;
  o.order = order, o.copies = copies, o.seed = seed, o.access_error = access_error;
  return o;
}

/// "" or the error.
inline std::string interpret(const std::string& ptx, unsigned threads, int shared, std::vector<unsigned char> parameters, const ptxi::Options& o) {
  try {
    ptxi::Module module("test.ptx", ptx);
    ptxi::Start start;
    start.block.x = threads, start.shared_bytes = shared, start.parameters = std::move(parameters);
    ptxi::interpret(module, *module.entry("k"), start, o);
  } catch (const Error& e) { return e.what(); }
  return "";
}
inline std::vector<unsigned char> pack(std::initializer_list<const void*> pointers) {
  std::vector<unsigned char> bytes;
  for (const void* p : pointers) bytes.insert(bytes.end(), reinterpret_cast<unsigned char*>(&p), reinterpret_cast<unsigned char*>(&p) + sizeof p);
  return bytes;
}

const char kHead[] =
    ".version 9.0\n.target sm_90a\n.address_size 64\n.const .align 4 .u32 table[4] = {11, 22, 33, 44};\n.extern .shared .align 16 .b8 area[];\n"
    ".func (.param .b32 result) twice(.param .b32 value)\n{ .reg .b32 %r<2>; ld.param.u32 %r1, [value]; add.u32 %r1, %r1, %r1; st.param.b32 [result], %r1; "
    "ret; }\n"
    ".visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .b64 %out, %in, %t64;\n.reg .b32 %lane, %t;\n.reg .pred %p;\n"
    "ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; mov.u32 %lane, %tid.x;\n";

struct Lanes {
  std::vector<uint32_t> d;
  std::string error;
};
/// A snippet that gives %d from %lane, by 32 threads; %in: 128 bytes.
inline Lanes run_lanes(const std::string& text) {
  Buffer out(128), in(128);
  std::string ptx =
      std::string(kHead) + ".reg .b32 %d;\n" + text + "\nmul.wide.u32 %t64, %lane, 4; add.u64 %out, %out, %t64; st.global.u32 [%out], %d; ret;\n}\n";
  Lanes r;
  r.error = interpret(ptx, 32, 1024, pack({out.data(), in.data()}), options());
  r.d.resize(32);
  std::memcpy(r.d.data(), out.data(), 128);
  return r;
}
inline void lanes(const std::string& text, const std::function<uint32_t(uint32_t)>& want) {
  const Lanes r = run_lanes(text);
  if (!r.error.empty()) return checks++, fail(text, r.error);
  for (uint32_t l = 0; l < 32; l++) same(text + " in lane " + std::to_string(l), r.d[l], want(l));
}

/// A snippet that gives %d of `bytes` from %a, %b, %c of `from` bytes, by as many threads: all lanes must agree.
inline std::vector<uint64_t> evaluate(const std::string& text, const std::vector<uint64_t>& operands, int bytes, int from, unsigned threads) {
  Buffer out(size_t(threads) * size_t(bytes)), in(64);
  const std::string size = std::to_string(8 * bytes), source = std::to_string(8 * from);
  std::string ptx = std::string(kHead) + ".reg .b" + size + " %d;\n.reg .b" + source + " %a, %b;\n.reg .b" +
                    (text.find("wide") != std::string::npos ? size : source) + " %c;\n";
  const char* names[] = {"%a", "%b", "%c"};
  for (size_t k = 0; k < operands.size(); k++) {
    std::memcpy(in.data() + 8 * k, &operands[k], 8);
    const bool wide = k == 2 && text.find("wide") != std::string::npos;
    ptx += "ld.global.b" + (wide ? size : source) + " " + names[k] + ", [%in+" + std::to_string(8 * k) + "];\n";
  }
  ptx += text + "\nmul.wide.u32 %t64, %lane, " + std::to_string(bytes) + "; add.u64 %out, %out, %t64; st.global.b" + size + " [%out], %d; ret;\n}\n";
  checks++;
  const std::string error = interpret(ptx, threads, 1024, pack({out.data(), in.data()}), options());
  if (!error.empty()) fail(text, error);
  std::vector<uint64_t> result(threads, 0);
  for (unsigned l = 0; l < threads && error.empty(); l++) std::memcpy(&result[l], out.data() + size_t(l) * size_t(bytes), size_t(bytes));
  return result;
}
/// A whole warp and a few lanes of one run through different loops.
inline void same_everywhere(const std::string& text, const std::vector<uint64_t>& operands, uint64_t want, int bytes, int from, unsigned most) {
  for (const unsigned threads : {32u, 5u})
    for (const uint64_t got : evaluate(text, operands, bytes, from, threads < most ? threads : most)) same(text, got, want);
}
inline void same32(const std::string& text, const std::vector<uint64_t>& operands, uint64_t want, unsigned threads = 32) {
  same_everywhere(text, operands, want, 4, 4, threads);
}
inline void same64(const std::string& text, const std::vector<uint64_t>& operands, uint64_t want, int from = 8) {
  same_everywhere(text, operands, want, 8, from, 32);
}
inline void same16(const std::string& text, const std::vector<uint64_t>& operands, uint64_t want) { same_everywhere(text, operands, want, 2, 2, 32); }
inline void near32(const std::string& text, uint64_t operand, double want, double relative) {
  for (const uint64_t got : evaluate(text, {operand}, 4, 4, 32)) {
    float v;
    std::memcpy(&v, &got, 4);
    if (!(std::abs(double(v) - want) <= relative * std::abs(want))) fail(text, "received " + std::to_string(v));
  }
}

inline std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  if (at == std::string::npos) fail("replaced", "the kernel has no " + what);
  return at == std::string::npos ? text : text.replace(at, what.size(), with);
}

}  // namespace ptxi_test
}  // namespace attune
