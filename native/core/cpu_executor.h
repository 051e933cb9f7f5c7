// Programs on the host: arenas of pages, kernels of the best instruction set, a thread pool.
#pragma once
#include "arena.h"
#include "executor.h"

namespace attune {

class CpuExecutor : public Executor {
 public:
  /// Throws ERR_CONFIG for an unknown instruction set; "" sets no limit.
  CpuExecutor(int threads, std::string isa_limit);

  bool resolve(Instruction& instruction) const override;
  int64_t workspace_of(const Program&) override { return 0; }  // it grows to the largest request of a kernel
  void run(Program& program, const RunRequest& request, const Cancelled& cancelled, std::vector<double>* nanoseconds) override;
  void reserve(const std::string& arena, int64_t bytes) override { arenas_[arena].grow(bytes); }
  void write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) override;
  void read(const std::string& arena, int64_t offset, void* out, int64_t bytes) override;
  void load(const TensorForm& form, FileRange& file, const std::string& arena, int64_t offset, const Cancelled& cancelled) override;
  void store(const TensorForm& form, const std::string& arena, int64_t offset, char* out, const Cancelled& cancelled) override;
  int64_t workspace_bytes() const override { return workspace_bytes_.load(std::memory_order_relaxed); }

 private:
  void bind(Program& program);
  void copy_inputs(Program& program, const RunRequest& request);
  void copy_outputs(Program& program, const RunRequest& request);
  void execute(Instruction& instruction, const RunRequest& request);
  Transfer transfer(const TensorForm& form);

  const std::string isa_limit_;
  Arenas arenas_;
  ThreadPool pool_;
  Workspace workspace_;
  std::atomic<int64_t> workspace_bytes_{0};
};

}  // namespace attune
