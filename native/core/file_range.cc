#include "file_range.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "error.h"

namespace attune {

FileRange::FileRange(std::string path, int fd, int64_t offset, int64_t bytes)
    : path_(std::move(path)), begin_(offset), bytes_(bytes), fd_(fcntl(fd, F_DUPFD_CLOEXEC, 0)) {
  if (fd_ < 0) fail(std::generic_category().message(errno));
}

FileRange::~FileRange() { close(fd_); }

void FileRange::read(void* to, int64_t bytes) {
  for (char* out = static_cast<char*>(to); bytes > 0;) {
    const ssize_t got = pread(fd_, out, size_t(bytes), off_t(begin_ + at_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(std::to_string(at_) + " and then \"" + std::generic_category().message(errno) + "\"");
    if (got == 0) fail(std::to_string(at_) + " before the file ended");
    out += got, at_ += got, bytes -= got;
  }
}

void FileRange::fail(const std::string& received) const {
  Error e("ERR_DATA", "expected " + std::to_string(bytes_) + " bytes, received " + received);
  e.file = path_, e.offset = begin_ + at_;
  throw e;
}

}  // namespace attune
