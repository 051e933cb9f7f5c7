// What orders threads beside __syncthreads: named barriers, and sm_90's mbarriers with the bulk copies that complete on them. Both tell Clocks who has heard of
// whom; an arrival is heard by those who wait for its phase, not by those who waited for an earlier one.
#pragma once
#include <cstdint>
#include <vector>

#include "clocks.h"
#include "machine.h"
#include "report.h"

namespace attune {
namespace simt {

struct Block;

/// bar.sync and bar.arrive with a number.
struct NamedBarriers {
  struct One {
    unsigned arrived = 0, expected = 0;
    Place at{};
    Clocks::Told arriving, completed;
  };
  One barriers[16];
  void begin_block();
};

/// What the eight bytes in shared memory stand for; the bytes themselves hold only poison.
struct Mbarrier {
  uint32_t offset = 0;                            // of the eight bytes
  uint32_t expected = 0, pending = 0, phase = 0;  // phase: how many have ended
  int64_t bytes = 0;                              // expected and not landed, in this phase
  uint32_t made_epoch = 0;
  uint16_t maker = 0;
  Clocks::Told made, arriving, completed;
};

/// A copy that has been issued and has not landed.
struct BulkCopy {
  void (*op)(const BulkArg&);
  BulkArg arg;
  int barrier;
  uint32_t bytes;
  void* to;
};

struct Mbarriers {
  std::vector<Mbarrier> barriers;
  std::vector<BulkCopy> copies;
  void begin_block() { barriers.clear(), copies.clear(); }
  /// Lets the copy engine land one of the copies in flight.
  void land(Block& block, size_t index);
};

}  // namespace simt
}  // namespace attune
