// What simt_test's files share: a planted bug as a kernel in two forms, run through a device of the simt machine under any ATTUNE_SIMT.
#pragma once
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../cuda/kernel.h"

extern "C" attune::DeviceObject* attune_device_object(int abi);

namespace attune {
namespace test {

using Numbers = std::vector<float>;

struct Bug {
  std::string name;
  std::string kind;  // of one of its reports; "a|b": either
  int numbers;       // of x and of y
  /// Starts the kernel over x and y; scratch through args.
  std::function<void(const cuda::OpArgs& args, const float* x, float* y, bool mistake)> start;
  std::function<Numbers(const Numbers& x, const Numbers& y)> expected;  // y before
  bool full = false;                                                    // found by checks=full
  bool race = false;                                                    // ThreadSanitizer finds it too
};

/// Appends the file's bugs.
void add_planted(std::vector<Bug>& bugs);
void add_rings(std::vector<Bug>& bugs);
void add_gemms(std::vector<Bug>& bugs);

inline std::unique_ptr<Device> open_device(const std::string& settings) {
  setenv("ATTUNE_SIMT", settings.c_str(), 1);
  return attune_device_object(kDeviceAbi)->open(0);
}

/// Runs one form of a bug: "" if it passes, else the error or what is wrong with its result.
std::string run_bug(const Bug& bug, bool mistake, const std::string& settings);

// Laws that are no planted bugs: each prints what fails, and returns how many did.
int check_device();
int check_intrinsics();
void measure_speed();

}  // namespace test
}  // namespace attune
