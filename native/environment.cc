#include "environment.h"

#include "marshal.h"

namespace attune {

// Order matters. Cleanup hooks run last in, first out: ours is added after the thread-safe function has added its own, so sessions are
// joined while the function still accepts completions. A function per call, or one released too early, aborts the process when a worker is terminated.
Environment::Environment(Napi::Env env) : env_(env) {
  const Napi::HandleScope scope(env);
  const napi_value name = Napi::String::New(env, "attune.session");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, &Environment::on_completion, &dispatch_) != napi_ok)
    throw std::runtime_error("attune: the environment refused a thread-safe function");
  napi_unref_threadsafe_function(env, dispatch_);  // an idle session does not keep the process alive
  napi_add_env_cleanup_hook(env, [](void* self) { static_cast<Environment*>(self)->shutdown(); }, this);
}

void Environment::shutdown() {
  sessions_.clear();
  closing_.clear();
  pending_.clear();  // references die here, on the JavaScript thread
  napi_release_threadsafe_function(dispatch_, napi_tsfn_abort);
}

int64_t Environment::add(std::unique_ptr<Session> session) {
  sessions_.emplace(next_handle_, std::move(session));
  return next_handle_++;
}

Session& Environment::session(int64_t handle) {
  const auto found = sessions_.find(handle);
  if (found == sessions_.end()) throw Error("ERR_CLOSED", "the session was closed");
  return *found->second;
}

Napi::Promise Environment::promise(const Napi::Value& result, const std::vector<Napi::Value>& keep, const std::function<void(Session::Done)>& start) {
  return promise(result, keep, start, nullptr);
}

Napi::Promise Environment::promise(const Napi::Value& result, const std::vector<Napi::Value>& keep, const std::function<void(Session::Done)>& start,
                                   std::function<void()> after) {
  Napi::Array kept = Napi::Array::New(env_, keep.size() + 1);
  kept.Set(uint32_t(0), result);
  for (uint32_t i = 0; i < keep.size(); i++) kept.Set(i + 1, keep[i]);
  const auto deferred = Napi::Promise::Deferred::New(env_);
  const int64_t id = next_pending_++;
  if (pending_.empty()) napi_ref_threadsafe_function(env_, dispatch_);
  pending_.emplace(id, Pending{deferred, Napi::Persistent(kept.As<Napi::Object>()), std::move(after)});
  start([id, dispatch = dispatch_](const Error* error) {
    auto completion = std::make_unique<Completion>(Completion{id, error ? std::make_unique<Error>(*error) : nullptr});
    if (napi_call_threadsafe_function(dispatch, completion.get(), napi_tsfn_nonblocking) == napi_ok) completion.release();
  });
  return deferred.Promise();
}

Napi::Promise Environment::close(int64_t handle) {
  const auto found = sessions_.find(handle);
  if (found == sessions_.end()) {
    const auto deferred = Napi::Promise::Deferred::New(env_);
    deferred.Resolve(env_.Undefined());
    return deferred.Promise();
  }
  Session& session = *found->second;
  closing_.emplace(handle, std::move(found->second));
  sessions_.erase(found);
  return promise(env_.Undefined(), {}, [&](Session::Done done) { session.close([done] { done(nullptr); }); }, [this, handle] { closing_.erase(handle); });
}

void Environment::on_completion(napi_env env, napi_value, void* self, void* data) {
  const std::unique_ptr<Completion> completion(static_cast<Completion*>(data));
  if (!env) return;  // the environment is going: `self` may be gone already
  static_cast<Environment*>(self)->settle(*completion);
}

void Environment::settle(const Completion& completion) {
  const Napi::HandleScope scope(env_);
  const auto found = pending_.find(completion.pending);
  if (found == pending_.end()) return;
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending_.empty()) napi_unref_threadsafe_function(env_, dispatch_);
  if (pending.after) pending.after();
  if (completion.error) pending.deferred.Reject(to_js(env_, *completion.error).Value());
  else pending.deferred.Resolve(pending.kept.Value().Get(uint32_t(0)));
}

}  // namespace attune
