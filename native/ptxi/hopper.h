// sm_90's barriers in shared memory (mbarrier) and bulk tensor copies of one block.
#pragma once
#include <map>
#include <memory>
#include <vector>

#include "../cuda/tensor_map.h"
#include "machine.h"

namespace attune {
namespace ptxi {

using cuda::TensorMapFields;

class Hopper {
 public:
  explicit Hopper(Machine& x) : x_(x) {}
  void begin();
  void end();
  /// Lets a bulk copy land; false if none is in flight.
  bool land_one();

  void init(const Instruction& i, int lane, uint64_t address, uint32_t arrivals);
  void invalidate(const Instruction& i, int lane, uint64_t address);
  /// Returns the phase arrived in. bytes: of copies that the phase shall wait for as well.
  uint64_t arrive(const Instruction& i, int lane, uint64_t address, uint32_t arrivals, uint32_t bytes);
  /// Whether a phase has ended: the current one's number, and what its end made known.
  uint64_t phase(const Instruction& i, int lane, uint64_t address);
  void hear(const Instruction& i, int lane, uint64_t address);
  void arrive_for_copies(const Instruction& i, Mask m);
  void load_box(const Instruction& i, int lane, uint64_t to, uint64_t map, uint64_t barrier, const int32_t* at, uint32_t rank);

 private:
  struct Barrier {
    uint32_t expected = 0, pending = 0;
    int64_t bytes = 0;
    uint64_t phase = 0;
    Clock arriving, ended;
  };
  struct Bulk {
    TensorMapFields map;
    int32_t at[5];
    uint32_t to, barrier, time;
    int warp, lane;
    Clock clock;
    const Instruction* by;
  };
  Barrier& at(const Instruction& i, int lane, uint64_t address);
  void settle(Barrier& b);
  void land(const Bulk& bulk);

  Machine& x_;
  std::map<uint32_t, Barrier> barriers_;
  std::vector<Bulk> in_flight_;
};

}  // namespace ptxi
}  // namespace attune
