#include "launch.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../core/error.h"
#include "block.h"
#include "global_memory.h"

namespace attune {
namespace simt {

Options opt;
Stats stats;

namespace {

std::mutex stats_mutex;

/// What cuLaunchKernel would not take.
void validate(const Request& r, const std::string& name) {
  const auto refuse = [&](const std::string& why) { throw Error("ERR_DEVICE", "simt: kernel " + name + ": cudaErrorInvalidConfiguration: " + why); };
  const auto text = [](const dim3& d) { return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z); };
  const uint64_t threads = uint64_t(r.threads.x) * r.threads.y * r.threads.z;
  if (threads == 0 || threads > 1024 || r.threads.z > 64) refuse("expected 1 to 1024 threads, z up to 64, received " + text(r.threads));
  if (r.grid.x == 0 || r.grid.y == 0 || r.grid.z == 0 || r.grid.x > 0x7fffffffu || r.grid.y > 65535 || r.grid.z > 65535)
    refuse("expected a grid of 1 to 2^31 - 1 by 65535 by 65535 blocks, received " + text(r.grid));
  if (r.shared_bytes < 0 || r.shared_bytes > r.shared_limit)
    refuse("expected 0 to " + std::to_string(r.shared_limit) + " bytes of shared memory, received " + std::to_string(r.shared_bytes));
  if (r.parameter_bytes > 4096) refuse("expected up to 4096 bytes of parameters, received " + std::to_string(r.parameter_bytes));
}

Block& block_of_this_thread() {
  static thread_local std::unique_ptr<Block> block;
  if (!block) block = std::make_unique<Block>();
  return *block;
}

}  // namespace

std::string kernel_symbol(const void* kernel) {
  Dl_info info{};
  const bool found = kernel && dladdr(kernel, &info) && info.dli_sname && info.dli_saddr == kernel;
  return found ? info.dli_sname : "?";
}

std::string kernel_name(const void* kernel) {
  const std::string symbol = kernel_symbol(kernel);
  if (symbol == "?") return "without a visible name";
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = demangled ? demangled : symbol;
  std::free(demangled);
  if (name.compare(0, 5, "void ") == 0) name.erase(0, 5);
  int depth = 0;  // the parameter list is what the last ')' closes
  for (size_t i = name.size(); i-- > 0;) {
    depth += name[i] == ')' ? 1 : name[i] == '(' ? -1 : 0;
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

void run(const Request& request, const std::function<void()>& body) {
  validate(request, kernel_name(request.kernel));
  const uint64_t blocks = uint64_t(request.grid.x) * request.grid.y * request.grid.z;
  std::vector<uint32_t> order;
  if (opt.order == Order::Random && blocks < (1u << 24)) {
    uint64_t state = opt.seed * 0x9E3779B97F4A7C15ull | 1;
    for (uint32_t i = 0; i < blocks; i++) order.push_back(i);
    for (size_t i = blocks; i > 1; i--) state ^= state << 13, state ^= state >> 7, state ^= state << 17, std::swap(order[i - 1], order[state % i]);
  }

  Reports reports;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> next{0};
  const LaunchState launch{request, body, &reports, &stop};
  const auto work = [&] {
    Block& block = block_of_this_thread();
    block.begin_launch();
    uint64_t done = 0;
    for (uint64_t i; !stop && (i = next++) < blocks; done++) {
      const uint64_t index = order.empty() ? (opt.order == Order::Reverse ? blocks - 1 - i : i) : order[i];
      block.run(launch, index);
    }
    const std::lock_guard<std::mutex> lock(stats_mutex);
    block.count(stats);
    stats.blocks += done;
  };
  // Races between blocks are found in one shadow of global memory, without locks.
  const uint64_t workers = opt.checks == Checks::Full ? 1 : std::min<uint64_t>(blocks, uint64_t(std::max(1, opt.threads)));
  std::vector<std::thread> threads;
  for (uint64_t i = 1; i < workers; i++) threads.emplace_back(work);
  work();
  for (std::thread& t : threads) t.join();
  acquired(&reports);
  stats.launches++, stats.threads += stats.blocks ? blocks * request.threads.x * request.threads.y * request.threads.z : 0;
  if (reports.count()) throw Error("ERR_DEVICE", "simt: kernel " + kernel_name(request.kernel) + ": " + reports.text());
}

}  // namespace simt
}  // namespace attune
