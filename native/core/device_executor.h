// Programs on a device: arenas in its memory, inputs and outputs through pinned staging, and a graph per program that is captured once and started per run.
#pragma once
#include <map>
#include <memory>

#include "device.h"
#include "executor.h"

namespace attune {

class DeviceExecutor : public Executor {
 public:
  explicit DeviceExecutor(std::unique_ptr<Device> device);
  ~DeviceExecutor() override;

  bool resolve(Instruction& instruction) const override { return device_->has(instruction.op); }
  int64_t workspace_of(const Program& program) override;
  void run(Program& program, const RunRequest& request, const Cancelled& cancelled, std::vector<double>* nanoseconds) override;
  void reserve(const std::string& arena, int64_t bytes) override;
  void write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) override;
  void read(const std::string& arena, int64_t offset, void* out, int64_t bytes) override;
  void load(const TensorForm& form, FileRange& file, const std::string& arena, int64_t offset, const Cancelled& cancelled) override;
  void store(const TensorForm& form, const std::string& arena, int64_t offset, char* out, const Cancelled& cancelled) override;
  int64_t workspace_bytes() const override { return workspace_bytes_.load(std::memory_order_relaxed); }
  const Device& device() const { return *device_; }

 private:
  struct Region {
    char* data = nullptr;
    int64_t bytes = 0;
  };
  /// What a program needs beside its arenas: staging for ports, scalars and the fault record, and its captured graph.
  struct Prepared;

  void grow(Region& region, int64_t bytes, bool keep);
  Prepared& prepare(Program& program);
  void bind(Program& program, Prepared& prepared);
  void enqueue(Program& program, Prepared& prepared, const RunRequest* traced, std::vector<double>* nanoseconds);
  void start(Program& program, Prepared& prepared, size_t index);
  void check(Program& program, size_t index);
  void require_good_data(const Program& program, const Prepared& prepared) const;

  std::unique_ptr<Device> device_;
  std::map<std::string, Region> arenas_;
  Region workspace_;
  std::map<const Program*, std::unique_ptr<Prepared>> prepared_;
  int64_t moves_ = 0;  // counts changes of addresses: graphs captured before hold stale ones
  ThreadPool pool_{1};
  Workspace host_workspace_;  // of conversions between files and arenas
  std::atomic<int64_t> workspace_bytes_{0};
};

}  // namespace attune
