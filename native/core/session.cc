#include "session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu_executor.h"
#include "device_executor.h"
#include "device_object.h"

namespace attune {

namespace {

int64_t total(const std::map<std::string, int64_t>& sizes) {
  int64_t sum = 0;
  for (const auto& [name, bytes] : sizes) sum += bytes;
  return sum;
}

/// What `body` throws, as an Error; nothing if it does not.
template <typename Body>
void settle(const Session::Done& done, Body&& body) {
  try {
    body();
  } catch (const Error& e) { return done(&e); } catch (const std::bad_alloc&) {
    const Error e("ERR_MEMORY", "the system refused memory");
    return done(&e);
  } catch (const std::exception& e) {
    const Error error("ERR_DEVICE", e.what());
    return done(&error);
  }
  done(nullptr);
}

}  // namespace

Session::Session(const Options& options) : options_(options) {
  if (options.backend == "cpu") {
    executor_ = std::make_unique<CpuExecutor>(options.threads, options.isa_limit);
    return;
  }
  std::unique_ptr<Device> device = open_device(options.backend, options.device);
  options_.memory_limit = std::min(options_.memory_limit, device->free_bytes());
  executor_ = std::make_unique<DeviceExecutor>(std::move(device));
}

Session::~Session() { closing_.store(true); }

int Session::compile(Program program) {
  check_program(program, options_.backend, [this](Instruction& in) { return executor_->resolve(in); });
  reserve(program, executor_->workspace_of(program));
  programs_.push_back(std::make_unique<Compiled>());
  programs_.back()->program = std::move(program);
  return int(programs_.size()) - 1;
}

void Session::reserve(const Program& program, int64_t workspace) {
  auto sizes = reserved_;
  for (const ArenaSpec& a : program.arenas) sizes[a.name] = std::max(sizes[a.name], a.bytes);
  workspace = std::max(workspace, workspace_);
  if (const int64_t needed = total(sizes) + workspace; needed > options_.memory_limit) {
    Error e("ERR_MEMORY", "program \"" + program.name + "\": the session's arenas would take " + std::to_string(needed) + " bytes" +
                              (workspace ? " with " + std::to_string(workspace) + " of kernel workspace" : "") + ", the limit is " +
                              std::to_string(options_.memory_limit));
    e.needed = needed, e.available = options_.memory_limit;
    throw e;
  }
  if (worker_.idle())  // refused memory is then reported here; a busy session grows its arenas when they are used
    for (const auto& [name, bytes] : sizes) executor_->reserve(name, bytes);
  reserved_ = std::move(sizes);
  workspace_ = workspace;
}

Session::Compiled& Session::compiled(int index) const {
  if (index < 0 || index >= int(programs_.size()))
    throw Error("ERR_PROGRAM", "expected a program in [0, " + std::to_string(programs_.size()) + "), received " + std::to_string(index));
  return *programs_[size_t(index)];
}

const Program& Session::program(int index) const { return compiled(index).program; }

void Session::run(int index, RunRequest request, std::shared_ptr<std::atomic<bool>> cancelled, Done done) {
  Compiled& c = compiled(index);
  request.mode = c.mode;
  worker_.post(
      [this, &c, request = std::move(request), cancelled = std::move(cancelled), done = std::move(done)] { run_on_worker(c, request, *cancelled, done); });
}

void Session::run_on_worker(Compiled& c, const RunRequest& request, const std::atomic<bool>& cancelled, const Done& done) {
  settle(done, [&] {
    const auto stop = [&] { return cancelled.load(std::memory_order_relaxed) || closing_.load(std::memory_order_relaxed); };
    std::vector<double> nanoseconds;
    executor_->run(c.program, request, stop, &nanoseconds);
    if (request.mode != TraceMode::time) return;
    std::lock_guard<std::mutex> lock(c.mutex);
    c.measured.runs++;
    c.measured.nanoseconds.resize(nanoseconds.size());
    for (size_t i = 0; i < nanoseconds.size(); i++) c.measured.nanoseconds[i] += nanoseconds[i];
  });
}

void Session::require_range(const char* what, const std::string& arena, int64_t offset, int64_t bytes) const {
  const auto found = reserved_.find(arena);
  const std::string subject = std::string(what) + " of arena \"" + arena + "\": ";
  if (arena == "scratch" || found == reserved_.end()) throw Error("ERR_PROGRAM", subject + "expected a persistent arena of a compiled program");
  if (offset < 0 || bytes < 0 || offset > found->second || bytes > found->second - offset)
    throw Error("ERR_PROGRAM", subject + "expected a range in its " + std::to_string(found->second) + " bytes, received " + std::to_string(bytes) +
                                   " bytes at offset " + std::to_string(offset));
}

void Session::require_tensor(const char* what, const std::string& arena, int64_t offset, const TensorForm& form) const {
  require_range(what, arena, offset, form.inside_bytes());
  if (const int64_t width = int64_t(dtype_size(form.inside)); offset % width != 0)
    throw Error("ERR_PROGRAM", std::string(what) + " of arena \"" + arena + "\": expected an offset that is a multiple of " + std::to_string(width) +
                                   ", received " + std::to_string(offset));
}

void Session::write(const std::string& arena, int64_t offset, const void* data, int64_t bytes) {
  require_range("write", arena, offset, bytes);
  if (bytes == 0) return;
  const int64_t size = reserved_[arena];
  if (worker_.idle()) {
    executor_->reserve(arena, size);
    executor_->write(arena, offset, data, bytes);
    return;
  }
  const char* from = static_cast<const char*>(data);
  worker_.post([this, arena, offset, size, copy = std::make_shared<std::vector<char>>(from, from + bytes)] {
    try {
      executor_->reserve(arena, size);
      executor_->write(arena, offset, copy->data(), int64_t(copy->size()));
    } catch (const Error&) {
      // The system refused what a program reserved, or the device is lost: the next program to run says so.
    }
  });
}

void Session::read(const std::string& arena, int64_t offset, int64_t bytes, void* out, Done done) {
  require_range("read", arena, offset, bytes);
  on_arena(arena, std::move(done), [this, arena, offset, bytes, out] {
    if (bytes > 0) executor_->read(arena, offset, out, bytes);
  });
}

void Session::load(const std::string& arena, int64_t offset, const TensorForm& form, std::shared_ptr<FileRange> file,
                   std::shared_ptr<std::atomic<bool>> cancelled, Done done) {
  require_tensor("load", arena, offset, form);
  on_arena(arena, std::move(done), [this, arena, offset, form, file = std::move(file), cancelled = std::move(cancelled)] {
    const auto stop = [&] { return cancelled->load(std::memory_order_relaxed) || closing_.load(std::memory_order_relaxed); };
    executor_->load(form, *file, arena, offset, stop);
  });
}

void Session::store(const std::string& arena, int64_t offset, const TensorForm& form, void* out, Done done) {
  require_tensor("read", arena, offset, form);
  on_arena(arena, std::move(done), [this, arena, offset, form, out] {
    executor_->store(form, arena, offset, static_cast<char*>(out), [&] { return closing_.load(std::memory_order_relaxed); });
  });
}

void Session::on_arena(const std::string& arena, Done done, std::function<void()> work) {
  worker_.post([this, arena, size = reserved_[arena], work = std::move(work), done = std::move(done)] {
    settle(done, [&] {
      executor_->reserve(arena, size);
      work();
    });
  });
}

Session::Memory Session::memory() const { return {reserved_, std::max(workspace_, executor_->workspace_bytes()), options_.memory_limit}; }

Session::Trace Session::trace(int index, TraceMode mode) {
  Compiled& c = compiled(index);
  c.mode = mode;
  std::lock_guard<std::mutex> lock(c.mutex);
  return std::exchange(c.measured, Trace{});
}

void Session::close(std::function<void()> done) {
  closing_.store(true);
  worker_.post([this, done = std::move(done)] {
    executor_.reset();
    done();
  });
}

}  // namespace attune
