// Memory that programs live in: anonymous pages, zero until written, 4096-byte aligned, growing in place or by moving pages, never by copying.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace attune {

/// One region. Addresses change when it grows.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// At least `bytes` bytes; contents stay, what is added is zero. Throws ERR_MEMORY.
  void grow(int64_t bytes);
  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;  // asked for
  size_t mapped_ = 0;  // whole pages
};

/// The arenas of a session by name. "scratch" is shared by all its programs; the others persist.
using Arenas = std::map<std::string, Arena>;

}  // namespace attune
