#include "ptxi.h"

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "module.h"

namespace attune {
namespace ptxi {

namespace {

/// The PTX files of one folder, and which of them defines a kernel.
class Library {
 public:
  explicit Library(const std::string& folder) {
    DIR* dir = opendir(folder.c_str());
    if (!dir) throw Error("ERR_DEVICE", "ptxi: no folder " + folder + ": build the target attune_ptx");
    std::vector<std::string> paths;
    while (const dirent* item = readdir(dir)) {
      const std::string name = item->d_name;
      if (name.size() > 4 && name.substr(name.size() - 4) == ".ptx") paths.push_back(folder + "/" + name);
    }
    closedir(dir);
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      modules_.push_back(std::make_unique<Module>(path));
      for (const std::string& kernel : modules_.back()->kernels()) by_kernel_[kernel] = modules_.back().get();
    }
  }
  Module& defining(const std::string& kernel) {
    const auto found = by_kernel_.find(kernel);
    if (found == by_kernel_.end()) throw Error("ERR_DEVICE", "ptxi: no PTX file defines " + kernel);
    return *found->second;
  }

 private:
  std::vector<std::unique_ptr<Module>> modules_;
  std::map<std::string, Module*> by_kernel_;
};

Library& library(const std::string& folder) {
  static std::map<std::string, std::unique_ptr<Library>> libraries;
  auto& slot = libraries[folder];
  if (!slot) slot = std::make_unique<Library>(folder);
  return *slot;
}

std::string symbol_of(const void* kernel) {
  Dl_info info{};
  if (!dladdr(kernel, &info) || !info.dli_sname || info.dli_saddr != kernel)
    throw Error("ERR_DEVICE", "ptxi: a kernel has no symbol: is it static, or in an anonymous namespace?");
  return info.dli_sname;
}

/// What the driver would refuse.
void check_limits(const Entry& e, const Start& s, const DeviceCaps& caps) {
  const auto demand = [&](bool holds, const std::string& what) {
    if (!holds) throw Error("ERR_DEVICE", "ptxi: launch of " + e.name + ": " + what);
  };
  const uint64_t threads = s.block.count(), most = uint64_t(e.max_threads[0]) * uint64_t(e.max_threads[1]) * uint64_t(e.max_threads[2]);
  const auto text = [](const Dim& d) { return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z); };
  demand(threads >= 1 && threads <= most && s.block.z <= 64, "a block of " + text(s.block) + " threads, where the kernel is bound to " + std::to_string(most));
  if (e.exact_threads)
    demand(s.block.x == uint32_t(e.max_threads[0]) && s.block.y == uint32_t(e.max_threads[1]) && s.block.z == uint32_t(e.max_threads[2]),
           "not the block it requires");
  demand(s.grid.count() >= 1 && s.grid.x <= 0x7fffffffu && s.grid.y <= 65535 && s.grid.z <= 65535, "a grid of " + text(s.grid));
  demand(s.shared_bytes >= 0 && s.shared_bytes + e.static_shared <= caps.shared_bytes,
         std::to_string(s.shared_bytes + e.static_shared) + " bytes of shared memory, of " + std::to_string(caps.shared_bytes));
}

}  // namespace

void launch(const cuda::Launch& l, const DeviceCaps& caps, const std::string& folder, const Options& options) {
  const std::string name = symbol_of(l.kernel);
  Module& module = library(folder + (caps.arch >= 90 ? "/90a" : "/80")).defining(name);
  const Entry& entry = *module.entry(name);
  Start s;
  s.grid = {l.grid.x, l.grid.y, l.grid.z}, s.block = {l.block.x, l.block.y, l.block.z}, s.shared_bytes = l.shared;
  check_limits(entry, s, caps);
  const auto mismatch = [&](const std::string& what) { throw Error("ERR_DEVICE", "ptxi: launch of " + name + ": " + what); };
  if (size_t(l.count) != entry.parameters.size())
    mismatch(std::to_string(l.count) + " parameters, where the PTX has " + std::to_string(entry.parameters.size()));
  s.parameters.assign(size_t(entry.parameter_bytes), 0);
  for (int k = 0; k < l.count; k++) {
    const Parameter& p = entry.parameters[size_t(k)];
    if (l.sizes[k] != p.bytes || l.alignments[k] != p.alignment)
      mismatch("parameter " + std::to_string(k) + " has " + std::to_string(l.sizes[k]) + " bytes aligned to " + std::to_string(l.alignments[k]) +
               ", in the PTX " + std::to_string(p.bytes) + " aligned to " + std::to_string(p.alignment));
    std::memcpy(s.parameters.data() + p.offset, l.params[k], size_t(p.bytes));
  }
  interpret(module, entry, s, options);
}

}  // namespace ptxi
}  // namespace attune
