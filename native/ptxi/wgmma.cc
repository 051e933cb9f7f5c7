// wgmma: products of a warpgroup, A in shared memory or registers, B in shared memory, both behind descriptors. Each warp multiplies its own 16 rows when it
// issues; from then on until the wait, whoever writes the operands' bytes or touches the accumulators is in error.
#include "hopper.h"
#include "memory.h"
#include "narrow.h"

namespace attune {
namespace ptxi {

namespace {

/// A matrix in shared memory as its descriptor tells: PTX ISA, "Shared Memory Matrix Layout". `row` counts m or n.
struct Operand {
  uint32_t start, leading, stride, bits, span;
  bool mn_major;
  Operand(uint64_t descriptor, bool mn_major)
      : start(uint32_t(descriptor & 0x3fff) << 4),
        leading(uint32_t(descriptor >> 16 & 0x3fff) << 4),
        stride(uint32_t(descriptor >> 32 & 0x3fff) << 4),
        mn_major(mn_major) {
    const uint32_t layout = uint32_t(descriptor >> 62);  // 0 none, 1 128 bytes, 2 64, 3 32
    bits = layout == 0 ? 0 : 4 - layout;
    span = layout == 0 ? 16 : 16u << bits;
  }
  /// Of the 16 bytes that element (row, k) lies in when it is the first of them; elements go on along k, or along rows if mn_major.
  uint32_t chunk(uint32_t row, uint32_t k) const {
    uint32_t address = 0;
    if (bits == 0) address = mn_major ? start + row / 8 * stride + k % 8 * 16 + k / 8 * leading : start + row / 8 * stride + row % 8 * 16 + k / 8 * leading;
    else if (mn_major) address = start + row / (span / 2) * leading + row % (span / 2) * 2 + k / 8 * stride + k % 8 * span;
    else address = start + row / 8 * stride + row % 8 * span + k * 2;
    return cuda::swizzled(address, cuda::Swizzle(bits));
  }
};

/// Reads rows [first, first + rows) of 16 columns of k: to[row][k].
void gather(Machine& x, const Instruction& i, const Operand& o, uint32_t first, uint32_t rows, float (*to)[16], Warp::Product& product) {
  const uint32_t size = uint32_t(x.entry.static_shared + x.start.shared_bytes);
  const auto read = [&](uint32_t row, uint32_t k) {
    const uint32_t at = o.chunk(first + row, k);
    if (at + 16 > size) x.fail(i, 0, "an operand reaches shared byte " + std::to_string(at + 15) + " of " + std::to_string(size));
    x.shadow.begin_read(i, at, 16);
    x.shadow.check_fenced(i, 0, at, 16);
    product.reads.push_back({at, 16});
    uint16_t eight[8];
    std::memcpy(eight, x.shared.data() + at, 16);
    for (uint32_t e = 0; e < 8; e++) (o.mn_major ? to[row + e][k] : to[row][k + e]) = Bf16::wide(eight[e]);
  };
  if (o.mn_major)
    for (uint32_t k = 0; k < 16; k++)
      for (uint32_t row = 0; row < rows; row += 8) read(row, k);
  else
    for (uint32_t row = 0; row < rows; row++) read(row, 0), read(row, 8);
}

uint64_t same_in_all(Machine& x, const Instruction& i, int slot) {
  const uint64_t* v = x.lanes<uint64_t>(i.operand[slot]);
  for (int l = 1; l < 32; l++)
    if (v[l] != v[0]) x.fail(i, l, "the lanes of a warp hold different descriptors");
  return v[0];
}

/// Nothing else may write these registers until the wait.
void hold(Warp& w, const Warp::Product& p, bool now = true) {
  for (const auto* list : {&p.accumulators, &p.a})
    for (const Item& r : *list) w.held[r.index] = now;
}

/// operand: 0 list of d, 1 descriptor or list of a, 2 descriptor of b, 3 predicate: d counts; detail[0]: n; [1]: 1 a is m-major, 2 b is n-major, 4 a in
/// registers.
void issue(Machine& x, const Instruction& i, Mask m) {
  Warp& w = *x.warp;
  if (m != kAllLanes) x.fail(i, 0, "wgmma needs all 32 lanes");
  const uint32_t n = i.detail[0];
  const Item *d = x.entry.lists.data() + i.operand[0], *ra = x.entry.lists.data() + i.operand[1];
  const Mask keeps = x.predicate(i.operand[3]);
  if (keeps != 0 && keeps != kAllLanes) x.fail(i, 0, "the lanes disagree on whether the sum starts anew");
  const auto fenced = [&](const Item& r) {
    if (w.written[r.index] > w.fenced) x.fail(i, 0, "a register has been written since the last wgmma.fence");
  };
  Warp::Product product;
  product.group = w.wgmma_group, product.by = &i;
  product.accumulators.assign(d, d + n / 2);
  for (const Item& r : product.accumulators) {
    fenced(r);
    const auto holds = [&](const Warp::Product& p) { return p.accumulators.size() == n / 2 && p.accumulators[0].index == d[0].index; };
    const bool in_flight = std::any_of(w.products.begin(), w.products.end(), holds);
    if (keeps && !in_flight && w.set[r.index] != kAllLanes) x.fail(i, 0, "adds to a register that has not been written");
  }

  float a[16][16], b[256][16], sum[16][256], turned[16][256];
  if (i.detail[1] & 4) {
    for (int k = 0; k < 4; k++) {
      fenced(ra[k]);
      product.a.push_back(ra[k]);
      const uint32_t* v = x.lanes<uint32_t>(ra[k].at);
      for (int l = 0; l < 32; l++) {
        float* at = &a[l / 4 + k % 2 * 8][l % 4 * 2 + k / 2 * 8];
        at[0] = bits<float>(v[l] << 16), at[1] = bits<float>(v[l] & 0xffff0000u);
      }
    }
  } else gather(x, i, Operand(same_in_all(x, i, 1), i.detail[1] & 1), uint32_t(w.index % 4) * 16, 16, a, product);
  gather(x, i, Operand(same_in_all(x, i, 2), i.detail[1] & 2), 0, n, b, product);

  // d[4 j + 2 h + e] of lane l is row l / 4 + 8 h, column 8 j + l % 4 * 2 + e.
  const auto row = [](int l, uint32_t e) { return uint32_t(l) / 4 + e / 2 % 2 * 8; };
  const auto column = [](int l, uint32_t e) { return e / 4 * 8 + uint32_t(l) % 4 * 2 + e % 2; };
  for (uint32_t e = 0; e < n / 2; e++)
    for (int l = 0; l < 32; l++) sum[row(l, e)][column(l, e)] = keeps ? x.lanes<float>(d[e].at)[l] : 0.f;
  for (uint32_t k = 0; k < 16; k++)
    for (uint32_t c = 0; c < n; c++) turned[k][c] = b[c][k];
  for (uint32_t r = 0; r < 16; r++)
    for (uint32_t k = 0; k < 16; k++) {
      const float factor = a[r][k];
      float* s = sum[r];
      const float* t = turned[k];
      for (uint32_t c = 0; c < n; c++) s[c] += factor * t[c];
    }
  for (uint32_t e = 0; e < n / 2; e++) {
    for (int l = 0; l < 32; l++) x.lanes<float>(d[e].at)[l] = sum[row(l, e)][column(l, e)];
    w.set[d[e].index] = 0;  // until the wait
  }
  hold(w, product);
  w.products.push_back(std::move(product));
}

void fence(Machine& x, const Instruction&, Mask) { x.warp->fenced = x.warp->count; }
void commit(Machine& x, const Instruction&, Mask) { x.warp->wgmma_group++; }
void wait(Machine& x, const Instruction& i, Mask) {
  Warp& w = *x.warp;
  std::vector<Warp::Product> left;
  for (Warp::Product& p : w.products) {
    if (p.group + i.detail[0] >= w.wgmma_group) {
      left.push_back(std::move(p));
      continue;
    }
    for (const auto& [offset, bytes] : p.reads) x.shadow.end_read(w.index, offset, bytes);
    for (const Item& r : p.accumulators) w.set[r.index] = kAllLanes;
    hold(w, p, false);
  }
  for (const Warp::Product& p : left) {
    for (const Item& r : p.accumulators) w.set[r.index] = 0;
    hold(w, p);
  }
  w.products = std::move(left);
}

bool build(Build& b) {
  if (!b.take("sync") || !b.take("aligned")) return false;
  b.entry.wgmma = true;
  b.out.flow = Flow::together, b.out.all_lanes = true;
  if (b.take("fence")) b.out.run = fence;
  else if (b.take("commit_group")) b.out.run = commit;
  else if (b.take("wait_group")) b.out.detail[0] = uint32_t(b.literal(0)), b.out.run = wait;
  else if (b.take("mma_async")) {
    if (b.types() != 3 || b.type(0) != Type::f32 || b.type(1) != Type::bf16 || b.type(2) != Type::bf16) return false;
    uint32_t n = 0;
    for (uint32_t k = 8; k <= 256 && !n; k += 8)
      if (b.take("m64n" + std::to_string(k) + "k16")) n = k;
    if (!n) return false;
    const bool in_registers = b.term(1).kind == Term::vector;
    b.raw_list(0, 0, Type::f32, n / 2);
    if (in_registers) b.read_list(1, 1, Type::b32, 4);
    else b.read(1, 1, Type::b64);
    b.read(2, 2, Type::b64), b.read(3, 3, Type::pred);
    if (b.literal(4) != 1 || b.literal(5) != 1) b.fail("ptxi knows no negated operands of wgmma");
    const uint64_t a_major = in_registers ? 0 : b.literal(6), b_major = b.literal(in_registers ? 6 : 7);
    b.out.detail[0] = n, b.out.detail[1] = (a_major ? 1 : 0) | (b_major ? 2 : 0) | (in_registers ? 4 : 0);
    b.out.space = Space::shared;
    note_grain(b, 16);
    b.out.run = issue;
  } else return false;
  return true;
}

}  // namespace

void add_wgmma(Families& f) { f.insert({{"wgmma", build}}); }

}  // namespace ptxi
}  // namespace attune
