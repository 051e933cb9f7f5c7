#include "device_case.h"

namespace attune {
namespace test {

DEVICE_CASES(embedding, {
  std::vector<double> ids;
  for (int i = 0; i < 154; i++) ids.push_back(i % 5 == 0 ? 3 : i * 31 % 40);  // one id in five, others a few times, some never
  for (const DType t : {DType::bf16, DType::f32, DType::f64}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    for (const int64_t width : {64, 12, 7, 1}) {
      const std::string name = type + "rows of " + std::to_string(width);
      cases.push_back({name, "embedding", {}, {tensor(t, {40, width}), given(DType::i32, {2, 77}, ids)}, {tensor(t, {2, 77, width})}});
      cases.back().exact = true;
      cases.push_back({name, "embedding_vjp", {}, {tensor(t, {2, 77, width}), given(DType::i32, {2, 77}, ids)}, {tensor(t, {40, width})}});
      cases.back().depth = 40;
    }
    cases.push_back({type + "rows of maps", "embedding", {}, {tensor(t, {3, 2, 5}), given(DType::i32, {1}, {2})}, {tensor(t, {1, 2, 5})}});
    cases.back().exact = true;

    const auto times = [&](const char* name, Operand t_in, int64_t dim, bool flip, double shift) {
      const int64_t count = t_in.shape[0];
      cases.push_back({type + name,
                       "timestep_embedding",
                       attrs({{"dim", double(dim)}, {"flipSinToCos", flip}, {"shift", shift}, {"maxPeriod", 10000.0}}),
                       {std::move(t_in)},
                       {tensor(t, {count, dim})}});
    };
    times("steps", given(DType::i32, {4}, {0, 1, 500, 999}), 320, true, 0);
    times("sine first, shifted", given(DType::i32, {2}, {37, 981}), 256, false, 1);
    times("odd dim", given(DType::i32, {3}, {7, 1, 999}), 7, true, 0.5);
    times("times of the same type", given(t, {3}, {0.5, 128, 996}), 32, true, 0);
    times("sizes of images", given(DType::f32, {6}, {1024, 1024, 0, 0, 2048, 512}), 256, true, 0);
  }
})

DEVICE_CASES(constant, {
  for (const DType t : {DType::bf16, DType::f32, DType::f64, DType::i32}) {
    const std::string type = std::string(dtype_name(t)) + " ";
    const auto exact = [&](const char* name, const char* op, Attrs a, Shape y) {
      cases.push_back({type + name, op, std::move(a), {}, {tensor(t, std::move(y))}});
      cases.back().exact = true;
    };
    const auto values = [](size_t n) {
      std::vector<double> v;
      for (size_t i = 0; i < n; i++) v.push_back(double(i * 7919 % 251) - 100);
      return v;
    };
    exact("one", "constant", attrs({{"values", values(1)}}), {1});
    exact("few", "constant", attrs({{"values", values(256)}}), {4, 64});
    exact("more than kernel parameters hold", "constant", attrs({{"values", values(771)}}), {3, 257});
    exact("whole vectors", "full", attrs({{"value", -3.0}}), {5, 64});
    exact("odd", "full", attrs({{"value", 7.0}}), {3, 33, 7});
    exact("more than the grid has threads", "full", attrs({{"value", 1.0}}), {9, 8192});
    if (t == DType::i32) continue;
    exact("rounded", "full", attrs({{"value", 1.0 / 3}}), {19});
    exact("slot", "scalar", attrs({{"slot", 2.0}}), {1});
    cases.back().scalars = {1, 2, 0.6, 4};
  }
})

}  // namespace test
}  // namespace attune
