// Scratch memory of kernels that is not a tensor: packed panels, per-thread partial sums. One per session; it grows to the largest
// request and is reported by memory(). Contents do not survive an instruction.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

namespace attune {

class Workspace {
 public:
  Workspace() = default;
  ~Workspace() { std::free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// At least `bytes` bytes, 64-byte aligned. A second call in one instruction may move the first one's memory: ask once, for all threads.
  void* get(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      data_ = nullptr, size_ = 0;
      const size_t rounded = (bytes + 4095) & ~size_t(4095);
      data_ = std::aligned_alloc(64, rounded);
      if (!data_) throw std::bad_alloc();
      size_ = rounded;
    }
    return data_;
  }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace attune
