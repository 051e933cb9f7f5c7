#include "device_case.h"

namespace attune {
namespace test {

namespace {

// add_leading has no kernel of the cpu backend's own: there it is slice, add and concat. This is the oracle.
void reference_add_leading(const OpArgs& args) {
  const double *x = args.in[0].as<const double>(), *z = args.in[1].as<const double>();
  double* y = args.out[0].as<double>();
  for (int64_t i = 0; i < args.out[0].numel(); i++) y[i] = i < args.in[1].numel() ? x[i] + z[i] : x[i];
}
[[maybe_unused]] const bool reference = find_kernel("cpu", "add_leading", "") || register_kernel({"cpu", "add_leading", "generic", reference_add_leading});

}  // namespace

DEVICE_CASES(gate, {
  for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    const auto geglu = [&](const char* name, int64_t rows, int64_t d, double scale) {
      cases.push_back({type + name, "geglu", {}, {tensor(t, {rows, 2 * d}, scale)}, {tensor(t, {rows, d})}});
      cases.push_back({type + name, "geglu_vjp", {}, {tensor(t, {rows, d}), tensor(t, {rows, 2 * d}, scale)}, {tensor(t, {rows, 2 * d})}});
    };
    geglu("rows of vectors", 37, 24, 3);
    geglu("odd rows", 11, 13, 3);
    geglu("one element", 1, 1, 0.5);  // not in the tail, where f32 has fewer digits
    cases.push_back({type + "in place", "geglu_vjp", {}, {tensor(t, {9, 40}), tensor(t, {9, 80}, 3)}, {over(1, t, {9, 80})}});
    cases.push_back({type + "in place, odd", "geglu_vjp", {}, {tensor(t, {9, 7}), tensor(t, {9, 14}, 3)}, {over(1, t, {9, 14})}});
    cases.push_back({type + "64^2 x 1280, 8 samples", "geglu", {}, {tensor(t, {8, 4096, 2560}, 3)}, {tensor(t, {8, 4096, 1280})}});
    cases.back().large = true;

    const auto leading = [&](const char* name, Shape x, Shape z) {
      cases.push_back({type + name, "add_leading", {}, {tensor(t, x), tensor(t, z)}, {tensor(t, x)}});
      cases.push_back({type + name + ", in place", "add_leading", {}, {tensor(t, x), tensor(t, z)}, {over(0, t, x)}});
    };
    leading("half of the rows", {4, 9, 16}, {2, 9, 16});
    leading("odd rows", {5, 7}, {3, 7});
    leading("every row", {2, 33}, {2, 33});
    leading("fewer elements than a vector", {3, 1}, {1, 1});
  }
})

}  // namespace test
}  // namespace attune
