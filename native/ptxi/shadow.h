// What is known about each piece of a block's shared memory: who wrote and read it last, and when; whether a copy is on its way into it. An access that is
// not ordered after a conflicting one by a barrier is an error on every schedule, not only on the one at hand.
//
// Order is kept by vector clocks, one component per warp: time passes for a warp whenever it lets others know of what it has done (an arrival at a barrier),
// and an access is ordered after one by warp v at time t if the accessing warp has heard of v's time t. Lanes of one warp are ordered by bar.warp.sync alone.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace attune {
namespace ptxi {

constexpr int kMaxWarps = 32;
constexpr uint8_t kWholeWarp = 0xff, kSeveralLanes = 0xfe;

struct Clock {
  std::array<uint32_t, kMaxWarps> time{};
  void join(const Clock& other) {
    for (int w = 0; w < kMaxWarps; w++) time[w] = other.time[w] > time[w] ? other.time[w] : time[w];
  }
};

enum class Use : uint8_t { read, write, atomic };

class Machine;
struct Instruction;

class Shadow {
 public:
  explicit Shadow(Machine& machine) : machine_(machine) {}
  /// A block begins. grain: bytes of one piece, a power of two.
  void begin(uint32_t bytes, uint32_t grain, int warps);

  /// An access by the current warp.
  void use(const Instruction& i, int lane, uint32_t offset, uint32_t bytes, Use use);
  /// An asynchronous copy into these bytes begins, and is a write from here on; it ends when its thread has waited for it.
  void begin_copy(const Instruction& i, int lane, uint32_t offset, uint32_t bytes);
  void end_copy(int warp, int lane, uint32_t offset, uint32_t bytes, uint32_t time);
  /// The tensor core reads these bytes from here on, until its warp has waited for it.
  void begin_read(const Instruction& i, uint32_t offset, uint32_t bytes);
  void end_read(int warp, uint32_t offset, uint32_t bytes);
  /// These bytes are a barrier object: no plain access.
  void set_barrier(uint32_t offset, uint32_t bytes, bool on);
  void set_async(uint32_t offset, uint32_t bytes);
  /// Errors unless these bytes were written, and before this.
  void follow(const Instruction& i, int lane, uint32_t offset, uint32_t bytes);
  /// Errors unless the writes to these bytes have passed a fence.proxy.async.
  void check_fenced(const Instruction& i, int lane, uint32_t offset, uint32_t bytes);

  // Time.
  uint32_t now(int warp) const { return now_[warp]; }
  /// What a warp knows, itself included.
  Clock knowledge(int warp) const {
    Clock c = heard_[warp];
    c.time[warp] = now_[warp];
    return c;
  }
  void hear(int warp, const Clock& c) { heard_[warp].join(c); }
  void tick(int warp) { now_[warp] = ++clock_; }
  void fence(int warp) { fenced_.join(knowledge(warp)); }

  int warps() const { return warps_; }

 private:
  struct Piece {
    uint32_t write_time = 0;
    const Instruction *written_by = nullptr, *read_by = nullptr;
    uint8_t writer = 0, write_lane = 0, reader = 0, read_lane = 0;
    bool atomic = false, barrier = false, async = false;
    uint8_t copying = 0, reading = 0;
  };
  bool ordered(uint32_t time, int writer, int its_lane, int warp, int lane) const {
    if (writer == warp) return its_lane == lane || time < now_[warp];
    return time <= heard_[warp].time[size_t(writer)];
  }
  void check_state(const Instruction& i, int lane, uint32_t at, const Piece& p, bool write);
  void check_after_write(const Instruction& i, int lane, uint32_t at, const Piece& p, const char* what);
  void check_after_reads(const Instruction& i, int lane, uint32_t at, const Piece& p);
  [[noreturn]] void race(const Instruction& i, int lane, uint32_t at, const char* what, const char* other, int warp, int its_lane, const Instruction* by);

  Machine& machine_;
  uint32_t bytes_ = 0, shift_ = 0, begin_ = 0, clock_ = 0;
  int warps_ = 0;
  std::vector<Piece> pieces_;
  std::vector<uint32_t> reads_;  // [piece][warp]: time of its last read
  std::array<uint32_t, kMaxWarps> now_{};
  std::array<Clock, kMaxWarps> heard_{};
  Clock fenced_;
};

}  // namespace ptxi
}  // namespace attune
