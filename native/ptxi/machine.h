// The machine that interprets a kernel: a grid's blocks one after the other, the warps of a block in turns, the lanes of a warp that stand at the lowest
// instruction together.
#pragma once
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "program.h"
#include "shadow.h"

namespace attune {
namespace ptxi {

struct Dim {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
};

enum class Order : uint8_t { forward, reverse, random };
enum class Arrival : uint8_t { late, early, random };  // when an asynchronous copy lands between its issue and its wait

struct Options {
  Order order = Order::forward;
  Arrival copies = Arrival::late;
  uint64_t seed = 1;
  /// "" if these bytes lie within one live allocation of the device, else what is wrong.
  std::string (*access_error)(const void* p, size_t bytes, bool write) = nullptr;
};

struct Start {
  Dim grid, block;
  int shared_bytes = 0;                   // dynamic
  std::vector<unsigned char> parameters;  // laid out as the entry says
};

class Module;

/// Runs a kernel. Errors are ERR_DEVICE and say kernel, block, thread, line and instruction.
void interpret(const Module& module, const Entry& entry, const Start& start, const Options& options);

/// 64-byte aligned bytes.
class Bytes {
 public:
  void resize(size_t bytes) {
    memory_.assign(bytes + 64, 0);
    begin_ = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
  }
  unsigned char* data() { return begin_; }

 private:
  std::vector<unsigned char> memory_;
  unsigned char* begin_ = nullptr;
};

/// A cp.async between its issue and its wait.
struct Copy {
  int lane;
  uint32_t group;  // of its lane
  uint32_t to, bytes, valid;
  const unsigned char* from;
  const Instruction* by;
};

struct Warp {
  enum State : uint8_t { ready, waiting, polling, done };
  int index = 0;
  State state = ready;
  Mask live = 0, parked = 0;  // parked: at a collective, until the other lanes come
  uint32_t pc[32] = {};
  Bytes file;
  std::vector<Mask> set;                    // of each register: lanes that have been written
  std::vector<const Instruction*> spoiled;  // by which its lanes became unset again
  std::vector<unsigned char> local;
  std::vector<Copy> copies;
  uint32_t open_group[32] = {};  // the group that a lane's next cp.async joins
  Mask carry = 0;                // of add.cc
  Mask refused = 0;              // a poll was in vain for these
  uint64_t events_at_refusal = 0;
  int barrier = -1;  // waits at this one
  const Instruction* stands_at = nullptr;
  std::vector<uint32_t> written;  // of each register: count_ at its last write; only where wgmma needs it
  uint32_t count = 0, fenced = 0, wgmma_group = 0;
  struct Product {  // a wgmma.mma_async between its issue and its wait
    uint32_t group;
    const Instruction* by;
    std::vector<Item> accumulators, a;                 // a: where it is in registers
    std::vector<std::pair<uint32_t, uint32_t>> reads;  // offset, bytes in shared memory
  };
  std::vector<Product> products;
  std::vector<bool> held;  // of each register: a product in flight works on it
};

/// bar.sync and its kin: 16 a block.
struct Barrier {
  uint32_t arrived = 0, expected = 0;  // threads; expected 0: all warps that live
  Clock clock{};
  uint32_t popc = 0;
  bool all = true, any = false;
  struct Result {
    int warp;
    const Instruction* by;
  };
  std::vector<Result> results;  // of bar.red
};

class Hopper;

class Machine {
 public:
  Machine(const Module& module, const Entry& entry, const Start& start, const Options& options);
  ~Machine();
  void run();

  // What handlers use.
  template <typename T>
  T* lanes(uint32_t place) {
    return reinterpret_cast<T*>(file + place);
  }
  Mask& predicate(uint32_t place) { return *reinterpret_cast<Mask*>(file + place); }
  [[noreturn]] void fail(const Instruction& i, int lane, const std::string& what);
  std::string thread_name(int warp, int lane) const;

  /// The bytes behind an address, checked. lane: who asks.
  unsigned char* memory(const Instruction& i, int lane, Space space, uint64_t address, uint32_t bytes, Use use);
  /// Global memory alone.
  unsigned char* global(const Instruction& i, int lane, uint64_t address, uint32_t bytes, uint32_t alignment, bool write);
  /// The base plus offset of an address operand.
  uint64_t address(const Instruction& i, int slot, int lane) {
    const uint64_t base = i.detail[3] == 8 ? lanes<uint64_t>(i.operand[slot])[lane] : lanes<uint32_t>(i.operand[slot])[lane];
    return base + uint64_t(i.offset);
  }

  void arrive(const Instruction& i, int barrier, uint32_t threads, bool wait);
  void release(Barrier& b);
  /// Lands the copies of these lanes but for those of each lane's last `open` groups.
  void land(Mask m, uint32_t open);
  uint64_t random();

  const Module& module;
  const Entry& entry;
  const Start& start;
  const Options& options;
  Dim block_index;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  Warp* warp = nullptr;
  unsigned char* file = nullptr;
  std::vector<unsigned char> shared;
  Shadow shadow;
  std::unique_ptr<Hopper> hopper;
  uint64_t events = 0;  // grows with whatever a poll may be waiting for

 private:
  void run_block();
  void begin_block();
  void end_block();
  void fill_presets(Warp& w, bool first);
  void run_warp(Warp& w, uint64_t budget);
  Mask next_group(Warp& w, uint32_t& pc);
  bool gather(const Instruction& i, Mask active, Mask& m, uint32_t pc);
  void run_partly(const Instruction& i, Mask m);
  [[noreturn]] void held(const Instruction& i, uint32_t index);
  [[noreturn]] void unset(const Instruction& i, Mask lanes, uint32_t index);
  [[noreturn]] void deadlock();
  [[noreturn]] void diverged(Warp& w);

  uint64_t random_ = 1;
  uint64_t left_ = 0;  // instructions that the block may yet take
  std::string kernel_;
};

}  // namespace ptxi
}  // namespace attune
