// The third machine of the device kernels (tests only): interprets the PTX that nvcc emits from native/cuda/*.cu, so that the inline PTX and all else that g++
// never compiles is proved too. It finds a kernel by its mangled name, and checks every access, race, copy in flight and collective on the way.
#pragma once
#include <string>

#include "../cuda/kernel.h"
#include "machine.h"

namespace attune {
namespace ptxi {

/// Interprets a launch: the kernel's entry is sought in <folder>/80/*.ptx, or <folder>/90a/*.ptx where caps.arch is 90 or more; a file is read once.
/// ERR_DEVICE for whatever is wrong, with kernel, block, thread, line and instruction.
void launch(const cuda::Launch& launch, const DeviceCaps& caps, const std::string& folder, const Options& options);

/// Likewise as ATTUNE_SIMT says: folder, orders, and the memory of native/simt. What native/simt calls.
void start(const cuda::Launch& launch, const DeviceCaps& caps);

}  // namespace ptxi
}  // namespace attune
