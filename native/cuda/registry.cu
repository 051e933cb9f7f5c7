// The op table of a device object: name to the function that starts the op's kernels.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "kernel.h"

namespace attune {
namespace cuda {

namespace {
std::map<std::string, OpFn>& table() {  // ops register before main, from any translation unit
  static std::map<std::string, OpFn> ops;
  return ops;
}
}  // namespace

bool register_op(const char* op, OpFn fn) {
  if (table().emplace(op, fn).second) return true;
  std::fprintf(stderr, "attune: two CUDA kernels for op \"%s\"\n", op);
  std::abort();
}

OpFn find_op(const std::string& op) {
  const auto found = table().find(op);
  return found == table().end() ? nullptr : found->second;
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& entry : table()) names.push_back(entry.first);
  return names;
}

}  // namespace cuda
}  // namespace attune
