// A block in flight: its threads and warps, and what its parts (scheduler, shadow memory, copies, barriers) keep about it. One operating system thread runs one
// block at a time and keeps this memory from block to block.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "async_copy.h"
#include "clocks.h"
#include "fiber.h"
#include "global_memory.h"
#include "launch.h"
#include "machine.h"
#include "mbarrier.h"
#include "profile.h"
#include "report.h"
#include "shadow.h"

namespace attune {
namespace simt {

/// What a thread that is not runnable waits for; deadlock reports say it.
enum class Waiting : uint8_t { nothing, block, named, collective, warpgroup, mbarrier };

/// A CUDA thread.
struct Lane : Thread {
  Fiber fiber;
  Place at{};  // of its last call that could wait
  Waiting waiting = Waiting::nothing;
  bool done = false;
  uint32_t mask = 0;  // of the collective that it waits in
  LeaderFn leader = nullptr;
  int barrier = 0;       // named barrier or mbarrier that it waits for
  uint32_t fenced = 0;   // epoch of its last __threadfence
  uint32_t commits = 0;  // groups of asynchronous operand reads
  CopyQueue copies;
};

struct Warp {
  uint32_t exists = 0, alive = 0, runnable = 0, arrived = 0;  // masks of lanes; arrived: waits in a collective
  uint32_t syncs = 0;                                         // __syncwarp of all lanes so far: a warp's clock while Clocks are off
  void* args[32];
};

struct Warpgroup {
  unsigned arrived = 0;
  Place at{};
  LeaderFn leader = nullptr;
  void* args[128];
};

/// __syncthreads, and the votes of the phase before: slow threads still read them while fast ones arrive again.
struct BlockBarrier {
  unsigned arrived = 0;
  Place at{};
  int votes = 0;
  int result[2] = {};
  char token[2];  // ThreadSanitizer's, by parity of the phase
};

/// Where a warp tile is multiplied.
struct TileMemory {
  static constexpr int kRows = 256, kColumns = 256;
  alignas(64) float a[kRows * 16], b[16 * kColumns], c[kRows * kColumns];
};

struct Block {
  const LaunchState* launch = nullptr;
  BlockView view{};
  unsigned threads = 0, alive = 0, exited = 0;
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;
  uint32_t ready = 0;  // warps with a runnable lane
  Fiber host;
  Stacks stacks;
  unsigned char* arena = nullptr;  // holds shared memory, at the same place for every block
  uint64_t random = 1;
  bool abandoned = false;

  // Time, for the checks: one more after every __syncthreads, and never the same in two blocks of this machine.
  uint32_t epoch = 1, first_epoch = 1, launch_epoch = 1;

  BlockBarrier barrier;
  NamedBarriers named;
  Mbarriers mbarriers;
  Clocks clocks;
  SharedShadow shadow;
  GlobalChecks global;
  Profile profile;
  TileMemory tile;
  uint64_t switches = 0, barriers = 0, collectives = 0, matrices = 0, matrix_conflicts = 0;  // Stats

  Block();
  ~Block();
  void begin_launch();
  /// Runs one block of the launch to its end, or until it is abandoned.
  void run(const LaunchState& launch, uint64_t index);
  /// Adds this block's counters, and starts them anew.
  void count(Stats& stats);

  /// In shared memory, or not far beside it.
  bool in_arena(const void* p) const;
  Lane& self() { return *static_cast<Lane*>(cur); }
  Warp& warp() { return warps[cur->warp]; }
  uint64_t draw() { return random ^= random << 13, random ^= random >> 7, random ^= random << 17; }
  /// How far the running thread is in time; counts within an epoch.
  uint32_t now() const { return clocks.on() ? clocks.time(cur->lin) : warps[cur->warp].syncs; }
  /// Whether what `thread` did then comes before what the running thread does now.
  bool before(uint32_t then_epoch, uint32_t then, unsigned thread) const {
    if (then_epoch != epoch || thread == cur->lin) return true;
    if (clocks.on()) return clocks.knows(cur->lin, thread) > then;
    return thread / 32 == cur->warp && then < warps[cur->warp].syncs;
  }

  /// Takes the running thread off the processor until something makes it runnable.
  void wait(Waiting what, Place at);
  void wake(unsigned thread);
  void wake_all(uint32_t lanes, unsigned warp) { warps[warp].runnable |= lanes, ready |= 1u << warp; }
  /// Back to the host: the fibers stay where they are, and end with the block.
  [[noreturn]] void abandon();
  void begin_clocks();

 private:
  Lane* pick();
  Lane* pick_runnable();
  [[noreturn]] void exit_thread();
  [[noreturn]] void deadlock();
  void begin(const LaunchState& launch, uint64_t index);
  void end();
  static void entry();
};

/// Of this operating system thread; null while it runs none.
extern ATTUNE_SIMT_THREAD Block* running;

/// Bounds, alignment and the shadow; gives the block up where the access cannot be made.
void check_shared_memory(Block& block, const void* p, size_t bytes, const Access& access);
void check_global_memory(Block& block, const void* p, size_t bytes, const Access& access);

}  // namespace simt
}  // namespace attune
