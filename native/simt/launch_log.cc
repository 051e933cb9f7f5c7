#include "launch_log.h"

#include <cstdio>

#include "launch.h"

namespace attune {
namespace simt {

void LaunchLog::add(const void* kernel, const dim3& grid, const dim3& block, int shared_bytes) {
  if (!path_.empty()) launches_[{kernel, block.x * block.y * block.z, shared_bytes, grid.x, grid.y, grid.z}]++;
}

LaunchLog::~LaunchLog() {
  std::string text;
  for (const auto& [launch, count] : launches_) {
    const auto& [kernel, threads, shared_bytes, x, y, z] = launch;
    text += kernel_symbol(kernel);
    for (const int64_t n : {int64_t(threads), int64_t(shared_bytes), int64_t(x), int64_t(y), int64_t(z), count}) text += ' ' + std::to_string(n);
    text += '\n';
  }
  if (text.empty()) return;
  std::FILE* file = std::fopen(path_.c_str(), "a");  // several devices and processes write to one file
  const bool written = file && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (!written || std::fclose(file) != 0) std::fprintf(stderr, "simt: launches cannot be written to %s\n", path_.c_str());
}

}  // namespace simt
}  // namespace attune
