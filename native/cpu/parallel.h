// Fork-join as kernels use it: a range that fits one grain runs on the caller, without waking anybody. Grains depend on the problem alone.
#pragma once
#include "cpu.h"

ATTUNE_CPU_BEGIN

/// Elements per task of memory-bound loops (3 x 128 KiB of f32 stay in a second-level cache), and of loops with an exponential in them.
constexpr int64_t kGrain = 32768, kMathGrain = 8192;

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// fn(task, thread) for task = 0 .. tasks-1; `thread` in [0, pool.size()) selects scratch memory and nothing else.
template <typename F>
inline void parallel_threads(ThreadPool& pool, int64_t tasks, F&& fn) {
  if (tasks == 1) fn(int64_t(0), 0);
  else if (tasks > 1) pool.run(tasks, [&fn](int64_t task, int thread) { fn(task, thread); });
}

/// fn(task) for task = 0 .. tasks-1.
template <typename F>
inline void parallel_tasks(ThreadPool& pool, int64_t tasks, F&& fn) {
  parallel_threads(pool, tasks, [&fn](int64_t task, int) { fn(task); });
}

/// fn(begin, end) over [0, n) in ranges of `grain`.
template <typename F>
inline void parallel_ranges(ThreadPool& pool, int64_t n, int64_t grain, F&& fn) {
  const int64_t g = max_of(grain, 1);
  parallel_tasks(pool, ceil_div(n, g), [&](int64_t task) { fn(task * g, min_of(n, (task + 1) * g)); });
}

ATTUNE_CPU_END
