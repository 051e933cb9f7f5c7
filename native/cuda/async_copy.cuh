// cp.async (sm_80 and later): copies of 16 or 8 bytes from global to shared memory that land some time between issue and wait.
#pragma once
#include "kernel.h"

namespace attune {
namespace cuda {

/// An address in shared memory as PTX wants it.
ATTUNE_DEVICE uint32_t shared_address(const void* p) {
#ifdef __CUDACC__
  return uint32_t(__cvta_generic_to_shared(p));
#else
  return uint32_t(static_cast<const unsigned char*>(p) - simt::shared_memory());
#endif
}

/// Copies 16 bytes, of which the last 16 - valid are written as zero without being read; to and from are 16-byte aligned.
ATTUNE_DEVICE void copy_async16(void* to, const void* from, int valid ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid) : "memory");
#else
  simt::cp_async(to, from, 16, uint32_t(valid) ATTUNE_HERE_ARGS);
#endif
}

/// Likewise 8 bytes, all or none of them.
ATTUNE_DEVICE void copy_async8(void* to, const void* from, bool valid ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 8 : 0) : "memory");
#else
  simt::cp_async(to, from, 8, valid ? 8 : 0 ATTUNE_HERE_ARGS);
#endif
}

/// Closes the group of copies that this thread has issued since the last one.
ATTUNE_DEVICE void copy_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::cp_commit();
#endif
}

/// Waits until at most N of this thread's groups are in flight. Other threads see the bytes after the next barrier.
template <int N>
ATTUNE_DEVICE void copy_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  simt::cp_wait(N);
#endif
}

}  // namespace cuda
}  // namespace attune
