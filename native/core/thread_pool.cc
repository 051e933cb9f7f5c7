// One atomic word, the gate, holds a job's number, whether it is open, and how many workers are inside. Workers enter an open job
// by compare-and-swap; the caller closes it when no task is left and waits only for those inside, so a worker that
// the system has not scheduled yet delays nobody. Waiting spins for some microseconds, then sleeps.
#include "thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace attune {

namespace {

constexpr uint64_t kInside = 0xFFFF;  // bits 0-15: workers inside
constexpr uint64_t kOpen = 1u << 16;  // bit 16: may still be entered
constexpr uint64_t kJob = 1u << 17;   // bits 17-63: number of the job
constexpr int kSpins = 256;           // about 10 us with a pause of 140 cycles

inline void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

template <typename Ready>
bool spin_until(Ready&& ready) {
  for (int i = 0; i < kSpins; i++) {
    if (ready()) return true;
    pause_cpu();
  }
  return ready();
}

}  // namespace

struct ThreadPool::State {
  std::atomic<uint64_t> gate{0};
  std::atomic<int64_t> next{0};  // the next task to take
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  const std::function<void(int64_t, int)>* fn = nullptr;
  int64_t tasks = 0;
  std::exception_ptr failure;  // the first exception of a task; guarded by mutex
  std::mutex mutex;
  std::condition_variable opened, left;
  std::vector<std::thread> threads;

  ~State() {
    stop.store(true);
    { std::lock_guard<std::mutex> lock(mutex); }
    opened.notify_all();
    for (std::thread& t : threads) t.join();
  }

  void take_tasks(int thread) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      try {
        (*fn)(task, thread);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    }
  }

  /// Enters the open job, unless it is `last`, which this worker has already seen to its end.
  bool enter(uint64_t* last) {
    uint64_t g = gate.load(std::memory_order_acquire);
    while ((g & kOpen) && g / kJob != *last) {
      if (!gate.compare_exchange_weak(g, g + 1, std::memory_order_acq_rel)) continue;
      *last = g / kJob;
      return true;
    }
    return false;
  }

  void leave() {
    const uint64_t g = gate.fetch_sub(1, std::memory_order_acq_rel) - 1;
    if ((g & kOpen) || (g & kInside)) return;
    { std::lock_guard<std::mutex> lock(mutex); }  // the caller is either asleep or has yet to look
    left.notify_one();
  }

  void work(int thread) {
    uint64_t last = 0;
    const auto called = [&] {
      const uint64_t g = gate.load(std::memory_order_seq_cst);
      return stop.load(std::memory_order_relaxed) || ((g & kOpen) && g / kJob != last);
    };
    while (!stop.load(std::memory_order_relaxed)) {
      if (!spin_until(called)) {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);  // before looking again: open() stores the gate, then reads this
        opened.wait(lock, called);
        sleepers.fetch_sub(1, std::memory_order_seq_cst);
      }
      if (enter(&last)) {
        take_tasks(thread);
        leave();
      }
    }
  }

  void open(int64_t helpers) {
    gate.store((gate.load(std::memory_order_relaxed) / kJob + 1) * kJob | kOpen, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) == 0) return;
    { std::lock_guard<std::mutex> lock(mutex); }
    if (helpers >= int64_t(threads.size())) opened.notify_all();
    else
      for (int64_t i = 0; i < helpers; i++) opened.notify_one();
  }

  void close() {
    gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    const auto empty = [&] { return (gate.load(std::memory_order_acquire) & kInside) == 0; };
    if (spin_until(empty)) return;
    std::unique_lock<std::mutex> lock(mutex);
    left.wait(lock, empty);
  }
};

ThreadPool::ThreadPool(int threads) : state_(new State), size_(threads < 1 ? 1 : threads) {
  for (int i = 1; i < size_; i++) state_->threads.emplace_back([s = state_.get(), i] { s->work(i); });  // if the system refuses one, ~State ends the others
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::run(int64_t tasks, const std::function<void(int64_t, int)>& fn) {
  if (tasks <= 0) return;
  if (tasks == 1 || size_ == 1) {
    for (int64_t task = 0; task < tasks; task++) fn(task, 0);
    return;
  }
  State& s = *state_;
  s.fn = &fn, s.tasks = tasks, s.failure = nullptr;
  s.next.store(0, std::memory_order_relaxed);
  s.open(tasks - 1);
  s.take_tasks(0);
  s.close();
  if (s.failure) std::rethrow_exception(s.failure);
}

}  // namespace attune
