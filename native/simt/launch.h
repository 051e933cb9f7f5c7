// Starting a kernel on the host machine.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "machine.h"
#include "report.h"

namespace attune {
namespace simt {

struct Request {
  const void* kernel = nullptr;  // names it in reports
  dim3 grid, threads;
  int64_t shared_bytes = 0;
  int64_t parameter_bytes = 0;
  int64_t shared_limit = 227 << 10;  // of the device that is played
};

/// A launch as its blocks see it.
struct LaunchState {
  const Request& request;
  const std::function<void()>& body;
  Reports* reports;
  std::atomic<bool>* stop;  // set once a block was abandoned
};

/// Runs body() as every thread of the grid. Throws ERR_DEVICE if a driver would refuse the launch, or with what the checks found.
void run(const Request& request, const std::function<void()>& body);

/// Its mangled name, "?" if it has none that is visible.
std::string kernel_symbol(const void* kernel);
/// "attune::cuda::softmax_kernel<float>": what the symbol table calls the function at this address.
std::string kernel_name(const void* kernel);

/// Since the process began; counted at the end of every launch.
struct Stats {
  uint64_t launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, collectives = 0;
  uint64_t matrices = 0, matrix_conflicts = 0;  // 8x8 matrices of ldmatrix, and rows of them that hit a bank already busy
};
extern Stats stats;

}  // namespace simt
}  // namespace attune
