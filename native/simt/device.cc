// The simt machine as a device object: kernels run as fibers on this thread, memory is the host's. ATTUNE_SIMT chooses how:
// "arch=90,order=random,seed=7,copies=early".
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "../cuda/kernel.h"

namespace attune {
namespace {

struct Settings {
  int arch = 80;
  Settings() {
    const char* text = std::getenv("ATTUNE_SIMT");
    std::stringstream items(text ? text : "");
    for (std::string item; std::getline(items, item, ',');) {
      const size_t at = item.find('=');
      const std::string key = item.substr(0, at), value = at == std::string::npos ? "" : item.substr(at + 1);
      if (key == "arch") arch = std::atoi(value.c_str());
      else if (key == "seed") simt::opt.seed = std::strtoull(value.c_str(), nullptr, 10);
      else if (key == "order") simt::opt.order = value == "random" ? simt::Order::Random : value == "reverse" ? simt::Order::Reverse : simt::Order::RoundRobin;
      else if (key == "copies") simt::opt.async_copy = value == "random" ? simt::Async::Random : value == "early" ? simt::Async::Early : simt::Async::Late;
      else throw Error("ERR_CONFIG", "ATTUNE_SIMT: expected arch, seed, order or copies, received \"" + key + "\"");
    }
    simt::opt.shuffle_blocks = simt::opt.order == simt::Order::Random;
  }
};

class SimtLauncher : public cuda::Launcher {
 public:
  using Launcher::Launcher;
  void start(const cuda::Launch& l, const std::function<void()>& body) override {
    const auto errors = simt::stats.errors;
    simt::run(l.grid, l.block, size_t(l.shared), body, "kernel");
    if (simt::stats.errors != errors) throw Error("ERR_DEVICE", "the simt machine found an error in a kernel");
  }
  void clear(void* memory, int64_t bytes) override { std::memset(memory, 0, size_t(bytes)); }
  void copy(void* to, const void* from, int64_t bytes) override { std::memmove(to, from, size_t(bytes)); }
  void upload(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, size_t(bytes)); }
};

class SimtGraph : public DeviceGraph {
 public:
  explicit SimtGraph(std::function<void()> body) : body_(std::move(body)) {}
  void launch() override { body_(); }

 private:
  std::function<void()> body_;
};

class SimtDevice : public Device {
 public:
  explicit SimtDevice(int arch) : launcher_(caps_) {
    caps_.name = "simt", caps_.arch = arch, caps_.multiprocessors = 4, caps_.shared_bytes = (arch >= 90 ? 227 : arch == 80 ? 163 : 99) * 1024;
    caps_.bytes = int64_t(1) << 40;
  }
  const DeviceCaps& caps() const override { return caps_; }
  int64_t free_bytes() override { return caps_.bytes; }
  void* allocate(int64_t bytes) override {
    void* p = simt::dev_alloc(size_t(bytes), "allocation");
    std::memset(p, 0, size_t(bytes));
    return p;
  }
  void release(void* memory) override { simt::dev_free(memory); }
  void* pin(int64_t bytes) override { return std::malloc(size_t(bytes)); }
  void unpin(void* memory) override { std::free(memory); }
  void upload(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, size_t(bytes)); }
  void download(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, size_t(bytes)); }
  void copy(void* to, const void* from, int64_t bytes) override { std::memmove(to, from, size_t(bytes)); }
  void clear(void* memory, int64_t bytes) override { std::memset(memory, 0, size_t(bytes)); }
  void synchronize() override {}
  bool has(const std::string& op) const override { return cuda::find_op(op) != nullptr; }
  int64_t run(const std::string& op, const DeviceCall& c) override {
    int64_t used = 0;
    const cuda::OpFn fn = cuda::find_op(op);
    if (!fn) throw Error("ERR_PROGRAM", "no CUDA kernel for op \"" + op + "\"");
    fn(cuda::OpArgs{c.attrs, c.in, c.n_in, c.out, c.n_out, c.scalars, c.fault, c.instruction, launcher_, static_cast<char*>(c.workspace), c.workspace_bytes,
                    c.dry, &used});
    return used;
  }
  std::unique_ptr<DeviceGraph> capture(const std::function<void()>& body) override { return std::make_unique<SimtGraph>(body); }
  void mark(size_t) override {}
  double seconds(size_t, size_t) override { return 0; }

 private:
  DeviceCaps caps_;
  SimtLauncher launcher_;
};

class SimtObject : public DeviceObject {
 public:
  std::unique_ptr<Device> open(int) override { return std::make_unique<SimtDevice>(settings_.arch); }
  std::vector<std::string> ops() const override { return cuda::op_names(); }

 private:
  Settings settings_;
};

}  // namespace
}  // namespace attune

extern "C" __attribute__((visibility("default"))) attune::DeviceObject* attune_device_object(int abi) {
  static attune::SimtObject object;
  return abi == attune::kDeviceAbi ? &object : nullptr;
}
