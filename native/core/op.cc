#include "op.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace attune {

namespace {

// Kernels register before main, from any translation unit: the list must exist by the first call.
std::vector<KernelEntry>& registry() {
  static std::vector<KernelEntry> entries;
  return entries;
}

constexpr const char* kIsas[] = {"generic", "avx2", "avx512"};  // worst to best

int isa_rank(const char* isa) {
  for (int i = 0; i < 3; i++)
    if (std::strcmp(kIsas[i], isa) == 0) return i;
  return -1;
}

/// What the machine has; the sets must match the compiler flags of each list in CMakeLists.txt and binding.gyp.
int machine_rank() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  return avx2 && avx512 ? 2 : avx2 ? 1 : 0;
#else
  return 0;
#endif
}

}  // namespace

bool register_kernel(const KernelEntry& entry) {
  for (const KernelEntry& other : registry()) {
    if (std::strcmp(other.backend, entry.backend) != 0 || std::strcmp(other.op, entry.op) != 0 || std::strcmp(other.isa, entry.isa) != 0) continue;
    std::fprintf(stderr, "attune: two %s kernels for op \"%s\" (%s)\n", entry.backend, entry.op, entry.isa);
    std::abort();
  }
  registry().push_back(entry);
  return true;
}

KernelFn find_kernel(const char* backend, const std::string& op, const std::string& isa_limit) {
  int limit = machine_rank();
  if (!isa_limit.empty()) {
    const int wanted = isa_rank(isa_limit.c_str());
    if (wanted < 0) throw Error("ERR_CONFIG", "expected the instruction set to be generic, avx2 or avx512, received \"" + isa_limit + "\"");
    if (wanted < limit) limit = wanted;
  }
  KernelFn best = nullptr;
  int best_rank = -1;
  for (const KernelEntry& entry : registry()) {
    const int rank = isa_rank(entry.isa);
    if (rank <= best_rank || rank > limit || op != entry.op || std::strcmp(backend, entry.backend) != 0) continue;
    best = entry.fn, best_rank = rank;
  }
  return best;
}

const std::vector<KernelEntry>& all_kernels() { return registry(); }

const char* native_isa() { return kIsas[machine_rank()]; }

}  // namespace attune
