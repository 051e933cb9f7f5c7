// What the machine found in one launch: the first few errors as text, every one counted. An error that repeats at the same lines is told once.
#pragma once
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace attune {
namespace simt {

/// A line of a kernel. The file is a string literal.
struct Place {
  const char* file = nullptr;
  int line = 0;
  bool operator==(const Place& other) const { return line == other.line && file == other.file; }
  bool operator!=(const Place& other) const { return !(*this == other); }
  /// In one word, for shadow memory: addresses have 48 bits.
  uint64_t packed() const { return uint64_t(reinterpret_cast<uintptr_t>(file)) << 16 | uint16_t(line); }
  static Place unpacked(uint64_t word) { return {reinterpret_cast<const char*>(uintptr_t(word >> 16)), int(word & 0xffff)}; }
};
/// "native/cuda/softmax.cu:17"
std::string to_string(Place place);

class Reports {
 public:
  /// False: enough, the launch should end.
  bool add(const char* kind, Place place, Place other, const std::string& text);
  int64_t count() const { return count_; }
  /// All of it, for an Error's message.
  std::string text() const;

 private:
  std::mutex mutex_;
  std::set<std::string> seen_;
  std::vector<std::string> texts_;
  int64_t count_ = 0;
};

/// Notes an error of the running thread at a place, `other` being the second line that it is about, and gives the block up when there are enough.
void report_at(const char* kind, Place place, Place other, const std::string& text);

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace simt
}  // namespace attune
