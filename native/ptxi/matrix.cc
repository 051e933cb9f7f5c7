// Matrices of a warp: ldmatrix, stmatrix, mma.sync. Fragments as the PTX manual draws them; lane l has g = l / 4 and t = l % 4.
//
// A product of two bf16, f16 or tf32 numbers is exact in f32; the sum runs over k in order, rounded at each step. (The hardware's order is its own.)
#include "memory.h"
#include "narrow.h"

namespace attune {
namespace ptxi {

namespace {

void need_all(Machine& x, const Instruction& i, Mask m) {
  if (m != kAllLanes) x.fail(i, 0, "a matrix instruction needs all 32 lanes");
}

// ---- ldmatrix, stmatrix: row r of matrix k is at the address of lane 8 k + r, 16 bytes ---------------------------------------------------------------------

template <bool kStores>
void move_matrices(Machine& x, const Instruction& i, Mask m) {
  need_all(x, i, m);
  const Item* registers = x.entry.lists.data() + i.operand[kStores ? 1 : 0];
  const int address = kStores ? 0 : 1;
  const bool transposed = i.detail[1];
  for (uint32_t k = 0; k < i.detail[0]; k++) {
    unsigned char* row[8];
    for (int r = 0; r < 8; r++) row[r] = x.memory(i, int(k) * 8 + r, i.space, x.address(i, address, int(k) * 8 + r), 16, kStores ? Use::write : Use::read);
    uint32_t* d = x.lanes<uint32_t>(registers[k].at);
    for (int l = 0; l < 32; l++) {
      const int g = l / 4, t = l % 4 * 2;
      uint16_t pair[2];
      for (int e = 0; e < 2; e++) {
        unsigned char* at = transposed ? row[t + e] + 2 * g : row[g] + 2 * (t + e);
        if (kStores) pair[e] = uint16_t(d[l] >> 16 * e), std::memcpy(at, &pair[e], 2);
        else std::memcpy(&pair[e], at, 2);
      }
      if (!kStores) d[l] = uint32_t(pair[1]) << 16 | pair[0];
    }
  }
}
template <bool kStores>
bool build_matrices(Build& b) {
  if (!b.take("sync") || !b.take("aligned") || !b.take("m8n8") || b.type() != Type::b16) return false;
  const size_t count = b.take("x4") ? 4 : b.take("x2") ? 2 : 1;
  b.take("x1");
  b.out.detail[0] = uint32_t(count), b.out.detail[1] = b.take("trans");
  b.out.space = take_space(b, Space::generic);
  if (kStores) b.address(0, 0), b.read_list(1, 1, Type::b32, count);
  else b.write_list(0, 0, Type::b32, count), b.address(1, 1);
  note_grain(b, 16);
  b.out.flow = Flow::together, b.out.all_lanes = true;
  b.out.run = move_matrices<kStores>;
  return true;
}

// ---- mma.sync --------------------------------------------------------------------------------------------------------------------------------------------

typedef float Four __attribute__((vector_size(16)));

struct Bf16Pair {
  static float low(uint32_t v) { return bits<float>(v << 16); }
  static float high(uint32_t v) { return bits<float>(v & 0xffff0000u); }
};
struct F16Pair {
  static float low(uint32_t v) { return F16::wide(uint16_t(v)); }
  static float high(uint32_t v) { return F16::wide(uint16_t(v >> 16)); }
};

/// D [16, 8] = A [16, k] B [k, 8] + C.
inline void multiply(const float (&a)[16][16], const float (&b)[16][8], float (&c)[16][8], int depth) {
  for (int r = 0; r < 16; r++) {
    Four low, high;
    std::memcpy(&low, c[r], 16), std::memcpy(&high, c[r] + 4, 16);
    for (int k = 0; k < depth; k++) {
      Four b0, b1;
      std::memcpy(&b0, b[k], 16), std::memcpy(&b1, b[k] + 4, 16);
      low += a[r][k] * b0, high += a[r][k] * b1;
    }
    std::memcpy(c[r], &low, 16), std::memcpy(c[r] + 4, &high, 16);
  }
}

/// operand: lists of 0 d, 1 a, 2 b, 3 c; detail[0]: depth.
struct Fragments {
  float a[16][16], b[16][8], c[16][8];

  template <typename Pair>
  void gather_pairs(Machine& x, const Item* ra, const Item* rb, int depth) {
    for (int n = 0; n < depth / 4; n++) {
      const uint32_t* v = x.lanes<uint32_t>(ra[n].at);
      for (int l = 0; l < 32; l++) {
        float* at = &a[l / 4 + n % 2 * 8][l % 4 * 2 + n / 2 * 8];
        at[0] = Pair::low(v[l]), at[1] = Pair::high(v[l]);
      }
    }
    for (int n = 0; n < depth / 8; n++) {
      const uint32_t* v = x.lanes<uint32_t>(rb[n].at);
      for (int l = 0; l < 32; l++) b[l % 4 * 2 + n * 8][l / 4] = Pair::low(v[l]), b[l % 4 * 2 + n * 8 + 1][l / 4] = Pair::high(v[l]);
    }
  }
  void gather_tf32(Machine& x, const Item* ra, const Item* rb, int depth) {
    const auto number = [](uint32_t v) { return bits<float>(v & 0xffffe000u); };
    for (int n = 0; n < depth / 2; n++)
      for (int l = 0; l < 32; l++) a[l / 4 + n % 2 * 8][l % 4 + n / 2 * 4] = number(x.lanes<uint32_t>(ra[n].at)[l]);
    for (int n = 0; n < depth / 4; n++)
      for (int l = 0; l < 32; l++) b[l % 4 + n * 4][l / 4] = number(x.lanes<uint32_t>(rb[n].at)[l]);
  }
  void gather_sum(Machine& x, const Item* rc) {
    for (int n = 0; n < 4; n++) {
      const float* v = x.lanes<float>(rc[n].at);
      for (int l = 0; l < 32; l++) c[l / 4 + n / 2 * 8][l % 4 * 2 + n % 2] = v[l];
    }
  }
  void scatter_sum(Machine& x, const Item* rd) {
    for (int n = 0; n < 4; n++) {
      float* v = x.lanes<float>(rd[n].at);
      for (int l = 0; l < 32; l++) v[l] = c[l / 4 + n / 2 * 8][l % 4 * 2 + n % 2];
    }
  }
};

enum class Element { bf16, f16, tf32 };

template <Element kElement>
void mma(Machine& x, const Instruction& i, Mask m) {
  need_all(x, i, m);
  const Item* lists = x.entry.lists.data();
  const int depth = int(i.detail[0]);
  Fragments f;
  if (kElement == Element::bf16) f.gather_pairs<Bf16Pair>(x, lists + i.operand[1], lists + i.operand[2], depth);
  else if (kElement == Element::f16) f.gather_pairs<F16Pair>(x, lists + i.operand[1], lists + i.operand[2], depth);
  else f.gather_tf32(x, lists + i.operand[1], lists + i.operand[2], depth);
  f.gather_sum(x, lists + i.operand[3]);
  multiply(f.a, f.b, f.c, depth);
  f.scatter_sum(x, lists + i.operand[0]);
}

bool build_mma(Build& b) {
  if (!b.take("sync") || !b.take("aligned") || !b.take("row") || !b.take("col")) return false;
  if (b.types() != 4 || b.type(0) != Type::f32 || b.type(3) != Type::f32 || b.type(1) != b.type(2)) return false;
  const Type t = b.type(1);
  const int depth = b.take("m16n8k16") ? 16 : b.take("m16n8k8") ? 8 : b.take("m16n8k4") ? 4 : 0;
  const bool tf32 = t == Type::tf32;
  if ((t != Type::bf16 && t != Type::f16 && !tf32) || depth == 0 || depth == (tf32 ? 16 : 4)) return false;
  b.write_list(0, 0, Type::f32, 4);
  b.read_list(1, 1, Type::b32, size_t(tf32 ? depth / 2 : depth / 4));
  b.read_list(2, 2, Type::b32, size_t(tf32 ? depth / 4 : depth / 8));
  b.read_list(3, 3, Type::f32, 4);
  b.out.detail[0] = uint32_t(depth);
  b.out.flow = Flow::together, b.out.all_lanes = true;
  b.out.run = t == Type::bf16 ? mma<Element::bf16> : t == Type::f16 ? mma<Element::f16> : mma<Element::tf32>;
  return true;
}

}  // namespace

void add_matrix(Families& f) { f.insert({{"ldmatrix", build_matrices<false>}, {"stmatrix", build_matrices<true>}, {"mma", build_mma}}); }

}  // namespace ptxi
}  // namespace attune
