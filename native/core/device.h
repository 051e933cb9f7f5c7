// The border between the addon and a device object (attune_cuda.so, or attune_simt.so in tests): memory, one stream, operations and their replay. The addon is
// compiled without CUDA and sees this page alone; an object is loaded on demand, from the same build, and hands out Devices through attune_device_object().
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attrs.h"
#include "tensor_ref.h"

namespace attune {

/// What a choice between kernels may depend on, beside shapes.
struct DeviceCaps {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int arch = 0;      // compute capability as 80, 86, 89, 90
  int multiprocessors = 0;
  int shared_bytes = 0;  // most dynamic shared memory that a block may ask for
  int64_t bytes = 0;     // device memory in all
};

/// One instruction on its way to the device. All addresses are device memory.
struct DeviceCall {
  const Attrs& attrs;
  const TensorRef* in;
  int n_in;
  const TensorRef* out;
  int n_out;
  const double* scalars = nullptr;  // the program's slots, read by kernels at run time: a replay sees this step's numbers
  int32_t* fault = nullptr;         // kernels report bad data here: see Fault
  int32_t instruction = 0;          // goes into the fault record
  void* workspace = nullptr;        // device scratch of the instruction; null in a dry call
  int64_t workspace_bytes = 0;
  bool dry = false;  // launches nothing: only asks how much workspace the instruction takes
};

/// What kernels write when data is not what the op demands; the first one wins.
struct Fault {
  int32_t kind = 0;  // 0: none; 1: an index outside its table
  int32_t instruction = 0;
  int32_t value = 0, limit = 0;
};

/// What was captured, ready to be started as one.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  virtual void launch() = 0;
};

/// Memory and one in-order stream of a device. Called from one thread at a time; everything but synchronize() may return before the device has done it.
/// Failures are Errors: ERR_DEVICE with CUDA's name for it, ERR_OUT_OF_MEMORY with bytes.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceCaps& caps() const = 0;
  /// Bytes that could be allocated now.
  virtual int64_t free_bytes() = 0;

  /// Zeroed, 256-byte aligned.
  virtual void* allocate(int64_t bytes) = 0;
  virtual void release(void* memory) = 0;
  /// Host memory that the device copies from and to without a detour.
  virtual void* pin(int64_t bytes) = 0;
  virtual void unpin(void* memory) = 0;

  virtual void upload(void* to, const void* from, int64_t bytes) = 0;  // from: pinned, or left alone until synchronize()
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  virtual void clear(void* memory, int64_t bytes) = 0;
  virtual void synchronize() = 0;

  virtual bool has(const std::string& op) const = 0;
  /// Starts an op's kernels. Returns the bytes of workspace that it takes.
  virtual int64_t run(const std::string& op, const DeviceCall& call) = 0;

  /// Records what `body` starts, without running it.
  virtual std::unique_ptr<DeviceGraph> capture(const std::function<void()>& body) = 0;

  /// Marks a point of the stream; seconds between two marks that have been passed.
  virtual void mark(size_t index) = 0;
  virtual double seconds(size_t from, size_t to) = 0;
};

/// What attune_device_object() of a device object returns.
class DeviceObject {
 public:
  virtual ~DeviceObject() = default;
  virtual std::unique_ptr<Device> open(int index) = 0;
  virtual std::vector<std::string> ops() const = 0;
};

using DeviceObjectFn = DeviceObject* (*)(int abi);
constexpr int kDeviceAbi = 1;  // both sides must agree: they are built together, but files can be mixed up
#define ATTUNE_DEVICE_OBJECT "attune_device_object"

}  // namespace attune
