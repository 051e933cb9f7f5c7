// Runs checked programs, one at a time and in order, on the thread that calls it, and owns the memory they live in. One kind for the host's memory
// (cpu_executor.h), one for a device's (device_executor.h); a session has either.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

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

using Cancelled = std::function<bool()>;

class Executor {
 public:
  virtual ~Executor() = default;

  /// Finds an instruction's kernel and sets what runs it; false: this backend has none.
  virtual bool resolve(Instruction& instruction) const = 0;
  /// Bytes of kernel workspace that a checked program takes, where that is known before it runs; else 0.
  virtual int64_t workspace_of(const Program& program) = 0;

  /// Runs every instruction. Throws ERR_ABORTED, ERR_NONFINITE (mode check), or what a kernel throws with op and label added.
  /// In mode time, nanoseconds holds one duration per instruction afterwards.
  virtual void run(Program& program, const RunRequest& request, const Cancelled& cancelled, std::vector<double>* nanoseconds) = 0;

  /// Makes an arena hold at least `bytes`; what is added is zero, what was there stays ("scratch" has nothing to keep). Throws ERR_MEMORY, ERR_OUT_OF_MEMORY.
  virtual void reserve(const std::string& arena, int64_t bytes) = 0;
  /// Bytes into and out of an arena that was reserved.
  virtual void write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) = 0;
  virtual void read(const std::string& arena, int64_t offset, void* out, int64_t bytes) = 0;
  /// A tensor of a file into an arena, and one of an arena into its outside form. Throw ERR_DATA, ERR_ABORTED.
  virtual void load(const TensorForm& form, FileRange& file, const std::string& arena, int64_t offset, const Cancelled& cancelled) = 0;
  virtual void store(const TensorForm& form, const std::string& arena, int64_t offset, char* out, const Cancelled& cancelled) = 0;

  /// Bytes of kernel workspace that exist; may be read from any thread.
  virtual int64_t workspace_bytes() const = 0;
};

}  // namespace attune
