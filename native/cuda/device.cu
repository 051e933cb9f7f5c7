// A CUDA GPU as a Device: the runtime API behind core/device.h. One stream a device; launches, copies and graphs go there in order.
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "kernel.h"
#include "probe.h"

namespace attune {
namespace cuda {
namespace {

constexpr int kOldest = 80;  // sm_80: cp.async and bf16 tensor cores

[[noreturn]] void fail(cudaError_t status, const std::string& what) {
  cudaGetLastError();  // a failure that is not sticky must not be seen again by the next call
  Error e("ERR_DEVICE", what + ": " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status));
  e.cuda = cudaGetErrorName(status);
  throw e;
}

void require(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(status, what);
}

std::string version(int n) { return std::to_string(n / 1000) + "." + std::to_string(n % 1000 / 10); }

const char* name_of(const void* kernel) {
  const char* name = nullptr;
  return cudaFuncGetName(&name, kernel) == cudaSuccess && name ? name : "a kernel";
}

std::string text(dim3 d) { return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z); }

/// Host memory that must outlive a captured graph: attributes that ops upload, copied once to pinned memory and kept.
class Constants {
 public:
  ~Constants() {
    for (auto& [key, memory] : kept_) cudaFreeHost(memory);
  }
  const void* keep(const void* from, int64_t bytes) {
    void*& memory = kept_[{from, bytes}];
    if (!memory) require(cudaMallocHost(&memory, size_t(bytes)), "pinned memory for constants");
    std::memcpy(memory, from, size_t(bytes));
    return memory;
  }

 private:
  std::map<std::pair<const void*, int64_t>, void*> kept_;
};

class CudaLauncher : public Launcher {
 public:
  CudaLauncher(const DeviceCaps& caps, cudaStream_t stream, Constants& constants) : Launcher(caps), stream_(stream), constants_(constants) {}

  void start(const Launch& l) override {
    if (l.shared > 48 * 1024) allow_shared(l);
    const cudaError_t status = cudaLaunchKernel(l.kernel, l.grid, l.block, const_cast<void**>(l.params), size_t(l.shared), stream_);
    if (status != cudaSuccess)
      fail(status, std::string(name_of(l.kernel)) + ", grid " + text(l.grid) + ", block " + text(l.block) + ", " + std::to_string(l.shared) +
                       " bytes of shared memory");
  }
  void clear(void* memory, int64_t bytes) override {
    if (bytes > 0) require(cudaMemsetAsync(memory, 0, size_t(bytes), stream_), "clearing memory");
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0) require(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToDevice, stream_), "a copy on the device");
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0) require(cudaMemcpyAsync(to, constants_.keep(from, bytes), size_t(bytes), cudaMemcpyHostToDevice, stream_), "an upload of constants");
  }

 private:
  /// More than 48 KiB of shared memory is asked for per kernel, once.
  void allow_shared(const Launch& l) {
    int& allowed = allowed_[l.kernel];
    if (l.shared <= allowed) return;
    const cudaError_t status = cudaFuncSetAttribute(l.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared);
    if (status != cudaSuccess) fail(status, std::string(name_of(l.kernel)) + ", " + std::to_string(l.shared) + " bytes of shared memory");
    allowed = l.shared;
  }

  const cudaStream_t stream_;
  Constants& constants_;
  std::map<const void*, int> allowed_;
};

class CudaGraph : public DeviceGraph {
 public:
  CudaGraph(int device, cudaGraph_t graph, cudaStream_t stream) : device_(device), stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    require(status, "instantiating a program's graph");
    require(cudaGraphUpload(executable_, stream_), "uploading a program's graph");
  }
  ~CudaGraph() override {
    cudaSetDevice(device_);
    cudaGraphExecDestroy(executable_);
  }
  void launch() override { require(cudaGraphLaunch(executable_, stream_), "starting a program's graph"); }

 private:
  const int device_;
  const cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

DeviceCaps caps_of(int index) {
  cudaDeviceProp p;
  require(cudaGetDeviceProperties(&p, index), "reading the device's properties");
  DeviceCaps caps;
  caps.name = p.name, caps.arch = p.major * 10 + p.minor, caps.multiprocessors = p.multiProcessorCount;
  caps.shared_bytes = int(p.sharedMemPerBlockOptin), caps.bytes = int64_t(p.totalGlobalMem);
  return caps;
}

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int index) : index_(index), caps_(caps_of(index)) {
    if (caps_.arch < kOldest) {
      throw Error("ERR_CAPABILITY", caps_.name + " has compute capability " + std::to_string(caps_.arch / 10) + "." + std::to_string(caps_.arch % 10) +
                                        ", attune's kernels need 8.0 (Ampere) or later");
    }
    here();
    cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync);  // a waiting worker must not spin; refused, without harm, where the process has chosen already
    cudaGetLastError();
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    launcher_ = std::make_unique<CudaLauncher>(caps_, stream_, constants_);
  }
  ~CudaDevice() override {
    here();
    for (const cudaEvent_t e : marks_) cudaEventDestroy(e);
    if (stream_) cudaStreamDestroy(stream_);
  }

  const DeviceCaps& caps() const override { return caps_; }

  int64_t free_bytes() override {
    here();
    size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total), "asking for free memory");
    return int64_t(free);
  }

  void* allocate(int64_t bytes) override {
    here();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, size_t(std::max<int64_t>(bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      Error e("ERR_OUT_OF_MEMORY", caps_.name + ": " + std::to_string(bytes) + " bytes were asked for, " + std::to_string(free_bytes()) + " are free");
      e.needed = bytes, e.available = free_bytes(), e.cuda = "cudaErrorMemoryAllocation";
      throw e;
    }
    require(status, "allocating memory");
    require(cudaMemsetAsync(memory, 0, size_t(std::max<int64_t>(bytes, 1)), stream_), "clearing memory");
    return memory;
  }
  void release(void* memory) override {
    here();
    if (memory) cudaFree(memory);
  }
  void* pin(int64_t bytes) override {
    here();
    void* memory = nullptr;
    require(cudaMallocHost(&memory, size_t(std::max<int64_t>(bytes, 1))), "pinned memory");
    return memory;
  }
  void unpin(void* memory) override {
    here();
    if (memory) cudaFreeHost(memory);
  }

  void upload(void* to, const void* from, int64_t bytes) override { move(to, from, bytes, cudaMemcpyHostToDevice, "a copy to the device"); }
  void download(void* to, const void* from, int64_t bytes) override { move(to, from, bytes, cudaMemcpyDeviceToHost, "a copy from the device"); }
  void copy(void* to, const void* from, int64_t bytes) override { move(to, from, bytes, cudaMemcpyDeviceToDevice, "a copy on the device"); }
  void clear(void* memory, int64_t bytes) override {
    here();
    launcher_->clear(memory, bytes);
  }
  void synchronize() override {
    here();
    require(cudaStreamSynchronize(stream_), "running a program (ATTUNE_CUDA_SYNC=1 names the instruction)");
  }

  bool has(const std::string& op) const override { return find_op(op) != nullptr; }
  int64_t run(const std::string& op, const DeviceCall& c) override {
    const OpFn fn = find_op(op);
    if (!fn) throw Error("ERR_PROGRAM", "no CUDA kernel for op \"" + op + "\"");
    if (!c.dry) here();
    int64_t used = 0;
    fn(OpArgs{c.attrs, c.in, c.n_in, c.out, c.n_out, c.scalars, c.fault, c.instruction, *launcher_, static_cast<char*>(c.workspace), c.workspace_bytes, c.dry,
              &used});
    return used;
  }

  std::unique_ptr<DeviceGraph> capture(const std::function<void()>& body) override {
    here();
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a program");
    cudaGraph_t graph = nullptr;
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    require(cudaStreamEndCapture(stream_, &graph), "capturing a program");
    return std::make_unique<CudaGraph>(index_, graph, stream_);
  }

  void mark(size_t index) override {
    here();
    while (marks_.size() <= index) {
      marks_.push_back(nullptr);
      require(cudaEventCreate(&marks_.back()), "creating an event");
    }
    require(cudaEventRecord(marks_[index], stream_), "recording an event");
  }
  double seconds(size_t from, size_t to) override {
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, marks_.at(from), marks_.at(to)), "reading an event");
    return double(milliseconds) * 1e-3;
  }

 private:
  /// The current device belongs to a thread, and calls come from more than one.
  void here() const { require(cudaSetDevice(index_), "choosing the device"); }
  void move(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind, const char* what) {
    here();
    if (bytes > 0) require(cudaMemcpyAsync(to, from, size_t(bytes), kind, stream_), what);
  }

  const int index_;
  const DeviceCaps caps_;
  Constants constants_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaLauncher> launcher_;
  std::vector<cudaEvent_t> marks_;
};

class CudaObject : public DeviceObject {
 public:
  std::unique_ptr<Device> open(int index) override {
    int driver = 0, runtime = 0, count = 0;
    require(cudaRuntimeGetVersion(&runtime), "reading the runtime's version");
    require(cudaDriverGetVersion(&driver), "reading the driver's version");
    if (driver == 0) throw Error("ERR_DEVICE", "no NVIDIA driver was found");
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaErrorInsufficientDriver || status == cudaErrorSystemDriverMismatch) {
      cudaGetLastError();
      Error e("ERR_DRIVER",
              "the NVIDIA driver serves CUDA " + version(driver) + ", attune was built with CUDA " + version(runtime) + "; a newer driver is needed");
      e.cuda = cudaGetErrorName(status);
      throw e;
    }
    if (status != cudaErrorNoDevice) require(status, "counting devices");
    if (index >= count)
      throw Error("ERR_DEVICE",
                  count == 0 ? "there is no CUDA device" : "there is no CUDA device " + std::to_string(index) + ", only " + std::to_string(count));
    return std::make_unique<CudaDevice>(index);
  }
  std::vector<std::string> ops() const override { return op_names(); }
};

}  // namespace
}  // namespace cuda
}  // namespace attune

extern "C" __attribute__((visibility("default"))) attune::DeviceObject* attune_device_object(int abi) {
  static attune::cuda::CudaObject object;
  return abi == attune::kDeviceAbi ? &object : nullptr;
}
