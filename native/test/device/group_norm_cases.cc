#include "device_case.h"

namespace attune {
namespace test {

namespace {

struct GroupCase {
  const char* name;
  Shape x;
  int groups;
};

int64_t group_elements(const GroupCase& g) {
  int64_t n = 1;
  for (size_t i = 1; i < g.x.size(); i++) n *= g.x[i];
  return n / g.groups;
}

// Where groups straddle vectors of lanes, where vectors do not fit, where a block holds a sample's tile, where slabs of 128 pixels do, whole or not, and where
// there are enough of them for a kernel of their own to merge.
const std::vector<GroupCase> kShapes = {
    {"one number", {1, 1, 1, 1}, 1},
    {"a pixel of groups of one", {2, 1, 8}, 8},
    {"4x4, groups of 4", {2, 4, 4, 16}, 4},
    {"8x8, groups of 10", {2, 8, 8, 80}, 8},
    {"tokens, groups of 40", {3, 50, 160}, 4},
    {"odd everything", {3, 5, 7, 6}, 3},
    {"odd everything, one group", {2, 3, 3, 35}, 1},
    {"wide, one group", {1, 5, 2, 2560}, 1},
    {"slabs, groups of 10", {1, 40, 40, 80}, 8},
    {"slabs, whole", {2, 40, 48, 40}, 4},
    {"slabs of odd channels", {1, 61, 67, 15}, 1},
    {"many slabs", {1, 96, 96, 8}, 2},
};

DeviceCase forward(DType t, DType parameter, const GroupCase& g, bool silu) {
  const Shape statistics = {g.x[0], g.groups}, c = {g.x.back()};
  DeviceCase d{std::string(dtype_name(t)) + (parameter == t ? "" : ", f32 parameters") + (silu ? ", silu, " : ", ") + g.name,
               "group_norm",
               attrs({{"groups", double(g.groups)}, {"eps", 1e-5}, {"silu", silu}}),
               {tensor(t, g.x, 2, 0.5), tensor(parameter, c, 0.3, 1), tensor(parameter, c)},
               {tensor(t, g.x), tensor(DType::f32, statistics), tensor(DType::f32, statistics)}};
  d.depth = double(group_elements(g));
  return d;
}

DeviceCase backward(DType t, DType parameter, const GroupCase& g, bool silu) {
  const Shape statistics = {g.x[0], g.groups}, c = {g.x.back()};
  DeviceCase d = forward(t, parameter, g, silu);
  d.op = "group_norm_vjp", d.before = {{"group_norm", {1, 2, 3}, {g.x, statistics, statistics}}};
  d.inputs = {tensor(t, g.x, 1, 0.25),
              tensor(t, g.x, 2, 0.5),
              tensor(parameter, c, 0.3, 1),
              tensor(parameter, c),
              from_before(DType::f32, statistics, 1),
              from_before(DType::f32, statistics, 2)};
  d.outputs = {tensor(t, g.x), tensor(parameter, c), tensor(parameter, c)};
  d.depth *= double(g.x[0]);
  return d;
}

// group_norm_from_partials has no kernel of the cpu backend's own: there it is group_norm. This oracle looks at x alone.
void reference_from_partials(const OpArgs& args) {
  find_kernel("cpu", "group_norm", "")({args.attrs, args.in, 3, args.out, args.n_out, args.scalars, args.pool, args.workspace});
}
[[maybe_unused]] const bool reference =
    find_kernel("cpu", "group_norm_from_partials", "") || register_kernel({"cpu", "group_norm_from_partials", "generic", reference_from_partials});

/// x in bf16's grid, so that both element types hold it, and its moments over slabs of 128 pixels.
DeviceCase from_partials(DType t, const GroupCase& g, bool silu) {
  DeviceCase d = forward(t, t, g, silu);
  const int64_t batch = g.x[0], channels = g.x.back(), size = channels / g.groups, pixels = group_elements(g) / size, slabs = pixels / 128;
  std::vector<double> x(size_t(batch * pixels * channels)), partials;
  for (size_t i = 0; i < x.size(); i++) x[i] = double(int64_t(i * 2654435761u % 251) - 90) / 64;
  for (int64_t s = 0; s < batch * slabs; s++)
    for (int64_t group = 0; group < g.groups; group++) {
      const auto each = [&](auto&& body) {
        for (int64_t p = 0; p < 128; p++)
          for (int64_t c = 0; c < size; c++) body(x[size_t((s * 128 + p) * channels + group * size + c)]);
      };
      double mean = 0, squares = 0;
      each([&](double v) { mean += v / double(128 * size); });
      each([&](double v) { squares += (v - mean) * (v - mean); });
      partials.push_back(mean), partials.push_back(squares);
    }
  d.op = "group_norm_from_partials", d.inputs[0] = given(t, g.x, x), d.inputs.push_back(given(DType::f32, {batch, slabs, g.groups, 2}, partials));
  return d;
}

}  // namespace

DEVICE_CASES(group_norm, {
  for (const DType t : {DType::bf16, DType::f32})
    for (const GroupCase& g : kShapes) {
      cases.push_back(forward(t, t, g, false));
      cases.push_back(forward(t, DType::f32, g, true));
      if (group_elements(g) == 1) continue;  // dx is 0 there: what is left is the rounding of what cancels
      cases.push_back(backward(t, t, g, false));
      cases.push_back(backward(t, DType::f32, g, true));
    }
  for (const DType t : {DType::bf16, DType::f32})
    for (const GroupCase& g : {kShapes[3], kShapes[5], kShapes[8]}) {
      cases.push_back(forward(t, t, g, true));
      cases.back().name += ", in place", cases.back().outputs[0] = over(0, t, g.x);
      cases.push_back(backward(t, t, g, true));
      cases.back().name += ", in place", cases.back().outputs[0] = over(0, t, g.x);
    }
  // A mean of 300 deviations: its own rounding is 300 units of y. E[x^2] - mean^2 would be off by 300^2.
  for (const GroupCase& g : {kShapes[3], kShapes[8], kShapes[11]}) {
    cases.push_back(forward(DType::f32, DType::f32, g, false));
    cases.back().name += ", far from zero", cases.back().inputs[0] = tensor(DType::f32, g.x, 1, 300);
    cases.back().tolerance = 300, cases.back().depth = 1;
  }
  for (const DType t : {DType::bf16, DType::f32})
    for (const GroupCase& g :
         {GroupCase{"two slabs", {2, 16, 16, 16}, 4}, GroupCase{"odd channels", {1, 32, 4, 6}, 3}, GroupCase{"many slabs", {1, 96, 96, 8}, 2}})
      cases.push_back(from_partials(t, g, g.groups == 4));
  for (const GroupCase& g : {GroupCase{"64^2 x 320, 8 samples", {8, 64, 64, 320}, 32}, GroupCase{"64^2 x 960, 8 samples", {8, 64, 64, 960}, 32},
                             GroupCase{"32^2 x 640, 8 samples", {8, 32, 32, 640}, 32}, GroupCase{"32^2 x 1920, 8 samples", {8, 32, 32, 1920}, 32},
                             GroupCase{"16^2 x 1280, 8 samples", {8, 16, 16, 1280}, 32}, GroupCase{"8^2 x 2560, 8 samples", {8, 8, 8, 2560}, 32},
                             GroupCase{"128^2 x 320, 2 samples", {2, 128, 128, 320}, 32}, GroupCase{"512^2 x 128, 1 sample", {1, 512, 512, 128}, 32}}) {
    cases.push_back(forward(DType::bf16, DType::f32, g, true));
    cases.back().large = true;
    cases.push_back(backward(DType::bf16, DType::f32, g, true));
    cases.back().large = true;
  }
})

}  // namespace test
}  // namespace attune
