// sm_90's barriers in shared memory (mbarrier) and bulk tensor copies of one block.
#pragma once
#include <map>
#include <memory>
#include <vector>

#include "machine.h"

namespace attune {
namespace ptxi {

/// A tensor map as the host machines hold it: what native/cuda/tensor_map.h calls TensorMapFields, and what cuTensorMapEncodeTiled makes opaque on a GPU.
struct TensorMapFields {
  static constexpr uint32_t kMark = 0x70616d74;
  uint64_t base, stride[4];  // bytes, of dimensions 1 and up
  uint32_t extent[5], box[5], rank, element_bytes, swizzle, mark;
  uint64_t unused[4];

  uint32_t box_bytes() const {
    uint32_t bytes = element_bytes;
    for (uint32_t k = 0; k < rank; k++) bytes *= box[k];
    return bytes;
  }
  uint32_t span() const { return swizzle == 0 ? 16 : 16u << swizzle; }
};
static_assert(sizeof(TensorMapFields) == 128, "as long as a CUtensorMap");

/// Where a swizzled layout keeps the byte of this address: bits 4 and up are crossed with `bits` bits from 7 up.
inline uint32_t swizzled(uint32_t address, uint32_t bits) { return address ^ (((address >> 7) & ((1u << bits) - 1)) << 4); }

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
