// Sessions without Node: what a call sees of the calls before it, cancelling, closing. Kernels of this test wait at a gate, so that "while a run is in
// progress" is a fact and not a matter of timing.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "core/session.h"
#include "expect.h"

using namespace attune;

/// A kernel at test_wait stops until the gate opens; arrived() waits for it to get there.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false, reached = false;

  void reset() {
    std::lock_guard<std::mutex> lock(mutex);
    open = reached = false;
  }
  void pass() {
    std::unique_lock<std::mutex> lock(mutex);
    reached = true;
    changed.notify_all();
    changed.wait(lock, [&] { return open; });
  }
  void await_arrival() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return reached; });
  }
  void release() {
    std::lock_guard<std::mutex> lock(mutex);
    open = true;
    changed.notify_all();
  }
};
static Gate gate;

static void wait_kernel(const OpArgs&) { gate.pass(); }
static void copy_kernel(const OpArgs& a) { std::memcpy(a.out[0].data, a.in[0].data, size_t(a.out[0].bytes())); }
static const bool registered = register_kernel({"cpu", "test_wait", "generic", wait_kernel}) && register_kernel({"cpu", "test_copy", "generic", copy_kernel});

/// The result of one request, waited for.
struct Outcome {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::string code;

  Session::Done done() {
    return [this](const Error* e) {
      std::lock_guard<std::mutex> lock(mutex);
      over = true, code = e ? e->code : "";
      changed.notify_all();
    };
  }
  std::string wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return over; });
    return code;
  }
};

static ProgramTensor bytes(int64_t arena, int64_t offset, int64_t size) {
  ProgramTensor t{arena, offset, {}};
  t.ref.dtype = DType::u8, t.ref.rank = 1, t.ref.dims[0] = size;
  return t;
}

/// Optionally waits at the gate, then copies 8 bytes of arena "w" from `offset` to the output.
static Program copy_program(bool waits, int64_t offset, int64_t arena_bytes) {
  Program p;
  p.name = "copy";
  p.arenas = {{"scratch", 256}, {"w", arena_bytes}};
  p.tensors = {bytes(0, 0, 8), bytes(1, offset, 8), bytes(0, 64, 8)};
  if (waits) p.instructions.push_back({"test_wait", "gate", {}, {}, {2}, nullptr, {}});
  p.instructions.push_back({"test_copy", "copy", {}, {1}, {0}, nullptr, {}});
  p.outputs = {{"y", 0}};
  return p;
}

struct Run {
  Outcome outcome;
  char y[8] = {};
  std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);

  void start(Session& s, int program) {
    RunRequest request;
    request.outputs = {y};
    s.run(program, std::move(request), cancelled, outcome.done());
  }
};

static void calls_take_effect_in_order() {
  gate.reset();
  Session s({2, "", 1 << 20});
  const int waiting = s.compile(copy_program(true, 0, 64)), plain = s.compile(copy_program(false, 0, 64));
  s.write("w", 0, "old text", 8);
  Run before, after;
  before.start(s, waiting);
  gate.await_arrival();
  // The run stands before its copy: a write made at this point belongs behind it.
  char text[] = "new text";
  s.write("w", 0, text, 8);
  std::memset(text, 'x', 8);  // the caller's array is free at once
  after.start(s, plain);
  Outcome read;
  char got[8];
  s.read("w", 0, 8, got, read.done());
  gate.release();
  expect(before.outcome.wait().empty() && std::memcmp(before.y, "old text", 8) == 0, "a run does not see a later write");
  expect(after.outcome.wait().empty() && std::memcmp(after.y, "new text", 8) == 0, "a run sees an earlier write");
  expect(read.wait().empty() && std::memcmp(got, "new text", 8) == 0, "so does a read");
}

static void arenas_grow_under_a_run() {
  gate.reset();
  Session s({2, "", 64 << 20});
  const int waiting = s.compile(copy_program(true, 0, 64));
  s.write("w", 0, "old text", 8);
  Run before, after, fresh;
  before.start(s, waiting);
  gate.await_arrival();
  const int large = s.compile(copy_program(false, 32 << 20, (32 << 20) + 8)), same = s.compile(copy_program(false, 0, 64));
  fresh.start(s, large);
  s.write("w", 32 << 20, "the end.", 8);
  after.start(s, same);
  Run end;
  end.start(s, large);
  gate.release();
  expect(before.outcome.wait().empty() && std::memcmp(before.y, "old text", 8) == 0, "a run keeps its memory while another program asks for more");
  expect(fresh.outcome.wait().empty() && std::memcmp(fresh.y, "\0\0\0\0\0\0\0\0", 8) == 0, "what an arena gains is zero");
  expect(after.outcome.wait().empty() && std::memcmp(after.y, "old text", 8) == 0, "what it had stays");
  expect(end.outcome.wait().empty() && std::memcmp(end.y, "the end.", 8) == 0, "a write reaches memory reserved during a run");
}

static void reserved_memory_is_there_without_a_run() {
  gate.reset();
  Session s({1, "", 64 << 20});
  Run waiting;
  waiting.start(s, s.compile(copy_program(true, 0, 64)));
  gate.await_arrival();
  s.compile(copy_program(false, 32 << 20, (32 << 20) + 8));
  gate.release();
  waiting.outcome.wait();
  Outcome settled, read;
  char got[8];
  s.read("w", 0, 8, got, settled.done());
  settled.wait();
  s.write("w", 32 << 20, "the end.", 8);
  s.read("w", 32 << 20, 8, got, read.done());
  expect(read.wait().empty() && std::memcmp(got, "the end.", 8) == 0, "a write to an idle session reaches memory reserved during a run");
}

static void cancelled_runs_end() {
  gate.reset();
  Session s({1, "", 1 << 20});
  const int waiting = s.compile(copy_program(true, 0, 64)), plain = s.compile(copy_program(false, 0, 64));
  Run running, queued, kept;
  running.start(s, waiting);
  queued.start(s, plain);
  kept.start(s, plain);
  gate.await_arrival();
  running.cancelled->store(true);
  queued.cancelled->store(true);
  gate.release();
  expect(running.outcome.wait() == "ERR_ABORTED", "a running program stops before its next instruction");
  expect(queued.outcome.wait() == "ERR_ABORTED", "a queued one does not start");
  expect(kept.outcome.wait().empty(), "the others are untouched");
}

static void close_waits_for_the_run() {
  gate.reset();
  auto s = std::make_unique<Session>(Session::Options{2, "", 1 << 20});
  const int waiting = s->compile(copy_program(true, 0, 64));
  Run running;
  Outcome closed;
  running.start(*s, waiting);
  gate.await_arrival();
  s->close([done = closed.done()] { done(nullptr); });
  expect(!closed.over, "close is not over while a kernel runs");
  gate.release();
  expect(running.outcome.wait() == "ERR_ABORTED", "close cancels");
  expect(closed.wait().empty(), "close ends");
  s.reset();

  gate.reset();
  Run dropped;
  {
    Session t({2, "", 1 << 20});
    dropped.start(t, t.compile(copy_program(true, 0, 64)));
    gate.await_arrival();
    gate.release();
  }
  expect(dropped.outcome.over, "a destroyed session has answered every request");
}

template <typename Body>
static std::string code_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) { return e.code; }
  return "";
}

static void refusals() {
  Session s({1, "", 4096});
  expect(code_of([&] { s.compile(copy_program(false, 0, 5000)); }) == "ERR_MEMORY", "arenas over the limit");
  expect(code_of([&] { s.compile(copy_program(false, 60, 64)); }) == "ERR_PROGRAM", "a tensor past its arena");
  s.compile(copy_program(false, 0, 64));
  char data[8] = {};
  expect(code_of([&] { s.write("w", 57, data, 8); }) == "ERR_PROGRAM", "a write past the end");
  expect(code_of([&] { s.write("w", -1, data, 8); }) == "ERR_PROGRAM", "a write before the beginning");
  expect(code_of([&] { s.write("scratch", 0, data, 8); }) == "ERR_PROGRAM", "a write to scratch");
  expect(code_of([&] { s.trace(7, TraceMode::off); }) == "ERR_PROGRAM", "a program that was never compiled");
  Program across = copy_program(false, 0, 64);
  across.tensors[0] = bytes(1, 4, 8);
  expect(code_of([&] { s.compile(across); }) == "ERR_PROGRAM", "an output across an input");
}

int main() {
  expect(registered, "the test's kernels are registered");
  calls_take_effect_in_order();
  arenas_grow_under_a_run();
  reserved_memory_is_there_without_a_run();
  cancelled_runs_end();
  close_waits_for_the_run();
  refusals();
  std::printf(failures ? "session: %d failures\n" : "session: ok\n", failures);
  return failures ? 1 : 0;
}
