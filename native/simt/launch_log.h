// What was started, for tables of kernels (scripts/kernel-table.cjs): ATTUNE_SIMT="launches=FILE".
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "types.h"

namespace attune {
namespace simt {

/// Launches of one device, each kind once: kernel, block, dynamic shared memory and grid. When the device is closed they go to the end of the file, one line
/// each: "symbol threads shared_bytes grid_x grid_y grid_z count".
class LaunchLog {
 public:
  explicit LaunchLog(std::string path) : path_(std::move(path)) {}
  ~LaunchLog();
  void add(const void* kernel, const dim3& grid, const dim3& block, int shared_bytes);

 private:
  std::string path_;
  std::map<std::tuple<const void*, unsigned, int, unsigned, unsigned, unsigned>, int64_t> launches_;
};

}  // namespace simt
}  // namespace attune
