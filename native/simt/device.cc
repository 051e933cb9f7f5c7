// The simt machine as a device object. Commands of the stream take effect at once; what a caller may not rely on before synchronize() is kept from it: a
// download's bytes arrive there, and memory that an upload still reads must not have changed until then. Captured commands run only when their graph is
// launched.
//
// One command at a time in the process: allocations and what the checks know of them are shared by all devices.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "../cuda/kernel.h"
#include "global_memory.h"
#include "launch.h"
#include "launch_log.h"
#include "profile.h"
#include "settings.h"

namespace attune {

namespace ptxi {
/// native/ptxi, where it is linked in: runs a kernel from its PTX (settings().ptx) instead.
__attribute__((weak)) void start(const cuda::Launch& launch, const DeviceCaps& caps);
}  // namespace ptxi

namespace simt {
namespace {

using Command = std::function<void()>;

std::recursive_mutex machine;

uint64_t hash(const void* p, int64_t bytes) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (int64_t i = 0; i < bytes; i++) h = (h ^ static_cast<const unsigned char*>(p)[i]) * 0x100000001b3ull;
  return h;
}

void require_range(const void* p, int64_t bytes, bool write, const char* what) {
  const std::string wrong = access_error(p, size_t(bytes), write);
  if (!wrong.empty()) throw Error("ERR_DEVICE", std::string("simt: ") + what + ": cudaErrorInvalidValue: " + wrong);
}

/// A launch whose parameters live as long as it does.
struct OwnedLaunch {
  cuda::Launch launch;
  std::vector<std::vector<unsigned char>> values;
  std::vector<void*> params;
  std::vector<int> sizes, alignments;
  explicit OwnedLaunch(const cuda::Launch& l) : launch(l), sizes(l.sizes, l.sizes + l.count), alignments(l.alignments, l.alignments + l.count) {
    for (int i = 0; i < l.count; i++) {
      const auto* p = static_cast<const unsigned char*>(l.params[i]);
      values.emplace_back(p, p + l.sizes[i]);
    }
    for (auto& v : values) params.push_back(v.data());
    launch.params = params.data(), launch.sizes = sizes.data(), launch.alignments = alignments.data();
  }
  OwnedLaunch(const OwnedLaunch&) = delete;
};

/// The stream: runs commands, or records them.
class Stream : public cuda::Launcher {
 public:
  Stream(const DeviceCaps& caps, const Settings& s) : Launcher(caps), log_(s.launches), runs_(s.kernels) {}

  void submit(Command command) {
    if (!runs_) return;
    if (recording_) recording_->push_back(std::move(command));
    else command();
  }
  bool recording() const { return recording_ != nullptr; }
  void record(std::vector<Command>* into) { recording_ = into; }

  void start(const cuda::Launch& l, const std::function<void()>& body) override {
    log_.add(l.kernel, l.grid, l.block, l.shared);
    if (!settings().ptx.empty()) {
      if (!ptxi::start) throw Error("ERR_CONFIG", "ATTUNE_SIMT: ptx needs an object with native/ptxi");
      auto owned = std::make_shared<OwnedLaunch>(l);
      return submit([this, owned] { ptxi::start(owned->launch, caps); });
    }
    Request request;
    request.kernel = l.kernel, request.grid = l.grid, request.threads = l.block, request.shared_bytes = l.shared, request.shared_limit = caps.shared_bytes;
    for (int i = 0; i < l.count; i++) request.parameter_bytes += l.sizes[i];
    submit([request, body] { simt::run(request, body); });
  }
  void clear(void* memory, int64_t bytes) override {
    submit([=] {
      require_range(memory, bytes, true, "clear");
      std::memset(memory, 0, size_t(bytes));
      scratch_written(memory, size_t(bytes));
    });
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    submit([=] {
      require_range(to, bytes, true, "copy"), require_range(from, bytes, false, "copy");
      std::memmove(to, from, size_t(bytes));
      scratch_written(to, size_t(bytes));
    });
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    submit([=] {
      require_range(to, bytes, true, "upload");
      std::memcpy(to, from, size_t(bytes));
      scratch_written(to, size_t(bytes));
      uploads_.push_back({from, bytes, hash(from, bytes)});
    });
  }
  void download(void* to, const void* from, int64_t bytes) {
    submit([=] {
      require_range(from, bytes, false, "download");
      const auto* p = static_cast<const unsigned char*>(from);
      downloads_.push_back({to, {p, p + bytes}});
      std::memset(to, 0xFF, size_t(bytes));  // its bytes come with synchronize()
    });
  }
  void synchronize() {
    for (const Download& d : downloads_) std::memcpy(d.to, d.bytes.data(), d.bytes.size());
    downloads_.clear();
    const std::vector<Upload> uploads = std::move(uploads_);
    uploads_.clear();
    for (const Upload& u : uploads)
      if (hash(u.from, u.bytes) != u.hash)
        throw Error("ERR_DEVICE", "simt: host memory changed between upload() and synchronize(): " + std::to_string(u.bytes) + " bytes");
  }

 private:
  struct Upload {
    const void* from;
    int64_t bytes;
    uint64_t hash;
  };
  struct Download {
    void* to;
    std::vector<unsigned char> bytes;
  };
  LaunchLog log_;
  bool runs_;
  std::vector<Command>* recording_ = nullptr;
  std::vector<Upload> uploads_;
  std::vector<Download> downloads_;
};

class Graph : public DeviceGraph {
 public:
  explicit Graph(std::vector<Command> commands) : commands_(std::move(commands)) {}
  void launch() override {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    for (const Command& command : commands_) command();
  }

 private:
  std::vector<Command> commands_;
};

class SimtDevice : public Device {
 public:
  explicit SimtDevice(const Settings& s) : stream_(caps_, s) {
    caps_.name = "simt", caps_.arch = s.arch, caps_.multiprocessors = s.multiprocessors, caps_.bytes = s.memory;
    caps_.shared_bytes = (s.arch >= 90 ? 227 : s.arch == 80 ? 163 : 99) * 1024;
    profile_ = s.options.profile;
  }
  ~SimtDevice() override {
    if (profile_) std::fputs(profile_text().c_str(), stderr);
  }
  const DeviceCaps& caps() const override { return caps_; }
  int64_t free_bytes() override { return caps_.bytes - used_; }

  void* allocate(int64_t bytes) override {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    not_while_recording("allocate");
    const auto refuse = [&] {
      Error e("ERR_MEMORY", "simt: cudaErrorMemoryAllocation: " + std::to_string(bytes) + " bytes asked for, " + std::to_string(caps_.bytes - used_) + " left");
      e.needed = bytes, e.available = caps_.bytes - used_;
      return e;
    };
    if (bytes < 0 || bytes > caps_.bytes - used_) throw refuse();
    void* p;
    try {
      p = dev_alloc(size_t(bytes), "");
    } catch (const std::bad_alloc&) { throw refuse(); }
    std::memset(p, 0, size_t(bytes));
    used_ += bytes, bytes_of_[p] = bytes;
    return p;
  }
  void release(void* memory) override {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    not_while_recording("release");
    dev_free(memory);
    if (const auto at = bytes_of_.find(memory); at != bytes_of_.end()) used_ -= at->second, bytes_of_.erase(at);
  }
  void* pin(int64_t bytes) override { return std::malloc(size_t(bytes)); }
  void unpin(void* memory) override { std::free(memory); }

  void upload(void* to, const void* from, int64_t bytes) override {
    locked([&] { stream_.upload(to, from, bytes); });
  }
  void download(void* to, const void* from, int64_t bytes) override {
    locked([&] { stream_.download(to, from, bytes); });
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    locked([&] { stream_.copy(to, from, bytes); });
  }
  void clear(void* memory, int64_t bytes) override {
    locked([&] { stream_.clear(memory, bytes); });
  }
  void synchronize() override {
    locked([&] {
      not_while_recording("synchronize");
      stream_.synchronize();
      synchronized_ = marks_;
    });
  }

  bool has(const std::string& op) const override { return cuda::find_op(op) != nullptr; }
  int64_t run(const std::string& op, const DeviceCall& c) override {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    int64_t used = 0;
    const cuda::OpFn fn = cuda::find_op(op);
    if (!fn) throw Error("ERR_PROGRAM", "no CUDA kernel for op \"" + op + "\"");
    // Scratch holds what earlier instructions left there, which none may rely on.
    void* const scratch = c.workspace;
    const size_t bytes = size_t(c.workspace_bytes);
    if (!c.dry && bytes > 0)
      stream_.submit([=] {
        require_range(scratch, int64_t(bytes), true, "workspace");
        std::memset(scratch, 0xFF, bytes);
        set_scratch(scratch, bytes);
      });
    const auto call = [&] {
      fn(cuda::OpArgs{c.attrs, c.in, c.n_in, c.out, c.n_out, c.scalars, c.fault, c.instruction, stream_, static_cast<char*>(c.workspace), c.workspace_bytes,
                      c.dry, &used});
    };
    try {
      call();
    } catch (...) {
      set_scratch(nullptr, 0);
      throw;
    }
    if (!c.dry && bytes > 0) stream_.submit([] { set_scratch(nullptr, 0); });
    return used;
  }

  std::unique_ptr<DeviceGraph> capture(const std::function<void()>& body) override {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    not_while_recording("capture");
    std::vector<Command> commands;
    stream_.record(&commands);
    try {
      body();
    } catch (...) {
      stream_.record(nullptr);
      throw;
    }
    stream_.record(nullptr);
    return std::make_unique<Graph>(std::move(commands));
  }

  void mark(size_t index) override {
    locked([&] { stream_.submit([=] { marks_[index] = Clock::now(); }); });
  }
  double seconds(size_t from, size_t to) override {
    const auto at = [&](size_t index) {
      const auto found = synchronized_.find(index);
      if (found == synchronized_.end()) throw Error("ERR_DEVICE", "simt: cudaErrorNotReady: mark " + std::to_string(index) + " was not synchronised with");
      return found->second;
    };
    return std::chrono::duration<double>(at(to) - at(from)).count();
  }

 private:
  using Clock = std::chrono::steady_clock;

  template <typename F>
  void locked(F&& body) {
    const std::lock_guard<std::recursive_mutex> lock(machine);
    body();
  }
  void not_while_recording(const char* what) const {
    if (stream_.recording()) throw Error("ERR_DEVICE", std::string("simt: cudaErrorStreamCaptureUnsupported: ") + what + "() while a graph is captured");
  }

  DeviceCaps caps_;
  Stream stream_;
  int64_t used_ = 0;
  std::map<void*, int64_t> bytes_of_;
  std::map<size_t, Clock::time_point> marks_, synchronized_;
  bool profile_;
};

class SimtObject : public DeviceObject {
 public:
  std::unique_ptr<Device> open(int index) override {
    if (index != 0) throw Error("ERR_DEVICE", "simt: expected device 0, received " + std::to_string(index));
    const Settings s = parse_settings(std::getenv("ATTUNE_SIMT"));
    use(s);
    return std::make_unique<SimtDevice>(s);
  }
  std::vector<std::string> ops() const override { return cuda::op_names(); }
};

}  // namespace
}  // namespace simt
}  // namespace attune

extern "C" __attribute__((visibility("default"))) attune::DeviceObject* attune_device_object(int abi) {
  static attune::simt::SimtObject object;
  return abi == attune::kDeviceAbi ? &object : nullptr;
}
