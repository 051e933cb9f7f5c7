// Runs checked programs, one at a time and in order, on the thread that calls it. It owns what a program needs beside itself: arenas, thread pool, workspace.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "arena.h"
#include "program.h"
#include "transfer.h"

namespace attune {

enum class TraceMode { off, time, check };

/// What one run reads and writes besides the arenas. The memory belongs to the caller and stays valid until the run is over.
struct RunRequest {
  std::vector<const void*> inputs;  // one per input port, as many bytes as its tensor
  std::vector<void*> outputs;       // one per output port
  std::vector<double> scalars;      // one per slot
  TraceMode mode = TraceMode::off;
};

class Executor {
 public:
  explicit Executor(int threads) : pool_(threads) {}

  /// Runs every instruction. `cancelled` is asked before each. Throws ERR_ABORTED, ERR_NONFINITE (mode check), or what a kernel throws with op and label added.
  /// In mode time, nanoseconds holds one duration per instruction afterwards.
  void run(Program& program, const RunRequest& request, const std::function<bool()>& cancelled, std::vector<double>* nanoseconds);

  /// The first byte of an arena that holds at least `bytes`; it grows if it must. Throws ERR_MEMORY.
  char* arena(const std::string& name, int64_t bytes);
  /// Moves tensors in and out of arenas with this executor's threads and workspace, which memory() then counts.
  Transfer transfer(const TensorForm& form, const std::string& isa_limit);
  /// Bytes of kernel scratch memory; may be read from any thread.
  int64_t workspace_bytes() const { return workspace_bytes_.load(std::memory_order_relaxed); }
  int threads() const { return pool_.size(); }

 private:
  void bind(Program& program);
  void copy_inputs(Program& program, const RunRequest& request);
  void copy_outputs(Program& program, const RunRequest& request);
  void execute(Instruction& instruction, const RunRequest& request);

  Arenas arenas_;
  ThreadPool pool_;
  Workspace workspace_;
  std::atomic<int64_t> workspace_bytes_{0};
};

}  // namespace attune
