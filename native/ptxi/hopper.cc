#include "hopper.h"

#include "memory.h"

namespace attune {
namespace ptxi {

void Hopper::begin() {
  barriers_.clear();
  in_flight_.clear();
}
void Hopper::end() {
  if (in_flight_.empty()) return;
  x_.warp = &x_.warps[size_t(in_flight_[0].warp)];
  x_.fail(*in_flight_[0].by, in_flight_[0].lane, "the block ends while this copy is in flight");
}

// ---- mbarrier --------------------------------------------------------------------------------------------------------------------------------------------

Hopper::Barrier& Hopper::at(const Instruction& i, int lane, uint64_t address) {
  const auto found = barriers_.find(uint32_t(address));
  if (found == barriers_.end()) x_.fail(i, lane, "shared byte " + std::to_string(address) + " is no mbarrier: none has been initialised there");
  x_.shadow.follow(i, lane, uint32_t(address), 8);
  return found->second;
}

void Hopper::init(const Instruction& i, int lane, uint64_t address, uint32_t arrivals) {
  if (arrivals == 0 || arrivals >= 1u << 20) x_.fail(i, lane, "an mbarrier of " + std::to_string(arrivals) + " arrivals");
  if (barriers_.count(uint32_t(address))) x_.fail(i, lane, "an mbarrier has been initialised here already");
  x_.memory(i, lane, Space::shared, address, 8, Use::write);
  x_.shadow.set_barrier(uint32_t(address), 8, true);
  Barrier b;
  b.expected = b.pending = arrivals;
  barriers_[uint32_t(address)] = b;
}

void Hopper::invalidate(const Instruction& i, int lane, uint64_t address) {
  at(i, lane, address);
  barriers_.erase(uint32_t(address));
  x_.shadow.set_barrier(uint32_t(address), 8, false);
}

/// A phase ends when everyone has arrived and every byte has landed.
void Hopper::settle(Barrier& b) {
  if (b.pending || b.bytes) return;
  b.phase++;
  b.pending = b.expected;
  b.ended.join(b.arriving);
  x_.events++;
}

uint64_t Hopper::arrive(const Instruction& i, int lane, uint64_t address, uint32_t arrivals, uint32_t bytes) {
  Barrier& b = at(i, lane, address);
  const uint64_t phase = b.phase;
  b.bytes += bytes;
  if (arrivals == 0) return phase;
  if (arrivals > b.pending)
    x_.fail(i, lane, std::to_string(arrivals) + " arrivals at an mbarrier that waits for " + std::to_string(b.pending) + " of " + std::to_string(b.expected));
  b.pending -= arrivals;
  b.arriving.join(x_.shadow.knowledge(x_.warp->index));
  x_.shadow.tick(x_.warp->index);
  settle(b);
  return phase;
}

uint64_t Hopper::phase(const Instruction& i, int lane, uint64_t address) { return at(i, lane, address).phase; }
void Hopper::hear(const Instruction& i, int lane, uint64_t address) { x_.shadow.hear(x_.warp->index, at(i, lane, address).ended); }

void Hopper::arrive_for_copies(const Instruction& i, Mask m) {
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const uint64_t address = x_.address(i, 0, l);
    if (!i.detail[0]) at(i, l, address).pending++;  // without .noinc the arrival is one that the barrier did not count on
    arrive(i, l, address, 1, 0);
  }
}

// ---- bulk tensor copies ----------------------------------------------------------------------------------------------------------------------------------

namespace {

/// f(bytes into the box, address in global memory or 0 outside of the tensor) for every row of a box, cut where it enters or leaves the tensor.
template <typename F>
void for_pieces(const TensorMapFields& map, const int32_t* at, F&& f) {
  const uint32_t row_bytes = map.box[0] * map.element_bytes, rows = map.box_bytes() / row_bytes;
  for (uint32_t row = 0; row < rows; row++) {
    uint64_t from = map.base;
    bool inside = true;
    for (uint32_t k = 1, rest = row; k < map.rank; k++) {
      const int64_t index = at[k] + int64_t(rest % map.box[k]);
      rest /= map.box[k];
      inside = inside && index >= 0 && index < int64_t(map.extent[k]);
      from += uint64_t(index) * map.stride[k - 1];
    }
    const int64_t first = std::max<int64_t>(at[0], 0), last = std::min<int64_t>(int64_t(at[0]) + map.box[0], map.extent[0]);
    const uint32_t begin = row * row_bytes;
    if (!inside || first >= last) {
      f(begin, row_bytes, uint64_t(0));
      continue;
    }
    const uint32_t before = uint32_t(first - at[0]) * map.element_bytes, length = uint32_t(last - first) * map.element_bytes;
    if (before) f(begin, before, uint64_t(0));
    f(begin + before, length, from + uint64_t(first) * map.element_bytes);
    if (before + length < row_bytes) f(begin + before + length, row_bytes - before - length, uint64_t(0));
  }
}

}  // namespace

void Hopper::load_box(const Instruction& i, int lane, uint64_t to, uint64_t map, uint64_t barrier, const int32_t* at, uint32_t rank) {
  Bulk bulk{};
  for (uint32_t half = 0; half < 2; half++)
    std::memcpy(reinterpret_cast<unsigned char*>(&bulk.map) + 64 * half, x_.memory(i, lane, Space::generic, map + 64 * half, 64, Use::read), 64);
  const TensorMapFields& m = bulk.map;
  if (m.mark != cuda::kTensorMapMark) x_.fail(i, lane, "no tensor map at the address given");
  if (m.rank != rank) x_.fail(i, lane, "coordinates for " + std::to_string(rank) + " dimensions, and a map of " + std::to_string(m.rank));
  const uint32_t bytes = m.box_bytes();
  const uint64_t room = uint64_t(x_.entry.static_shared + x_.start.shared_bytes);
  const uint64_t unit = 8 * uint64_t(cuda::swizzle_span(cuda::Swizzle(m.swizzle)));
  if (to % unit) x_.fail(i, lane, "a box goes to shared byte " + std::to_string(to) + ", not a multiple of " + std::to_string(unit));
  if (to + bytes > room)
    x_.fail(i, lane, "a box of " + std::to_string(bytes) + " bytes goes to shared byte " + std::to_string(to) + " of " + std::to_string(room));
  for_pieces(m, at, [&](uint32_t, uint32_t length, uint64_t from) {
    if (from) x_.global(i, lane, from, length, 1, false);
  });
  this->at(i, lane, barrier);
  x_.shadow.begin_copy(i, lane, uint32_t(to), bytes);
  bulk.to = uint32_t(to), bulk.barrier = uint32_t(barrier), bulk.warp = x_.warp->index, bulk.lane = lane, bulk.by = &i;
  std::copy(at, at + rank, bulk.at);
  bulk.time = x_.shadow.now(bulk.warp), bulk.clock = x_.shadow.knowledge(bulk.warp);
  x_.shadow.tick(bulk.warp);
  const Arrival a = x_.options.copies;
  if (a == Arrival::early || (a == Arrival::random && x_.random() % 2)) return land(bulk);
  std::memset(x_.shared.data() + to, 0xFF, bytes);
  in_flight_.push_back(bulk);
}

void Hopper::land(const Bulk& bulk) {
  for_pieces(bulk.map, bulk.at, [&](uint32_t begin, uint32_t length, uint64_t from) {
    for (uint32_t k = 0; k < length;) {  // in runs that no swizzle takes apart
      const uint32_t address = bulk.to + begin + k, run = std::min(length - k, 16 - address % 16);
      unsigned char* at = x_.shared.data() + cuda::swizzled(address, cuda::Swizzle(bulk.map.swizzle));
      if (from) std::memcpy(at, reinterpret_cast<const unsigned char*>(from) + k, run);
      else std::memset(at, 0, run);
      k += run;
    }
  });
  const uint32_t bytes = bulk.map.box_bytes();
  x_.shadow.end_copy(bulk.warp, bulk.lane, bulk.to, bytes, bulk.time);
  x_.shadow.set_async(bulk.to, bytes);
  Barrier& b = barriers_[bulk.barrier];
  b.arriving.join(bulk.clock);
  b.bytes -= bytes;
  settle(b);
  x_.events++;
}

bool Hopper::land_one() {
  if (in_flight_.empty()) return false;
  const size_t k = x_.options.copies == Arrival::random ? x_.random() % in_flight_.size() : 0;
  const Bulk bulk = in_flight_[k];
  in_flight_.erase(in_flight_.begin() + std::ptrdiff_t(k));
  land(bulk);
  return true;
}

}  // namespace ptxi
}  // namespace attune
