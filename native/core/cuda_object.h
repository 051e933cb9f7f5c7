// Finds attune_cuda.so beside the addon and asks it for devices. The addon itself never links CUDA.
#pragma once
#include <string>

#include "../cuda/probe.h"

namespace attune {

struct CudaObject {
  std::string path;
  std::string failure;   // why the object could not be loaded; "" if it was
  bool present = false;  // the file is there
  AttuneCudaProbe probe{};
};

/// Loads the object on the first call, once per process, and probes on every call (the first may take some hundred milliseconds).
CudaObject probe_cuda();

}  // namespace attune
