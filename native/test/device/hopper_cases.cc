// Products and attention that the sm_90a engines take (run with ATTUNE_SIMT=arch=90). On the host machine's 4 multiprocessors these sizes reach every tile and
// layout, rings that wrap within a tile and from one tile to the next, parts of k, cut tiles, and every way that a box of pixels leaves a map.
#include "device_case.h"
#include "fused_reference.h"

namespace attune {
namespace test {

namespace {

constexpr DType T = DType::bf16, F = DType::f32;
const std::vector<double> kSame = {1, 1, 1, 1};

std::string sizes(std::initializer_list<int64_t> list) {
  std::string text = "hopper ";
  for (const int64_t v : list) text += (text.size() > 7 ? "x" : "") + std::to_string(v);
  return text;
}

/// y [m, n] = x [m, k] W^T and both gradients.
void products(std::vector<DeviceCase>& cases, int64_t m, int64_t n, int64_t k) {
  const std::string name = sizes({m, n, k});
  const auto add = [&](const char* op, std::vector<Operand> in, Operand out, int64_t depth) {
    DeviceCase c{name, op, {}, std::move(in), {std::move(out)}};
    c.depth = double(depth);
    cases.push_back(c);
  };
  add("linear", {tensor(T, {m, k}), tensor(T, {n, k}), tensor(F, {n})}, tensor(T, {m, n}), k);
  add("linear_dx", {tensor(T, {m, n}), tensor(T, {n, k})}, tensor(F, {m, k}), n);
  add("linear_dw", {tensor(T, {m, n}), tensor(T, {m, k})}, tensor(F, {n, k}), m);
}

void activated(std::vector<DeviceCase>& cases, const std::string& activation, DType out, int64_t m, int64_t n, int64_t k, bool bias, bool residual) {
  DeviceCase c{sizes({m, n, k}) + " " + activation + " to " + dtype_name(out), "linear_fused", attrs({{"activation", activation}}), {}, {tensor(out, {m, n})}};
  const int64_t rows = activation == "geglu" ? 2 * n : n;
  c.inputs = {tensor(T, {m, k}), tensor(T, {rows, k}, 1 / std::sqrt(double(k))), bias ? tensor(F, {rows}) : absent(),
              residual ? tensor(out, {m, n}) : absent()};
  c.depth = double(k);
  cases.push_back(c);
}

struct Conv {
  const char* name;
  int64_t batch, height, width, in, in2, out;
  int64_t groups = 0;
  int64_t upsample = 1, kernel = 3, stride = 1;
  std::vector<double> padding = kSame;
};

void convolution(std::vector<DeviceCase>& cases, const Conv& c) {
  const auto outputs = [&](int64_t size, double before, double after) { return (size * c.upsample + int64_t(before + after) - c.kernel) / c.stride + 1; };
  const int64_t h = outputs(c.height, c.padding[0], c.padding[1]), w = outputs(c.width, c.padding[2], c.padding[3]), all = c.in + c.in2;
  const Attrs how = attrs({{"stride", double(c.stride)}, {"padding", c.padding}, {"upsample", double(c.upsample)}});
  Attrs fused = how;
  fused.set("activation", std::string("silu")), fused.set("statistics", double(c.groups));
  const Operand x = tensor(T, {c.batch, c.height, c.width, c.in}), x2 = c.in2 ? tensor(T, {c.batch, c.height, c.width, c.in2}) : absent();
  const Operand y = tensor(T, {c.batch, h, w, c.out}), weight = tensor(T, {c.out, c.kernel, c.kernel, all}, 1 / std::sqrt(double(all * 9)));
  const Operand dw = tensor(F, {c.out, c.kernel, c.kernel, all});
  const std::string name = std::string("hopper ") + c.name;
  DeviceCase forward{name, "conv2d_fused", fused, {x, x2, weight, tensor(F, {c.out}), tensor(T, {c.batch, c.out}), y}, {y}};
  forward.depth = double(all * 9);
  if (c.groups) {  // of an f32 output: y's rounding would hide what the statistics lose. Their means are large enough to be seen beside M2
    forward.inputs[5] = tensor(F, y.shape, 0.1, 2), forward.outputs = {tensor(F, y.shape), tensor(F, {c.batch, h * w / 128, c.groups, 2})};
    forward.depth = double(all * 9) + 128. * double(c.out / c.groups);
  }
  cases.push_back(forward);
  if (c.groups) return;
  DeviceCase gradient{name, "conv2d_dw_fused", how, {y, x, x2}, {dw}};
  gradient.depth = double(c.batch * h * w);
  cases.push_back(gradient);
  DeviceCase accumulate{name, "conv2d_dw_accumulate", how, {dw, y, x, x2}, {over(0, F, dw.shape)}};
  accumulate.depth = gradient.depth;
  cases.push_back(accumulate);
  if (c.in2 || c.upsample > 1) return;
  DeviceCase dx{name, "conv2d_dx", how, {y, weight}, {x}};
  cases.push_back(dx);
}

void attends(std::vector<DeviceCase>& cases, int64_t dim, int64_t queries, int64_t keys, int64_t heads, int64_t batch, bool causal) {
  const Shape q{batch, queries, heads * dim}, k{batch, keys, heads * dim};
  DeviceCase c{sizes({batch, heads, dim, queries, keys}) + (causal ? " causal" : ""),
               "attention",
               attrs({{"heads", double(heads)}, {"causal", causal}}),
               {tensor(T, q, 2), tensor(T, k), tensor(T, k), absent()},
               {tensor(T, q), tensor(F, {batch, heads, queries})}};
  c.depth = double(dim + keys);
  cases.push_back(c);
  const Operand y = from_before(T, q, 0), lse = from_before(F, {batch, heads, queries}, 1);
  DeviceCase gradients{c.name, "attention_vjp", c.attrs, {tensor(T, q), tensor(T, q, 2), tensor(T, k), tensor(T, k), y, lse, absent()}, {}};
  gradients.outputs = {tensor(T, q), tensor(T, k), tensor(T, k)}, gradients.before = {{"attention", {1, 2, 3, -1}, {q, lse.shape}}};
  cases.push_back(gradients);
}

}  // namespace

DEVICE_CASES(hopper, {
  need_reference("linear_fused", linear_fused_reference), need_reference("linear_dw_accumulate", linear_dw_accumulate_reference);
  need_reference("conv2d_fused", conv2d_fused_reference), need_reference("conv2d_dw_fused", conv2d_dw_fused_reference);
  need_reference("conv2d_dw_accumulate", conv2d_dw_accumulate_reference);

  products(cases, 1, 8, 8);
  products(cases, 130, 160, 64);
  products(cases, 65, 328, 200);
  products(cases, 300, 72, 584);    // parts of k
  products(cases, 1000, 128, 160);  // tiles of 256 x 128 and 256 x 160, each way round
  products(cases, 1000, 160, 128);
  products(cases, 128, 1000, 160);
  products(cases, 136, 1000, 128);
  products(cases, 200, 120, 1272);  // a weight's gradient in tiles of 128 x 320
  products(cases, 1500, 328, 72);   // more tiles than multiprocessors
  activated(cases, "geglu", T, 300, 176, 136, true, true);
  activated(cases, "geglu", T, 1030, 320, 64, false, false);
  activated(cases, "quick_gelu", T, 70, 68, 72, true, true);
  activated(cases, "gelu", F, 600, 324, 64, true, true);
  activated(cases, "silu", T, 77, 130, 72, false, true);  // columns that are no multiple of 4
  activated(cases, "none", F, 130, 72, 1032, true, true);
  DeviceCase total{
      "hopper parts of k", "linear_dw_accumulate", {}, {tensor(F, {40, 72}), tensor(T, {3000, 40}), tensor(T, {3000, 72})}, {over(0, F, {40, 72})}};
  total.depth = 3000;
  cases.push_back(total);

  for (const Conv& c : {
           Conv{"odd map", 2, 7, 9, 40, 0, 24},
           Conv{"one pixel", 3, 1, 1, 8, 0, 8},
           Conv{"two maps", 1, 9, 16, 72, 40, 48},
           Conv{"two maps, statistics", 2, 8, 16, 64, 32, 160, 16},
           Conv{"statistics of 4 channels", 3, 16, 16, 8, 0, 128, 32},
           Conv{"statistics, 256 rows", 4, 16, 16, 32, 0, 160, 4},
           Conv{"statistics, several tiles a block", 9, 16, 16, 8, 0, 32, 4},
           Conv{"statistics, wide map", 1, 5, 128, 8, 0, 32, 4},
           Conv{"enlarged", 2, 5, 6, 24, 0, 16, 0, 2},
           Conv{"enlarged, many tiles", 2, 12, 16, 24, 0, 40, 0, 2},
           Conv{"stride 2, odd", 2, 9, 7, 64, 0, 40, 0, 1, 3, 2},
           Conv{"stride 2, below and right", 1, 10, 8, 24, 0, 16, 0, 1, 3, 2, {0, 1, 0, 1}},
           Conv{"stride 2, one column", 1, 6, 1, 16, 0, 8, 0, 1, 3, 2},
           Conv{"stride 2, parts of k", 1, 9, 9, 24, 0, 520, 0, 1, 3, 2},
           Conv{"1x1", 2, 9, 7, 72, 0, 40, 0, 1, 1, 1, {0, 0, 0, 0}},
           Conv{"parts of k", 1, 8, 8, 320, 0, 72},
           Conv{"tiles of 256 rows", 5, 16, 16, 16, 0, 160},
       })
    convolution(cases, c);

  for (const int64_t dim : {40, 64, 80, 128, 160}) {
    attends(cases, dim, 200, 300, 3, 2, false);
    attends(cases, dim, 700, 700, 1, 1, true);
  }
  for (const int64_t dim : {40, 64, 80, 128, 160}) attends(cases, dim, 600, 77, 3, 1, false);  // few keys, which one tile holds
  attends(cases, 64, 1100, 77, 1, 1, false);                                                   // and whose queries are split
  attends(cases, 160, 1100, 100, 1, 1, true);
  attends(cases, 64, 77, 77, 5, 2, true);
  attends(cases, 80, 70, 400, 1, 1, true);  // keys that no query sees
  attends(cases, 128, 65, 3, 2, 1, false);
  attends(cases, 24, 130, 129, 2, 1, false);
  attends(cases, 72, 1, 1000, 1, 2, false);
  attends(cases, 136, 257, 81, 1, 1, true);
})

}  // namespace test
}  // namespace attune
