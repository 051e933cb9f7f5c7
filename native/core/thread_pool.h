// Fork-join over a fixed set of threads. Work is cut into chunks whose borders depend on the problem alone, never on the number
// of threads, so that a result has the same bits on one core and on sixty-four.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace attune {

class ThreadPool {
 public:
  /// threads >= 1, the caller included: ThreadPool(1) starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  /// Calls fn(task, thread) for task = 0 .. tasks-1, on any thread and in any order; thread in [0, size()). Returns when all are done.
  /// fn must not call run; if it throws, so does run. Which tasks exist must not depend on size().
  void run(int64_t tasks, const std::function<void(int64_t task, int thread)>& fn);

  /// Cuts [0, n) into ranges of `grain` (the last may be shorter) and calls fn(begin, end, thread) for each.
  void ranges(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end, int thread)>& fn) {
    if (n <= 0) return;
    const int64_t g = grain < 1 ? 1 : grain;
    run((n + g - 1) / g, [&](int64_t task, int thread) {
      const int64_t begin = task * g, end = begin + g < n ? begin + g : n;
      fn(begin, end, thread);
    });
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
  int size_;
};

}  // namespace attune
