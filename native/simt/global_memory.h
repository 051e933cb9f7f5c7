// Global memory of the device that is played: every allocation is known, so that an access is held against its bounds and its lifetime; scratch memory knows
// which of its bytes were ever written; and with checks=full accesses of one launch are checked for races, between blocks and within one.
//
// Blocks of a launch are unordered, but for atomics: after __threadfence() an atomic publishes what its block wrote before a barrier (or the thread itself),
// and one on the same address hears it ("the last block adds up"). Launches of one stream are ordered.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shadow.h"

namespace attune {
namespace simt {

struct Allocation {
  uintptr_t address = 0;
  size_t bytes = 0;
  std::string name;
  bool released = false;
  std::unique_ptr<Shadow> shadow;  // checks=full
};

/// 256-byte aligned, every byte 0xFF: a NaN, and an absurd index. Throws std::bad_alloc.
void* dev_alloc(size_t bytes, const char* name);
/// The memory stays a while, poisoned, so that a late access is found. Throws ERR_DEVICE for an address that is no allocation's.
void dev_free(void* p);
/// Frees all of it. For tests.
void dev_free_all();

/// "" if all of these bytes lie within one live allocation, else what is wrong. For the host's copies, and for native/ptxi.
std::string access_error(const void* p, size_t bytes, bool write);

/// Nobody has written these bytes yet: a kernel that reads them before is reported. One range at a time; 0 bytes: none.
void set_scratch(void* p, size_t bytes);
/// The host wrote them.
void scratch_written(const void* p, size_t bytes);

/// What blocks have published by atomics after fences, at one address or to one block: by the first epoch of the block that wrote.
struct Heard {
  struct Until {
    uint32_t epoch = 0;        // all of the block's accesses in earlier epochs
    uint32_t own_epoch = 0;    // and those of this one by
    uint16_t thread = 0xffff;  // this thread
  };
  std::map<uint32_t, Until> blocks;
  void join(const Heard& other);
  bool covers(uint32_t epoch, uint16_t thread) const;
};

/// Part of Block: what its accesses to global memory are checked with.
struct GlobalChecks {
  Heard heard;
  uint32_t fence = 0, fence_before = 0;  // epochs of the last __threadfence of any thread, and of the last one in an earlier epoch
  void begin_block() { heard.blocks.clear(), fence = fence_before = 0; }
  void fenced(uint32_t epoch) {
    if (fence != epoch) fence_before = fence;
    fence = epoch;
  }
};
/// A new launch, and a new order of things: earlier accesses are before all of it.
void begin_global_launch(const void* machine, bool epochs_restart);

}  // namespace simt
}  // namespace attune
