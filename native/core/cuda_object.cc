#include "cuda_object.h"

#include <dlfcn.h>
#include <unistd.h>

namespace attune {

namespace {

/// attune_cuda.so in the folder of the object that this function is linked into.
std::string object_path() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&object_path), &info) || !info.dli_fname) return "attune_cuda.so";
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return slash == std::string::npos ? "attune_cuda.so" : self.substr(0, slash + 1) + "attune_cuda.so";
}

struct Loaded {
  std::string path = object_path(), failure;
  AttuneCudaProbeFn probe = nullptr;

  Loaded() {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: the CUDA runtime does not survive that
    if (handle) probe = reinterpret_cast<AttuneCudaProbeFn>(dlsym(handle, ATTUNE_CUDA_PROBE));
    if (probe) return;
    const char* reason = dlerror();
    failure = reason ? reason : "unknown";
  }
};

}  // namespace

CudaObject probe_cuda() {
  CudaObject result;
  result.path = object_path();
  result.present = access(result.path.c_str(), F_OK) == 0;
  if (!result.present) return result;
  static const Loaded loaded;
  result.failure = loaded.failure;
  if (loaded.probe) loaded.probe(&result.probe);
  return result;
}

}  // namespace attune
