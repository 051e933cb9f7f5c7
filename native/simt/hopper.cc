#include "hopper.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "block.h"

namespace attune {
namespace simt {

using cuda::kMapRank;
using cuda::Swizzle;
using cuda::swizzled;
using cuda::TensorMapFields;

namespace {

// ---- bulk tensor copies ------------------------------------------------------------------------------------------------------------------------------------

/// A copy on its way. It has the map by value: kernel parameters live on a fiber's stack here, and the thread that issued the copy may have ended.
struct Box {
  TensorMapFields map;
  unsigned char* to;
  int at[kMapRank];
};

void land_box(const BulkArg& arg) {
  Box* const issued = reinterpret_cast<Box*>(uintptr_t(arg.w[0]));
  const Box box = *issued;
  std::free(issued);
  const TensorMapFields& map = box.map;
  const uint32_t start = uint32_t(box.to - shared_memory()), row_bytes = map.box[0] * map.element_bytes, rows = map.box_bytes() / row_bytes;
  for (uint32_t row = 0; row < rows; row++) {
    const unsigned char* from = reinterpret_cast<const unsigned char*>(map.base);
    bool inside = true;
    for (uint32_t i = 1, rest = row; i < map.rank; i++) {
      const int64_t index = box.at[i] + int64_t(rest % map.box[i]);
      rest /= map.box[i];
      inside = inside && index >= 0 && index < int64_t(map.extent[i]);
      from += index * int64_t(map.stride[i - 1]);
    }
    // Elements first .. last - 1 of the row exist; the rest is zero.
    const int64_t length = int64_t(map.box[0]), start_at = box.at[0], first = inside ? std::clamp<int64_t>(-start_at, 0, length) : length;
    const int64_t last = inside ? std::clamp<int64_t>(int64_t(map.extent[0]) - start_at, first, length) : length, size = map.element_bytes;
    if (last > first) check_global(from + (start_at + first) * size, size_t((last - first) * size), false, "tensor map", 0);
    for (int64_t i = 0; i < length; i++) {
      unsigned char* to = shared_memory() + swizzled(start + row * row_bytes + uint32_t(i * size), Swizzle(map.swizzle));
      if (i >= first && i < last) std::memcpy(to, from + (start_at + i) * size, size_t(size));
      else std::memset(to, 0, size_t(size));
    }
  }
}

}  // namespace

void load_box(void* to, const cuda::TensorMap* map, uint64_t* barrier, std::initializer_list<int> coordinates, const char* file, int line) {
  TensorMapFields fields;
  std::memcpy(&fields, map, sizeof fields);
  if (fields.mark != cuda::kTensorMapMark) return report("tma", "no tensor map at the address given");
  if (fields.rank != coordinates.size()) return report("tma", "%d coordinates for a map of %u dimensions", int(coordinates.size()), fields.rank);
  const int64_t offset = static_cast<unsigned char*>(to) - shared_memory();
  const int span = cuda::swizzle_span(Swizzle(fields.swizzle)), bytes = int(fields.box_bytes());
  if (offset % (8 * span)) report("tma", "a box goes to offset %lld, not a multiple of %d", static_cast<long long>(offset), 8 * span);
  if (offset < 0 || offset + bytes > int64_t(shared_bytes()))
    return report("tma", "a box of %d bytes leaves shared memory at offset %lld", bytes, static_cast<long long>(offset));
  Box* box;
  {
    const Quiet quiet;
    box = static_cast<Box*>(std::malloc(sizeof(Box)));
    *box = {fields, static_cast<unsigned char*>(to), {}};
    std::copy(coordinates.begin(), coordinates.end(), box->at);
  }
  BulkArg arg{};
  arg.w[0] = reinterpret_cast<uintptr_t>(box);
  bulk_issue(&land_box, arg, barrier, uint32_t(bytes), to, file, line);
}

namespace {

// ---- wgmma -------------------------------------------------------------------------------------------------------------------------------------------------

/// A multiply and its A registers at issue.
struct InFlight : Multiply {
  uint32_t seen[4];
};

/// A thread's multiplies in flight: groups end at ends[0..groups). Those that have run early still want to be waited for.
struct Queue {
  InFlight multiply[96];
  int count, ends[8], groups, retire, unwaited;
};
thread_local Queue* queues = nullptr;  // of all threads; kept, since blocks come and go on one machine thread

Queue& queue() {  // of the running thread
  if (!queues) {
    const Quiet quiet;
    queues = static_cast<Queue*>(std::calloc(1024, sizeof(Queue)));
  }
  return queues[cur->lin];
}

/// Where element (row, k) of the operand behind a descriptor lies; row counts m or n. The canonical layouts of the PTX ISA.
uint32_t operand_address(uint64_t descriptor, bool mn_major, int row, int k) {
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, leading = uint32_t(descriptor >> 16 & 0x3fff) << 4,
                 stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  const int layout = int(descriptor >> 62), span = layout == 0 ? 16 : 16 << (4 - layout);
  uint32_t address;
  if (layout == 0)
    address = mn_major ? start + row / 8 * stride + row % 8 * 2 + k % 8 * 16 + k / 8 * leading
                       : start + row / 8 * stride + row % 8 * 16 + k % 8 * 2 + k / 8 * leading;
  else if (mn_major) address = start + row / (span / 2) * leading + row % (span / 2) * 2 + k / 8 * stride + k % 8 * span;
  else address = start + row / 8 * stride + row % 8 * span + k * 2;
  return swizzled(address, layout == 0 ? Swizzle::none : Swizzle(4 - layout));
}

/// Calls put(row, k, value) for `rows` x 16 elements of an operand, from `first` on: 16-byte pieces stay whole in every layout.
template <typename Put>
void each_element(uint64_t descriptor, bool mn_major, int first, int rows, const Put& put) {
  for (int row = 0; row < rows; row += mn_major ? 8 : 1)
    for (int k = 0; k < 16; k += mn_major ? 1 : 8) {
      uint16_t bits[8];
      std::memcpy(bits, shared_memory() + operand_address(descriptor, mn_major, first + row, k), sizeof bits);
      for (int i = 0; i < 8; i++) put(mn_major ? row + i : row, mn_major ? k : k + i, __builtin_bit_cast(float, uint32_t(bits[i]) << 16));
    }
}

using Eight = float __attribute__((vector_size(32), aligned(4)));  // columns

/// One multiply of a warp's 16 rows: c [16, n].
void multiply_rows(void** lanes, int index, int warp, float* c) {
  const InFlight& op = static_cast<Queue*>(lanes[0])->multiply[index];
  float a[16][16], b[16][256];
  if (op.a_registers) {
    for (int lane = 0; lane < 32; lane++) {
      const InFlight& own = static_cast<Queue*>(lanes[lane])->multiply[index];
      if (std::memcmp(own.seen, own.a_registers, sizeof own.seen) != 0) report("wgmma", "A registers changed while the multiply was in flight");
      for (int r = 0; r < 8; r++) {  // r: half, row half, column half
        const uint32_t pair = own.seen[r / 2];
        a[lane / 4 + r / 2 % 2 * 8][lane % 4 * 2 + r / 4 * 8 + r % 2] = __builtin_bit_cast(float, r % 2 ? pair & 0xffff0000u : pair << 16);
      }
    }
  } else each_element(op.a, op.a_mn_major, warp * 16, 16, [&](int row, int k, float v) { a[row][k] = v; });
  each_element(op.b, op.b_mn_major, 0, op.n, [&](int row, int k, float v) { b[k][row] = v; });
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < op.n; j += 8) {
      Eight& at = *reinterpret_cast<Eight*>(c + i * op.n + j);
      Eight sum = op.accumulate ? at : Eight{};
      for (int k = 0; k < 16; k++) sum += a[i][k] * *reinterpret_cast<const Eight*>(&b[k][j]);
      at = sum;
    }
}

/// Runs the first `retire` groups of a warp, all multiplies of one accumulator together.
void retire_groups(void** lanes, uint32_t) {
  const Quiet quiet;
  Queue& first = *static_cast<Queue*>(lanes[0]);
  if (first.retire < 0) {  // at commit: as many as chance says
    const bool early = opt.async_copy == Async::Early;
    first.retire = early ? first.groups : opt.async_copy == Async::Late ? 0 : int(running->draw() % uint64_t(first.groups + 1));
  }
  const int retire = first.retire, end = retire > 0 ? first.ends[retire - 1] : 0, warp = int(cur->lin) / 32 % 4;
  for (int lane = 1; lane < 32; lane++) {
    const Queue& other = *static_cast<Queue*>(lanes[lane]);
    if (other.count != first.count || other.groups != first.groups) return report("wgmma", "lanes of a warp have issued different multiplies");
    for (int i = 0; i < end; i++)
      if (other.multiply[i].a != first.multiply[i].a || other.multiply[i].b != first.multiply[i].b || other.multiply[i].n != first.multiply[i].n)
        return report("wgmma", "descriptors differ within a warp");
  }
  for (int i = 0; i < end; i++) {
    if (first.multiply[i].n == 0) continue;  // done with an earlier one
    const float* accumulator = first.multiply[i].d;
    const int n = first.multiply[i].n;
    float c[16 * 256];
    const auto each = [&](auto&& move) {
      for (int lane = 0; lane < 32; lane++)
        for (int e = 0; e < n / 2; e++)
          move(static_cast<Queue*>(lanes[lane])->multiply[i].d[e], c[(lane / 4 + e / 2 % 2 * 8) * n + e / 4 * 8 + lane % 4 * 2 + e % 2]);
    };
    each([](float& d, float& at) { at = d; });
    for (int o = i; o < end; o++)
      if (first.multiply[o].d == accumulator && first.multiply[o].n) {
        if (first.multiply[o].n != n) return report("wgmma", "one accumulator, two shapes in flight");
        multiply_rows(lanes, o, warp, c);
        if (o > i) first.multiply[o].n = 0;
      }
    each([](float& d, float& at) { d = at; });
  }
  for (int lane = 0; lane < 32; lane++) {
    Queue& own = *static_cast<Queue*>(lanes[lane]);
    std::copy(own.multiply + end, own.multiply + own.count, own.multiply);
    for (int g = retire; g < own.groups; g++) own.ends[g - retire] = own.ends[g] - end;
    own.count -= end, own.groups -= retire;
  }
}

void retire(int groups, const char* file, int line) {
  Queue& own = queue();
  own.retire = groups;
  collective(0xffffffffu, uint32_t(line), &own, &retire_groups, file);
}

/// Tells the machine which 16-byte pieces a warp will read: its own 16 rows of A, and all of B.
void announce_reads(uint64_t descriptor, bool mn_major, int first, int rows, const char* file, int line) {
  for (int row = 0; row < rows; row += mn_major ? 8 : 1)
    for (int k = 0; k < 16; k += mn_major ? 1 : 8) async_read(shared_memory() + operand_address(descriptor, mn_major, first + row, k), 16, file, line);
}

}  // namespace

void end_multiplies() {
  if (!queues || (queue().count == 0 && queue().unwaited == 0)) return;
  queue().count = queue().groups = queue().unwaited = 0;
  report("wgmma", "a thread ends with multiplies that it has not waited for");
}

void forget_multiplies() {
  for (int i = 0; queues && i < 1024; i++) queues[i].count = queues[i].groups = queues[i].unwaited = 0;
}

void issue_multiply(const Multiply& multiply, const char* file, int line) {
  const Quiet quiet;
  Queue& own = queue();
  if (own.count == 96) fail("wgmma", "more multiplies in flight than the twin can hold");
  InFlight& op = own.multiply[own.count++];
  static_cast<Multiply&>(op) = multiply;
  if (op.a_registers) std::memcpy(op.seen, op.a_registers, sizeof op.seen);
  if (!checked || cur->lane != 0) return;
  if (!op.a_registers) announce_reads(op.a, op.a_mn_major, cur->warp % 4 * 16, 16, file, line);
  announce_reads(op.b, op.b_mn_major, 0, op.n, file, line);
}
void commit_multiplies(const char* file, int line) {
  Queue& own = queue();
  if (own.groups == 8) fail("wgmma", "more groups in flight than the twin can hold");
  own.ends[own.groups++] = own.count, own.unwaited++;
  async_read_commit();
  retire(-1, file, line);
}
void wait_multiplies(int left, const char* file, int line) {
  Queue& own = queue();
  own.unwaited = std::min(own.unwaited, left);
  retire(own.groups > left ? own.groups - left : 0, file, line);
  async_read_wait(left);
}

}  // namespace simt
}  // namespace attune
