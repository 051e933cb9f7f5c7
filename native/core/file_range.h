// A run of bytes in an open file, read from its start to its end with pread. Never mapped: where another process truncates a mapped file, touching the lost
// pages kills this process with SIGBUS; pread comes back short, and that is an error with a name. It reads through a duplicate of the caller's descriptor: the
// very file whose header was checked, not one that was renamed into its place since, nor whatever takes the number after a close.
#pragma once
#include <cstdint>
#include <string>

namespace attune {

class FileRange {
 public:
  /// `path` is for errors only. Throws ERR_DATA if the descriptor is none.
  FileRange(std::string path, int fd, int64_t offset, int64_t bytes);
  ~FileRange();
  FileRange(const FileRange&) = delete;
  FileRange& operator=(const FileRange&) = delete;

  /// The next `bytes` bytes. Throws ERR_DATA with file and offset if the file ends before them or cannot be read.
  void read(void* to, int64_t bytes);

 private:
  [[noreturn]] void fail(const std::string& received) const;

  const std::string path_;
  const int64_t begin_, bytes_;
  int64_t at_ = 0;  // bytes that were read
  int fd_;
};

}  // namespace attune
