// The fused products, each against its definition (fused_reference.h). Sizes choose among the ways that an epilogue is reached: vectors of eight or single
// elements, the kernel of the product or the pass over parts of k, and statistics from the kernel of the product or from a pass over y.
#include "fused_reference.h"
#include "product_case.h"

namespace attune {
namespace test {

namespace {

struct Size {
  int64_t rows, n, k;
};
struct Map {
  const char* name;
  int64_t batch, height, width, in, in2, out, kernel, stride, upsample;
  std::vector<double> padding;
  bool large = false;
};

const std::vector<Map> kMaps = {
    {"odd", 2, 5, 7, 3, 0, 5, 3, 1, 1, {1, 1, 1, 1}},
    {"concat", 2, 6, 7, 24, 16, 40, 3, 1, 1, {1, 1, 1, 1}},
    {"concat, odd channels", 1, 4, 5, 5, 3, 7, 3, 1, 1, {1, 1, 1, 1}},
    {"concat of few channels", 2, 4, 5, 12, 4, 20, 3, 1, 1, {1, 1, 1, 1}},
    {"concat 1x1", 2, 5, 6, 16, 8, 24, 1, 1, 1, {0, 0, 0, 0}},
    {"upsample", 2, 5, 4, 16, 0, 24, 3, 1, 2, {1, 1, 1, 1}},
    {"upsample, odd channels", 1, 3, 4, 3, 0, 6, 3, 1, 2, {1, 1, 1, 1}},
    {"upsample and concat, s2", 1, 5, 6, 8, 16, 16, 3, 2, 2, {0, 1, 0, 1}},
    {"1x1", 2, 6, 8, 40, 0, 32, 1, 1, 1, {0, 0, 0, 0}},
    {"parts of k", 1, 4, 4, 200, 64, 64, 3, 1, 1, {1, 1, 1, 1}},
    {"many tiles", 2, 16, 16, 24, 8, 160, 3, 1, 1, {1, 1, 1, 1}},
    {"SD 1.5 up block", 8, 32, 32, 640, 320, 640, 3, 1, 1, {1, 1, 1, 1}, true},
    {"SD 1.5 upsampler", 8, 32, 32, 640, 0, 640, 3, 1, 2, {1, 1, 1, 1}, true},
};

int64_t output(int64_t size, const Map& m, double padding) { return (size * m.upsample + int64_t(padding) - m.kernel) / m.stride + 1; }

void add_linear(std::vector<DeviceCase>& cases, const Types& t) {
  const DType in = t.in, out = t.out;
  const std::string types = text(t);
  for (const char* activation : {"none", "silu", "gelu", "gelu_tanh", "quick_gelu", "geglu"})
    for (const Size& s : {Size{3, 5, 7}, Size{70, 72, 40}, Size{16, 40, 512}, Size{9, 24, 1024}, Size{384, 160, 32}}) {
      const int64_t rows = std::string(activation) == "geglu" ? 2 * s.n : s.n;
      for (const bool whole : {true, false}) {
        DeviceCase c{types + activation + (whole ? " " : " bare ") + std::to_string(s.rows) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k),
                     "linear_fused",
                     attrs({{"activation", std::string(activation)}}),
                     {tensor(in, {s.rows, s.k}), tensor(in, {rows, s.k}, 1 / std::sqrt(double(s.k))), whole ? tensor(DType::f32, {rows}) : absent(),
                      whole ? tensor(in, {s.rows, s.n}) : absent()},
                     {tensor(out, {s.rows, s.n})}};
        c.depth = sum_depth(in, double(s.k)) + 16;  // an activation rounds a few times more
        cases.push_back(c);
      }
    }
  for (const Size& s : {Size{5, 3, 7}, Size{100, 72, 40}, Size{600, 16, 24}, Size{77, 136, 328}}) {
    DeviceCase c{types + std::to_string(s.rows) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k),
                 "linear_dw_accumulate",
                 {},
                 {tensor(DType::f32, {s.n, s.k}), tensor(in, {s.rows, s.n}), tensor(in, {s.rows, s.k})},
                 {over(0, DType::f32, {s.n, s.k})}};
    c.depth = sum_depth(in, double(s.rows)) + 1;
    if (out == DType::f32) cases.push_back(c);
  }
}

void add_maps(std::vector<DeviceCase>& cases, const Types& t) {
  const DType in = t.in, out = t.out;
  for (const Map& m : kMaps) {
    const std::string name = text(t) + m.name;
    const Shape map{m.batch, m.height, m.width, m.in}, map2{m.batch, m.height, m.width, m.in2}, window{m.out, m.kernel, m.kernel, m.in + m.in2};
    const Shape result{m.batch, output(m.height, m, m.padding[0] + m.padding[1]), output(m.width, m, m.padding[2] + m.padding[3]), m.out};
    const double k = double(m.kernel * m.kernel * (m.in + m.in2));
    const Operand x = tensor(in, map), x2 = m.in2 ? tensor(in, map2) : absent(), dy = tensor(in, result);
    const auto add = [&](DeviceCase c, double depth) {
      c.depth = sum_depth(in, depth), c.large = m.large;
      cases.push_back(std::move(c));
    };
    for (const bool whole : {true, false}) {
      const Attrs how = attrs({{"stride", double(m.stride)},
                               {"padding", m.padding},
                               {"upsample", double(m.upsample)},
                               {"activation", std::string(whole ? "silu" : "none")},
                               {"statistics", 0.0}});
      add({name + (whole ? "" : " bare"),
           "conv2d_fused",
           how,
           {x, x2, tensor(in, window, 1 / std::sqrt(k)), whole ? tensor(DType::f32, {m.out}) : absent(), whole ? tensor(in, {m.batch, m.out}) : absent(),
            whole ? tensor(in, result) : absent()},
           {tensor(out, result)}},
          k + 16);
    }
    const Attrs how = attrs({{"stride", double(m.stride)}, {"padding", m.padding}, {"upsample", double(m.upsample)}});
    const double pixels = double(result[0] * result[1] * result[2]);
    add({name, "conv2d_dw_fused", how, {dy, x, x2}, {tensor(out, window)}}, pixels);
    if (out == DType::f32) add({name, "conv2d_dw_accumulate", how, {tensor(DType::f32, window), dy, x, x2}, {over(0, DType::f32, window)}}, pixels + 1);
  }
}

/// Mean and M2 of a group's slab are of one size where mean and deviation are 1 / count, so that neither hides behind the other. The reference does not round y
/// to bf16: over `count` values its roundings of 2^-9 leave 2^-9 / sqrt(count), which is what `depth` says.
void add_statistics(std::vector<DeviceCase>& cases, DType type, int64_t batch, int64_t side, int64_t in, int64_t out, int64_t kernel, int64_t groups,
                    bool large = false) {
  const double count = 128 * double(out / groups), k = double(kernel * kernel * in), pad = double(kernel / 2);
  DeviceCase c{
      std::string(dtype_name(type)) + " statistics " + std::to_string(in) + " to " + std::to_string(out) + " at " + std::to_string(side) + ", " +
          std::to_string(kernel) + "x" + std::to_string(kernel) + ", " + std::to_string(groups) + " groups",
      "conv2d_fused",
      attrs(
          {{"stride", 1.0}, {"padding", std::vector<double>(4, pad)}, {"upsample", 1.0}, {"activation", std::string("none")}, {"statistics", double(groups)}}),
      {tensor(type, {batch, side, side, in}), absent(), tensor(type, {out, kernel, kernel, in}, 1 / (count * std::sqrt(k))),
       tensor(DType::f32, {out}, 1 / count, 1 / count), absent(), absent()},
      {tensor(type, {batch, side, side, out}), tensor(DType::f32, {batch, side * side / 128, groups, 2})}};
  c.depth = type == DType::bf16 ? std::ldexp(1.0, 30) / count : k + count, c.large = large;
  cases.push_back(c);
}

}  // namespace

DEVICE_CASES(fused, {
  need_reference("linear_fused", linear_fused_reference);
  need_reference("linear_dw_accumulate", linear_dw_accumulate_reference);
  need_reference("conv2d_fused", conv2d_fused_reference);
  need_reference("conv2d_dw_fused", conv2d_dw_fused_reference);
  need_reference("conv2d_dw_accumulate", conv2d_dw_accumulate_reference);
  for (const Types& t : kProductTypes) add_linear(cases, t), add_maps(cases, t);
  for (const DType type : {DType::bf16, DType::f32}) {
    add_statistics(cases, type, 2, 16, 24, 160, 3, 16);  // from the kernel of the product: groups of 10 in tiles of 160
    add_statistics(cases, type, 2, 16, 32, 320, 1, 8);   // groups of 40
    add_statistics(cases, type, 2, 16, 16, 128, 3, 32);  // tiles of 128
    add_statistics(cases, type, 1, 16, 16, 96, 3, 4);    // by a pass over y: groups that no strip holds whole
    add_statistics(cases, type, 1, 16, 9, 6, 3, 3);
    add_statistics(cases, type, 8, 64, 320, 320, 3, 32, true);
    add_statistics(cases, type, 8, 16, 1280, 1280, 3, 32, true);
  }
})

}  // namespace test
}  // namespace attune
