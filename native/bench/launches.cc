// What the device kernels of a step would be: launches <attune_simt.so> <step.json> [--arch 80|86|89|90] asks the ops of a step (`npm run export-step`) to
// start their kernels on a host machine with a GPU's 132 multiprocessors that runs none of them, and prints one JSON object for each distinct instruction:
// where it stands first, how often it occurs, and its launches. No memory is touched, so steps of any size take seconds. bench/floors.ts makes a table of it.
#include <cxxabi.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "../core/device.h"
#include "program_file.h"

namespace attune {
namespace bench {
namespace {

std::string demangled(const std::string& symbol) {
  int status = 0;
  char* text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : symbol;
  std::free(text);
  for (const std::string part : {"void ", "attune::cuda::"})
    for (size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  int depth = 0;  // the parameter list is what the last ')' closes
  for (size_t i = name.size(); i-- > 0;) {
    depth += name[i] == ')' ? 1 : name[i] == '(' ? -1 : 0;
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

/// Instructions that are cut alike: op, attributes but for slots and seeds that differ, dtypes and shapes.
std::string kind_of(const Program& p, const Instruction& in) {
  std::string kind = in.op;
  const auto add = [&](const std::vector<int64_t>& ids) {
    for (const int64_t id : ids) {
      kind += " |";
      if (id < 0) continue;
      const TensorRef& t = p.tensors[size_t(id)].ref;
      kind += dtype_name(t.dtype);
      for (int i = 0; i < t.rank; i++) kind += " " + std::to_string(t.dims[i]);
    }
  };
  add(in.inputs), add(in.outputs);
  for (const char* key : {"stride", "heads", "activation", "upsample", "silu", "groups", "kernelHeight"}) {
    if (!in.attrs.has(key)) continue;
    kind += std::string(" ") + key + " ";
    if (std::string(key) == "activation") kind += in.attrs.text(key);
    else if (std::string(key) == "silu") kind += in.attrs.flag(key) ? "1" : "0";
    else kind += std::to_string(in.attrs.number(key));
  }
  return kind;
}

struct Log {
  char path[32] = "/tmp/attune-launches-XXXXXX";
  Log() {
    const int file = mkstemp(path);
    if (file < 0) throw std::runtime_error("no temporary file");
    close(file);
  }
  ~Log() { unlink(path); }
  /// Lines of what was started since the last call.
  std::string take() {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    if (truncate(path, 0) != 0) throw std::runtime_error("the log cannot be emptied");
    return text.str();
  }
};

/// Addresses that no kernel will follow: 1 GiB and more apart, as aligned as the executor's tensors are.
void* somewhere(int64_t id) { return reinterpret_cast<void*>((uint64_t(1) << 44) + (uint64_t(id) << 36)); }

void start(Device& device, const Program& p, const Instruction& in) {
  std::vector<TensorRef> tensors;
  for (const auto* ids : {&in.inputs, &in.outputs})
    for (const int64_t id : *ids) {
      tensors.push_back(id < 0 ? TensorRef{} : p.tensors[size_t(id)].ref);
      if (id >= 0) tensors.back().data = somewhere(int64_t(tensors.size()));
    }
  DeviceCall call{in.attrs, tensors.data(), int(in.inputs.size()), tensors.data() + in.inputs.size(), int(in.outputs.size())};
  call.scalars = static_cast<double*>(somewhere(200)), call.fault = static_cast<int32_t*>(somewhere(201));
  call.dry = true;
  call.workspace_bytes = device.run(in.op, call);
  call.dry = false, call.workspace = somewhere(202);
  device.run(in.op, call);
}

void print(const std::string& log, size_t program, size_t index, const Instruction& in, int64_t count) {
  std::printf("{\"program\":%zu,\"instruction\":%zu,\"op\":\"%s\",\"count\":%lld,\"launches\":[", program, index, in.op.c_str(), static_cast<long long>(count));
  std::stringstream lines(log);
  std::string symbol;
  int64_t threads, shared, x, y, z, times;
  for (bool first = true; lines >> symbol >> threads >> shared >> x >> y >> z >> times; first = false)
    std::printf("%s{\"kernel\":\"%s\",\"threads\":%lld,\"shared\":%lld,\"blocks\":%lld,\"times\":%lld}", first ? "" : ",", demangled(symbol).c_str(),
                static_cast<long long>(threads), static_cast<long long>(shared), static_cast<long long>(x * y * z), static_cast<long long>(times));
  std::printf("]}\n");
}

int main(int argc, char** argv) {
  std::vector<std::string> paths;
  std::string arch = "90";
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--arch" && i + 1 < argc) arch = argv[++i];
    else paths.push_back(arg);
  }
  if (paths.size() != 2) return std::fprintf(stderr, "usage: launches <attune_simt.so> <step.json> [--arch 80|86|89|90]\n"), 2;
  void* handle = dlopen(paths[0].c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw std::runtime_error(dlerror());
  const auto entry = reinterpret_cast<DeviceObjectFn>(dlsym(handle, ATTUNE_DEVICE_OBJECT));
  DeviceObject* object = entry ? entry(kDeviceAbi) : nullptr;
  if (!object) throw std::runtime_error(paths[0] + " is no device object of this build");
  Log log;
  setenv("ATTUNE_SIMT", ("arch=" + arch + ",multiprocessors=132,kernels=off,launches=" + log.path).c_str(), 1);
  const std::vector<Program> programs = read_programs(paths[1]);
  for (size_t k = 0; k < programs.size(); k++) {
    const Program& p = programs[k];
    std::map<std::string, std::pair<size_t, int64_t>> kinds;  // first of its kind, and how many
    for (size_t i = 0; i < p.instructions.size(); i++) kinds.insert({kind_of(p, p.instructions[i]), {i, 0}}).first->second.second++;
    for (const auto& [kind, place] : kinds) {
      const Instruction& in = p.instructions[place.first];
      {
        const std::unique_ptr<Device> device = object->open(0);  // its log is written when it is closed
        start(*device, p, in);
      }
      print(log.take(), k, place.first, in, place.second);
    }
  }
  return 0;
}

}  // namespace
}  // namespace bench
}  // namespace attune

int main(int argc, char** argv) {
  try {
    return attune::bench::main(argc, argv);
  } catch (const std::exception& e) { return std::fprintf(stderr, "launches: %s\n", e.what()), 1; }
}
