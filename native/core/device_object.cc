#include "device_object.h"

#include <dlfcn.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "error.h"

namespace attune {

namespace {

/// The folder of the object that this function is linked into.
std::string own_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return "";
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? "" : self.substr(0, slash + 1);
}

LoadedObject load(const std::string& backend) {
  LoadedObject loaded;
  for (const char* folder : {"", "../Release/"}) {  // the second: programs of native/test and native/bench
    const std::string path = own_folder() + folder + "attune_" + backend + ".so";
    if (loaded.path.empty()) loaded.path = path;
    if (access(path.c_str(), F_OK) != 0) continue;
    loaded.path = path, loaded.present = true;
    break;
  }
  if (!loaded.present) return loaded;
  void* handle = dlopen(loaded.path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: the CUDA runtime does not survive that
  if (!handle) {
    const char* reason = dlerror();
    loaded.failure = reason ? reason : "unknown";
    return loaded;
  }
  loaded.probe = reinterpret_cast<AttuneCudaProbeFn>(dlsym(handle, ATTUNE_CUDA_PROBE));  // a simt object has none
  const auto entry = reinterpret_cast<DeviceObjectFn>(dlsym(handle, ATTUNE_DEVICE_OBJECT));
  loaded.object = entry ? entry(kDeviceAbi) : nullptr;
  if (!loaded.object) loaded.failure = "it belongs to another build of the addon";
  return loaded;
}

}  // namespace

const LoadedObject& load_device_object(const std::string& backend) {
  static std::mutex mutex;
  static std::map<std::string, LoadedObject> objects;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = objects.find(backend);
  if (found != objects.end() && found->second.object) return found->second;
  return objects[backend] = load(backend);
}

std::unique_ptr<Device> open_device(const std::string& backend, int index) {
  const LoadedObject& loaded = load_device_object(backend);
  if (!loaded.present) throw Error("ERR_DEVICE", backend + ": there is no " + loaded.path);
  if (!loaded.object) throw Error("ERR_DEVICE", backend + ": " + loaded.path + " cannot be loaded: " + loaded.failure);
  return loaded.object->open(index);
}

}  // namespace attune
