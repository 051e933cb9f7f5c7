// Which CUDA devices this machine has. Needs no driver to load: cudart is linked in and looks for libcuda by itself.
#include "probe.h"

#include <cuda_runtime_api.h>
#include <string.h>

namespace {

void copy_text(char* to, size_t size, const char* from) {
  strncpy(to, from, size - 1);
  to[size - 1] = 0;
}

/// True for cudaSuccess; otherwise the text goes to probe->error and the runtime's sticky error is cleared.
bool succeeded(cudaError_t status, AttuneCudaProbe* probe) {
  if (status == cudaSuccess) return true;
  copy_text(probe->error, sizeof probe->error, cudaGetErrorString(status));
  cudaGetLastError();
  return false;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void attune_cuda_probe(AttuneCudaProbe* probe) {
  memset(probe, 0, sizeof *probe);
  if (!succeeded(cudaRuntimeGetVersion(&probe->runtime_version), probe) || !succeeded(cudaDriverGetVersion(&probe->driver_version), probe)) return;
  int count = 0;
  if (!succeeded(cudaGetDeviceCount(&count), probe)) return;
  for (int i = 0; i < count && i < ATTUNE_CUDA_MAX_DEVICES; i++) {
    cudaDeviceProp properties;
    if (!succeeded(cudaGetDeviceProperties(&properties, i), probe)) return;
    AttuneCudaDevice& device = probe->device[probe->devices++];
    copy_text(device.name, sizeof device.name, properties.name);
    device.major = properties.major, device.minor = properties.minor;
    device.multiprocessors = properties.multiProcessorCount;
    device.bytes = properties.totalGlobalMem;
  }
}
