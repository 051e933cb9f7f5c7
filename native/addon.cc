// The nine functions that JavaScript sees; lib/native.ts types them. Each turns values into native ones, makes one call, and turns the result back.
#include <napi.h>

#include <system_error>

#include "core/device_object.h"
#include "environment.h"
#include "marshal.h"

namespace attune {
namespace {

using Info = Napi::CallbackInfo;

constexpr int64_t kMaxThreads = 1024;

Session& session_of(const Info& info) { return Environment::of(info.Env()).session(to_integer(info[0], "session")); }

int index_of(const Napi::Value& value) {
  const int64_t index = to_integer(value, "program");
  return index >= 0 && index <= INT32_MAX ? int(index) : -1;
}

/// open(backend, { device, threads, isa, memoryLimit }): a handle.
Napi::Value open(const Info& info) {
  Session::Options options;
  options.backend = to_text(info[0], "backend");
  if (options.backend != "cpu" && options.backend != "cuda" && options.backend != "simt")
    throw Error("ERR_CONFIG", "expected the backend to be cpu, cuda or simt, received \"" + options.backend + "\"");
  const Napi::Object o = info[1].ToObject();
  const int64_t threads = to_integer(o.Get("threads"), "threads"), device = to_integer(o.Get("device"), "device");
  if (threads < 1 || threads > kMaxThreads) throw Error("ERR_CONFIG", "expected 1 to 1024 threads, received " + std::to_string(threads));
  if (device < 0 || device >= ATTUNE_CUDA_MAX_DEVICES) throw Error("ERR_CONFIG", "expected a device in [0, 64), received " + std::to_string(device));
  options.threads = int(threads), options.device = int(device);
  options.isa_limit = to_text(o.Get("isa"), "isa");
  options.memory_limit = to_integer(o.Get("memoryLimit"), "memoryLimit");
  return Napi::Number::New(info.Env(), double(Environment::of(info.Env()).add(std::make_unique<Session>(options))));
}

/// compile(session, program): the program's index.
Napi::Value compile(const Info& info) {
  Session& session = session_of(info);
  return Napi::Number::New(info.Env(), session.compile(to_program(info[1])));
}

/// One input view per port, with exactly the bytes of its tensor.
void gather_inputs(const Program& program, const Napi::Array& views, RunRequest* request, std::vector<Napi::Value>* keep) {
  if (views.Length() != program.inputs.size())
    throw Error("ERR_PROGRAM",
                "program \"" + program.name + "\": expected " + std::to_string(program.inputs.size()) + " inputs, received " + std::to_string(views.Length()));
  for (uint32_t i = 0; i < views.Length(); i++) {
    const Port& port = program.inputs[i];
    const Napi::Value view = views.Get(i);
    const Bytes bytes = to_bytes(view, "input \"" + port.name + "\"");
    const int64_t wanted = program.tensors[size_t(port.tensor)].ref.bytes();
    if (bytes.size != wanted)
      throw Error("ERR_PROGRAM", "input \"" + port.name + "\": expected " + std::to_string(wanted) + " bytes, received " + std::to_string(bytes.size));
    request->inputs.push_back(bytes.data);
    keep->push_back(view);
  }
}

/// One ArrayBuffer per output port. They belong to V8: buffers of our own would wait for a finalizer that runs only when the event loop turns.
Napi::Array make_outputs(Napi::Env env, const Program& program, RunRequest* request) {
  Napi::Array buffers = Napi::Array::New(env, program.outputs.size());
  for (uint32_t i = 0; i < program.outputs.size(); i++) {
    const auto buffer = Napi::ArrayBuffer::New(env, size_t(program.tensors[size_t(program.outputs[i].tensor)].ref.bytes()));
    request->outputs.push_back(const_cast<Napi::ArrayBuffer&>(buffer).Data());
    buffers.Set(i, buffer);
  }
  return buffers;
}

/// A promise and the function that asks its work to end: { promise, cancel() }.
Napi::Object make_job(Napi::Env env, const Napi::Value& promise, const std::shared_ptr<std::atomic<bool>>& cancelled) {
  Napi::Object job = Napi::Object::New(env);
  job.Set("promise", promise);
  job.Set("cancel", Napi::Function::New(env, [cancelled](const Info&) { cancelled->store(true); }, "cancel"));
  return job;
}

/// run(session, program, inputs, scalars): { promise of one ArrayBuffer per output, cancel() }.
Napi::Value run(const Info& info) {
  Napi::Env env = info.Env();
  Session& session = session_of(info);
  const int index = index_of(info[1]);
  const Program& program = session.program(index);
  RunRequest request;
  std::vector<Napi::Value> keep;
  gather_inputs(program, to_array(info[2], "inputs"), &request, &keep);
  request.scalars = to_doubles(info[3], "scalars");
  if (request.scalars.size() != program.scalars.size())
    throw Error("ERR_PROGRAM", "program \"" + program.name + "\": expected " + std::to_string(program.scalars.size()) + " scalars, received " +
                                   std::to_string(request.scalars.size()));
  const Napi::Array outputs = make_outputs(env, program, &request);
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  const auto start = [&](Session::Done done) { session.run(index, std::move(request), cancelled, std::move(done)); };
  return make_job(env, Environment::of(env).promise(outputs, keep, start), cancelled);
}

/// write(session, arena, offset, source), a tensor of a file: { promise, cancel() }.
Napi::Value load(const Info& info) {
  Session& session = session_of(info);
  const std::string arena = to_text(info[1], "arena");
  const int64_t offset = to_integer(info[2], "offset");
  const TensorForm form = to_form(info[3], "source");
  session.require_tensor("load", arena, offset, form);
  const auto file = to_file_range(info[3], form.outside_bytes(), "source");
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  const auto start = [&](Session::Done done) { session.load(arena, offset, form, file, cancelled, std::move(done)); };
  return make_job(info.Env(), Environment::of(info.Env()).promise(info.Env().Undefined(), {}, start), cancelled);
}

/// write(session, arena, offset, view): done when it returns, as far as JavaScript can see.
Napi::Value write(const Info& info) {
  if (info[3].IsObject() && !info[3].IsTypedArray() && !info[3].IsDataView()) return load(info);
  const Bytes bytes = to_bytes(info[3], "data");
  session_of(info).write(to_text(info[1], "arena"), to_integer(info[2], "offset"), bytes.data, bytes.size);
  return info.Env().Undefined();
}

/// read(session, arena, offset, form), a tensor in its outside form: a promise of an ArrayBuffer.
Napi::Value store(const Info& info) {
  Napi::Env env = info.Env();
  Session& session = session_of(info);
  const std::string arena = to_text(info[1], "arena");
  const int64_t offset = to_integer(info[2], "offset");
  const TensorForm form = to_form(info[3], "form");
  session.require_tensor("read", arena, offset, form);
  auto buffer = Napi::ArrayBuffer::New(env, size_t(form.outside_bytes()));
  return Environment::of(env).promise(buffer, {}, [&](Session::Done done) { session.store(arena, offset, form, buffer.Data(), std::move(done)); });
}

/// read(session, arena, offset, bytes): a promise of an ArrayBuffer.
Napi::Value read(const Info& info) {
  if (info[3].IsObject()) return store(info);
  Napi::Env env = info.Env();
  Session& session = session_of(info);
  const std::string arena = to_text(info[1], "arena");
  const int64_t offset = to_integer(info[2], "offset"), size = to_integer(info[3], "bytes");
  session.require_range("read", arena, offset, size);
  auto buffer = Napi::ArrayBuffer::New(env, size_t(size));
  return Environment::of(env).promise(buffer, {}, [&](Session::Done done) { session.read(arena, offset, size, buffer.Data(), std::move(done)); });
}

/// memory(session): { arenas: { name: bytes }, workspace, limit }.
Napi::Value memory(const Info& info) {
  const Session::Memory m = session_of(info).memory();
  Napi::Object arenas = Napi::Object::New(info.Env()), result = Napi::Object::New(info.Env());
  for (const auto& [name, bytes] : m.arenas) arenas.Set(name, double(bytes));
  result.Set("arenas", arenas);
  result.Set("workspace", double(m.workspace));
  result.Set("limit", double(m.limit));
  return result;
}

/// trace(session, program, mode): { runs, nanoseconds: Float64Array per instruction } measured since the last call.
Napi::Value trace(const Info& info) {
  Napi::Env env = info.Env();
  const Session::Trace t = session_of(info).trace(index_of(info[1]), to_trace_mode(info[2]));
  auto nanoseconds = Napi::Float64Array::New(env, t.nanoseconds.size());
  for (size_t i = 0; i < t.nanoseconds.size(); i++) nanoseconds[i] = t.nanoseconds[i];
  Napi::Object result = Napi::Object::New(env);
  result.Set("runs", double(t.runs));
  result.Set("nanoseconds", nanoseconds);
  return result;
}

/// close(session): a promise.
Napi::Value close(const Info& info) { return Environment::of(info.Env()).close(to_integer(info[0], "session")); }

/// What the cpu backend has: [{ op, isa }].
Napi::Array list_cpu_kernels(Napi::Env env) {
  Napi::Array list = Napi::Array::New(env);
  for (const KernelEntry& entry : all_kernels()) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("op", entry.op);
    o.Set("isa", entry.isa);
    list.Set(list.Length(), o);
  }
  return list;
}

Napi::Array list_device_kernels(Napi::Env env, const LoadedObject& loaded) {
  Napi::Array list = Napi::Array::New(env);
  for (const std::string& op : loaded.object ? loaded.object->ops() : std::vector<std::string>()) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("op", op);
    o.Set("isa", "");
    list.Set(list.Length(), o);
  }
  return list;
}

void describe_devices(Napi::Env env, const LoadedObject& loaded, Napi::Object* result) {
  AttuneCudaProbe probe{};
  if (loaded.probe) loaded.probe(&probe);
  Napi::Array devices = Napi::Array::New(env);
  for (int i = 0; i < probe.devices; i++) {
    const AttuneCudaDevice& d = probe.device[i];
    Napi::Object o = Napi::Object::New(env);
    o.Set("name", d.name);
    o.Set("capability", std::to_string(d.major) + "." + std::to_string(d.minor));
    o.Set("multiprocessors", d.multiprocessors);
    o.Set("bytes", double(d.bytes));
    devices.Set(uint32_t(i), o);
  }
  result->Set("devices", devices);
  result->Set("built", loaded.present);
  result->Set("runtime", probe.runtime_version);
  result->Set("driver", probe.driver_version);
  result->Set("error", loaded.failure.empty() ? std::string(probe.error) : loaded.failure);
}

/// kernels(backend): what the backend can run here. { isa, kernels: [{ op, isa }] }, of a device object also { built, devices, runtime, driver, error }.
Napi::Value kernels(const Info& info) {
  const std::string backend = to_text(info[0], "backend");
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("isa", backend == "cpu" ? native_isa() : "");
  if (backend == "cpu") {
    result.Set("kernels", list_cpu_kernels(info.Env()));
    return result;
  }
  if (backend != "cuda" && backend != "simt") throw Error("ERR_CONFIG", "expected the backend to be cpu, cuda or simt, received \"" + backend + "\"");
  const LoadedObject& loaded = load_device_object(backend);
  result.Set("kernels", list_device_kernels(info.Env(), loaded));
  describe_devices(info.Env(), loaded, &result);
  return result;
}

/// Native errors become JavaScript ones at this one place.
template <Napi::Value (*function)(const Info&)>
Napi::Value guarded(const Info& info) {
  try {
    return function(info);
  } catch (const Error& e) { throw to_js(info.Env(), e); } catch (const std::bad_alloc&) {
    throw to_js(info.Env(), Error("ERR_MEMORY", "the system refused memory"));
  } catch (const std::system_error& e) { throw to_js(info.Env(), Error("ERR_DEVICE", std::string("the system refused a thread: ") + e.what())); }
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  exports.Set("open", Napi::Function::New<guarded<open>>(env, "open"));
  exports.Set("compile", Napi::Function::New<guarded<compile>>(env, "compile"));
  exports.Set("run", Napi::Function::New<guarded<run>>(env, "run"));
  exports.Set("write", Napi::Function::New<guarded<write>>(env, "write"));
  exports.Set("read", Napi::Function::New<guarded<read>>(env, "read"));
  exports.Set("memory", Napi::Function::New<guarded<memory>>(env, "memory"));
  exports.Set("trace", Napi::Function::New<guarded<trace>>(env, "trace"));
  exports.Set("close", Napi::Function::New<guarded<close>>(env, "close"));
  exports.Set("kernels", Napi::Function::New<guarded<kernels>>(env, "kernels"));
  return exports;
}

}  // namespace
}  // namespace attune

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return attune::init(env, exports); }
NODE_API_MODULE(attune, Init)
