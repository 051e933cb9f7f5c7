// Fork-join laws: every task runs once, threads never share an index, exceptions arrive, for any number of threads. Plain (not atomic) counters per
// task and per thread: under ThreadSanitizer a missing happens-before edge is an error, not luck.
#include <cstdio>
#include <stdexcept>
#include <vector>

#include "core/thread_pool.h"

using attune::ThreadPool;

static int failures = 0;

static void expect(bool holds, const char* law, int64_t a = 0, int64_t b = 0) {
  if (holds) return;
  std::printf("FAIL %s (%lld, %lld)\n", law, static_cast<long long>(a), static_cast<long long>(b));
  failures++;
}

static void every_task_runs_once(ThreadPool& pool, int64_t tasks) {
  std::vector<int> runs(static_cast<size_t>(tasks), 0), by_thread(static_cast<size_t>(pool.size()), 0);
  pool.run(tasks, [&](int64_t task, int thread) { runs[size_t(task)]++, by_thread[size_t(thread)]++; });
  int64_t total = 0;
  for (int n : by_thread) total += n;
  expect(total == tasks, "per-thread counts add up to the tasks", total, tasks);
  for (int64_t t = 0; t < tasks; t++) expect(runs[size_t(t)] == 1, "a task runs once", t, runs[size_t(t)]);
}

static void ranges_cover(ThreadPool& pool, int64_t n, int64_t grain) {
  std::vector<int> seen(static_cast<size_t>(n), 0);
  pool.ranges(n, grain, [&](int64_t begin, int64_t end, int) {
    expect(begin % grain == 0 && end <= n, "borders depend on the grain alone", begin, end);
    for (int64_t i = begin; i < end; i++) seen[size_t(i)]++;
  });
  for (int64_t i = 0; i < n; i++) expect(seen[size_t(i)] == 1, "an index is in one range", i, n);
}

static void exceptions_arrive(ThreadPool& pool) {
  bool caught = false;
  try {
    pool.run(50, [](int64_t task, int) {
      if (task == 17) throw std::runtime_error("17");
    });
  } catch (const std::runtime_error&) { caught = true; }
  expect(caught, "run throws what a task throws", pool.size());
  every_task_runs_once(pool, 20);
}

/// Joins follow each other at once: workers that wake late must not enter a job that is over, nor miss the next.
static void joins_in_a_row(ThreadPool& pool, int rounds) {
  std::vector<int64_t> cells(64, 0);
  for (int round = 0; round < rounds; round++) pool.run(round % 64 + 1, [&](int64_t task, int) { cells[size_t(task)]++; });
  for (int task = 0; task < 64; task++) {
    int64_t wanted = 0;
    for (int round = 0; round < rounds; round++) wanted += round % 64 >= task;
    expect(cells[size_t(task)] == wanted, "every round sees the one before", cells[size_t(task)], wanted);
  }
}

int main() {
  for (int threads = 1; threads <= 5; threads++) {
    ThreadPool pool(threads);
    for (int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) every_task_runs_once(pool, tasks);
    for (int64_t grain : {1, 3, 100}) ranges_cover(pool, 101, grain);
    exceptions_arrive(pool);
    joins_in_a_row(pool, 5000);
  }
  for (int i = 0; i < 200; i++) ThreadPool idle(3);  // started and stopped without work
  std::printf(failures ? "thread_pool: %d failures\n" : "thread_pool: ok\n", failures);
  return failures ? 1 : 0;
}
