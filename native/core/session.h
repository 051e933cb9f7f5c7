// A session: programs, arenas and one worker. Its methods are called from one thread (the JavaScript thread of its environment) and
// take effect in the order of the calls: a write after a run is seen by the next run only. Knows nothing of N-API.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "executor.h"
#include "worker.h"

namespace attune {

class Session {
 public:
  struct Options {
    int threads = 1;                          // of the cpu backend
    std::string isa_limit;                    // of the cpu backend; "" = the machine's best
    int64_t memory_limit = int64_t(1) << 46;  // bytes of arenas and known workspace together; on a device what is free there is a limit too
    std::string backend = "cpu";              // or the name of a device object: "cuda", "simt"
    int device = 0;                           // which of the object's devices
  };
  struct Memory {
    std::map<std::string, int64_t> arenas;
    int64_t workspace = 0, limit = 0;
  };
  struct Trace {
    int64_t runs = 0;
    std::vector<double> nanoseconds;  // per instruction, summed over runs
  };
  /// Called on the worker when a request is over; nullptr: it succeeded.
  using Done = std::function<void(const Error*)>;

  /// Throws ERR_CONFIG, ERR_DEVICE, ERR_CAPABILITY, ERR_DRIVER.
  explicit Session(const Options& options);
  /// Cancels what runs, then waits for it; every outstanding Done is called.
  ~Session();

  /// Checks a program and grows the arenas to what it needs. Throws ERR_PROGRAM, ERR_MEMORY. Returns its index.
  int compile(Program program);
  const Program& program(int index) const;

  /// Runs a program. `request` carries addresses that stay valid until `done`; its mode is set here. Setting *cancelled ends the run with ERR_ABORTED.
  void run(int index, RunRequest request, std::shared_ptr<std::atomic<bool>> cancelled, Done done);

  /// Throws ERR_PROGRAM unless [offset, offset + bytes) lies in that persistent arena; `what` begins the message.
  void require_range(const char* what, const std::string& arena, int64_t offset, int64_t bytes) const;
  /// Throws ERR_PROGRAM unless a tensor of that form lies in the arena, at a whole element.
  void require_tensor(const char* what, const std::string& arena, int64_t offset, const TensorForm& form) const;
  /// Copies bytes into a persistent arena: at once if the worker is idle, else by way of a copy. Throws ERR_PROGRAM if they do not fit.
  void write(const std::string& arena, int64_t offset, const void* data, int64_t bytes);
  /// Reads a tensor of a file into a persistent arena, on the worker. Setting *cancelled ends it with ERR_ABORTED; ERR_DATA if the file does not give it
  /// all. Either leaves what was read by then. Throws ERR_PROGRAM if it does not fit.
  void load(const std::string& arena, int64_t offset, const TensorForm& form, std::shared_ptr<FileRange> file, std::shared_ptr<std::atomic<bool>> cancelled,
            Done done);
  /// Brings a tensor of a persistent arena into its outside form, on the worker; `out` stays valid until `done`.
  void store(const std::string& arena, int64_t offset, const TensorForm& form, void* out, Done done);
  /// Copies bytes out of a persistent arena; `out` stays valid until `done`.
  void read(const std::string& arena, int64_t offset, int64_t bytes, void* out, Done done);

  Memory memory() const;
  /// Sets the mode of later runs of a program; returns what runs in mode `time` measured since the last call.
  Trace trace(int index, TraceMode mode);

  /// Cancels what is queued and calls `done` when nothing runs any more and the arenas are free.
  void close(std::function<void()> done);

 private:
  struct Compiled {
    Program program;
    TraceMode mode = TraceMode::off;
    std::mutex mutex;  // of measured: the worker adds, trace() takes
    Trace measured;
  };
  Compiled& compiled(int index) const;
  void reserve(const Program& program, int64_t workspace);
  /// Starts `work` on the worker, when the arena has grown to what is reserved.
  void on_arena(const std::string& arena, Done done, std::function<void()> work);
  void run_on_worker(Compiled& compiled, const RunRequest& request, const std::atomic<bool>& cancelled, const Done& done);

  Options options_;
  std::map<std::string, int64_t> reserved_;  // arena sizes as the calling thread sees them: all requests so far done
  int64_t workspace_ = 0;                    // the largest that a program is known to take
  std::vector<std::unique_ptr<Compiled>> programs_;
  std::atomic<bool> closing_{false};
  std::unique_ptr<Executor> executor_;  // touched by the worker alone while it is busy
  Worker worker_;                       // last: it stops before the rest goes
};

}  // namespace attune
