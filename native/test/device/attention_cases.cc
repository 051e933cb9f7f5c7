#include <cmath>

#include "device_case.h"

namespace attune {
namespace test {
namespace {

/// One call of attention: forward and backward cases come from it.
struct Call {
  DType dtype = DType::bf16;
  int64_t dim = 40, queries = 1, keys = 1, heads = 1, batch = 1;
  bool causal = false;
  enum Mask { none, shared, own, nothing } mask = none;  // [1,1,1,M]; [B,1,1,M]; likewise, and the last sample sees no key at all
  DType mask_dtype = DType::f32;
  double sharp = 1;   // scale of the queries: logits have this deviation
  double factor = 0;  // the scale attribute times sqrt(dim); 0: left out
  bool large = false;
  /// Every query sees one key: ds is zero, and a kernel's is where sums are exact. So dy and v (and y) are small whole numbers then.
  bool single() const { return keys == 1 || (causal && queries == 1); }
};

std::string name_of(const Call& c) {
  const char* const masks[] = {"", ", shared mask", ", own masks", ", nothing to see"};
  std::string name = std::string(dtype_name(c.dtype)) + " " + std::to_string(c.batch) + "x" + std::to_string(c.heads) + " heads of " + std::to_string(c.dim) +
                     ", " + std::to_string(c.queries) + " x " + std::to_string(c.keys) + masks[c.mask];
  if (c.mask != Call::none && c.mask_dtype == DType::bf16) name += " in bf16";
  if (c.causal) name += ", causal";
  if (c.sharp != 1) name += ", logits x " + std::to_string(int(c.sharp));
  if (c.factor != 0) name += ", scale x " + std::to_string(int(c.factor));
  return name;
}

Operand mask_of(const Call& c) {
  if (c.mask == Call::none) return absent();
  const int64_t samples = c.mask == Call::shared ? 1 : c.batch;
  std::vector<double> values;
  for (int64_t b = 0; b < samples; b++)
    for (int64_t key = 0; key < c.keys; key++)
      values.push_back(c.mask == Call::nothing && b + 1 == samples ? -INFINITY
                       : (key + b) % 5 == 3                        ? -INFINITY
                       : (key + b) % 7 == 5                        ? -1e4
                                                                   : 0.25 * double((key + 3 * b) % 9) - 1);
  return given(c.mask_dtype, {samples, 1, 1, c.keys}, values);
}

/// Whole numbers 1..5.
Operand whole(const Call& c, int64_t tokens, int seed) {
  std::vector<double> values;
  for (int64_t i = 0; i < c.batch * tokens * c.heads * c.dim; i++) values.push_back(double((i * 7 + i / 5 + seed) % 5 + 1));
  return given(c.dtype, {c.batch, tokens, c.heads * c.dim}, values);
}

// Bounds, as multiples of the rounding u of the output's dtype (relative L2; peaks may be 8 times that).
// bf16, u = 2^-9: rounding a number is off by at most 2 u, in the root mean square by 0.85 u (uniform over an interval of 2^-8 of the power of two below,
// numbers spread evenly over log 2). An output is rounded once, and so is every probability or ds that it sums, with terms of random signs: sqrt(2) * 0.85 u
// = 1.2 u. Twice that, because a probability's error is common to all channels of a row: few rows, or rows that one term makes, are a small sample. The f32
// rounding of a logit s moves its probability by |s| sqrt(dim) 2^-24: below u / 4 up to |s| = 1000 for 160 channels. f32 and lse, u = 2^-24 sqrt(depth), depth
// = channels and tokens summed over: that last effect is the largest, so the bound is the largest logit, four deviations.
double tolerance_of(const Call& c) { return c.dtype == DType::bf16 ? 2.4 : 4 * std::fmax(1, c.sharp * std::fmax(1, std::fabs(c.factor))); }

void add(std::vector<DeviceCase>& cases, const Call& c) {
  const Shape q{c.batch, c.queries, c.heads * c.dim}, k{c.batch, c.keys, c.heads * c.dim}, lse{c.batch, c.heads, c.queries};
  Attrs a = attrs({{"heads", double(c.heads)}, {"causal", c.causal}});
  if (c.factor != 0) a.set("scale", c.factor / std::sqrt(double(c.dim)));
  const Operand values = c.single() ? whole(c, c.keys, 1) : tensor(c.dtype, k), gradients = c.single() ? whole(c, c.queries, 2) : tensor(c.dtype, q);
  DeviceCase forward{
      name_of(c), "attention", a, {tensor(c.dtype, q, c.sharp), tensor(c.dtype, k), values, mask_of(c)}, {tensor(c.dtype, q), tensor(DType::f32, lse)}};
  forward.depth = double(c.dim + c.keys), forward.tolerance = tolerance_of(c), forward.large = c.large;
  cases.push_back(forward);
  DeviceCase backward{
      name_of(c),
      "attention_vjp",
      a,
      {gradients, tensor(c.dtype, q, c.sharp), tensor(c.dtype, k), values, from_before(c.dtype, q, 0), from_before(DType::f32, lse, 1), mask_of(c)},
      {tensor(c.dtype, q), tensor(c.dtype, k), tensor(c.dtype, k)}};
  backward.before = {{"attention", {1, 2, 3, c.mask == Call::none ? -1 : 6}, {q, lse}}};
  backward.depth = double(c.dim + c.keys + c.queries), backward.tolerance = tolerance_of(c), backward.large = c.large;
  cases.push_back(backward);
}

}  // namespace

DEVICE_CASES(attention, {
  // Every size of head, on tiles that are whole, cut, and single rows. Heads, samples, masks and causality take turns.
  const std::vector<std::pair<int64_t, int64_t>> tokens = {{7, 65}, {64, 64}, {65, 131}, {1, 131}, {77, 77}, {131, 7}, {131, 131}, {64, 200}};
  int turn = 0;
  for (const DType t : {DType::bf16, DType::f32})
    for (const int64_t dim : {8, 40, 64, 72, 80, 128, 160})
      for (const auto& [queries, keys] : tokens) {
        turn++;
        if (t == DType::f32 && turn % 2 == 0) continue;  // one kernel for all sizes, and a slow one on the host
        Call c;
        c.dtype = t, c.dim = dim, c.queries = queries, c.keys = keys, c.heads = 1 + turn % 3, c.batch = 1 + turn % 2;
        c.causal = turn % 5 == 1 || turn % 5 == 3, c.mask = Call::Mask(turn % 7 == 2 ? Call::shared : turn % 7 == 5 ? Call::own : Call::none);
        c.mask_dtype = turn % 4 < 2 ? DType::f32 : t;
        add(cases, c);
      }
  for (const DType t : {DType::bf16, DType::f32}) {
    const auto make = [&](int64_t dim, int64_t queries, int64_t keys, int64_t heads = 2, int64_t batch = 1) {
      Call c;
      c.dtype = t, c.dim = dim, c.queries = queries, c.keys = keys, c.heads = heads, c.batch = batch;
      return c;
    };
    for (const int64_t queries : {1, 65}) add(cases, make(40, queries, 1));
    for (const int64_t keys : {77, 131}) {
      Call sharp = make(40, 65, keys);
      sharp.sharp = 30;
      add(cases, sharp);
      Call blind = make(40, 65, keys, 1, 2);
      blind.mask = Call::nothing;
      add(cases, blind);
      for (const double factor : {-1., 3.}) {
        Call scaled = make(64, 65, keys);
        scaled.factor = factor;
        add(cases, scaled);
      }
    }
    // Heads that vectors do not divide, and heads that take panels of channels: one cut, one whole, and more.
    for (const int64_t dim : {5, 12, 168, 256, 328}) {
      Call c = make(dim, 65, 70);
      add(cases, c);
      c.causal = true, c.queries = 70, c.keys = 131, c.heads = 1, c.batch = 2, c.mask = dim == 256 ? Call::own : Call::none;
      add(cases, c);
    }
  }
  // So many queries for so few keys that the backward pass splits them, and that a block of the forward pass takes several tiles.
  for (const int64_t dim : {40, 160}) {
    Call c;
    c.dim = dim, c.queries = dim == 40 ? 1100 : 600, c.keys = 77;
    add(cases, c);
    c.heads = 3, c.batch = 2, c.mask = Call::own;
    add(cases, c);
  }
  Call long_causal;
  long_causal.queries = long_causal.keys = 530, long_causal.causal = true;
  add(cases, long_causal);

  // The levels of Stable Diffusion 1.5 at 64 x 64 and of SDXL at 128 x 128, each with itself and with a prompt; a text encoder; a VAE.
  struct Level {
    int64_t tokens, heads, dim;
  };
  for (const Level& level : {Level{4096, 8, 40}, Level{1024, 8, 80}, Level{256, 8, 160}, Level{64, 8, 160}, Level{4096, 10, 64}, Level{1024, 20, 64}})
    for (const int64_t keys : {level.tokens, int64_t(77)}) {
      Call c;
      c.dim = level.dim, c.queries = level.tokens, c.keys = keys, c.heads = level.heads, c.batch = level.tokens > 1024 ? 1 : 2, c.large = true;
      add(cases, c);
    }
  Call text;
  text.dim = 64, text.queries = text.keys = 77, text.heads = 12, text.batch = 2, text.causal = true, text.large = true;
  add(cases, text);
  Call vae;
  vae.dim = 512, vae.queries = vae.keys = 4096, vae.large = true;
  add(cases, vae);
})

}  // namespace test
}  // namespace attune
