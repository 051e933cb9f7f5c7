// What one JavaScript environment (the main thread, or a worker) owns: its sessions, the promises they owe, and the one thread-safe function through
// which sessions settle them. Nothing is global, so that environments come and go, in mid-run too.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "core/session.h"

namespace attune {

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment() = default;
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  int64_t add(std::unique_ptr<Session> session);
  /// The session behind a handle; throws ERR_CLOSED if it was closed or never was.
  Session& session(int64_t handle);
  bool has(int64_t handle) const { return sessions_.count(handle) != 0; }

  /// A promise for `result`; `keep` are values that must live until it is settled. `start` is given the callback that settles it, from any thread.
  Napi::Promise promise(const Napi::Value& result, const std::vector<Napi::Value>& keep, const std::function<void(Session::Done)>& start);

  /// A promise for the end of a session: at once unusable, freed when its worker is done.
  Napi::Promise close(int64_t handle);

 private:
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference kept;   // [result, ...keep]
    std::function<void()> after;  // on the JavaScript thread, before the promise is settled
  };
  struct Completion {
    int64_t pending;
    std::unique_ptr<Error> error;
  };

  Napi::Promise promise(const Napi::Value& result, const std::vector<Napi::Value>& keep, const std::function<void(Session::Done)>& start,
                        std::function<void()> after);
  void settle(const Completion& completion);
  void shutdown();
  static void on_completion(napi_env env, napi_value, void* self, void* data);

  Napi::Env env_;
  napi_threadsafe_function dispatch_ = nullptr;
  int64_t next_handle_ = 1, next_pending_ = 1;
  std::unordered_map<int64_t, Pending> pending_;
  std::unordered_map<int64_t, std::unique_ptr<Session>> sessions_, closing_;
};

}  // namespace attune
