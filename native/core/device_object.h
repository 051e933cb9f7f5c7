// Device objects: attune_cuda.so beside the addon, and in tests attune_simt.so, loaded on demand. The addon itself never links CUDA.
#pragma once
#include <string>

#include "../cuda/probe.h"
#include "device.h"

namespace attune {

struct LoadedObject {
  std::string path;
  std::string failure;             // why the object could not be loaded; "" if it was, or is not there
  bool present = false;            // the file is there
  DeviceObject* object = nullptr;  // lives as long as the process
  AttuneCudaProbeFn probe = nullptr;
};

/// attune_<backend>.so beside the addon that this is linked into (of a test program: in the build's Release folder), loaded on the first call, once per
/// process.
const LoadedObject& load_device_object(const std::string& backend);

/// A device of that object. Throws ERR_DEVICE with the reason where there is none, ERR_CAPABILITY and ERR_DRIVER where one is too old.
std::unique_ptr<Device> open_device(const std::string& backend, int index);

}  // namespace attune
