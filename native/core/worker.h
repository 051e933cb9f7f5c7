// One thread and its queue: what a session does, it does here, in order. Never a slot of libuv's pool, which has four threads and decodes files.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace attune {

class Worker {
 public:
  Worker() : thread_([this] { work(); }) {}
  ~Worker() { stop(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Queues a task; it must not throw.
  void post(std::function<void()> task);
  /// Nothing queued, nothing running. Stays true until the next post: what the worker did is then visible to the caller.
  bool idle();
  /// Runs what is queued, then ends the thread.
  void stop();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool busy_ = false, stopping_ = false;
  std::thread thread_;  // last: it starts when the others exist
};

}  // namespace attune
