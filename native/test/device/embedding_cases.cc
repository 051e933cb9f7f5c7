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

/// The first bad id by position is reported and reads as zeros, for which the last row of the table stands; nothing of its dy goes anywhere.
DEVICE_CASES(bad_ids, {
  constexpr int64_t kRows = 5, kIds = 600;
  for (const DType t : {DType::bf16, DType::f32})
    for (const int64_t width : {12, 7})
      for (const auto& [position, value] : {std::pair<int64_t, int32_t>{kIds - 1, int32_t(kRows)}, {300, -1}, {0, INT32_MAX}, {7, INT32_MIN}}) {
        std::vector<double> ids, stand_for, table, dy, counted;
        for (int64_t i = 0; i < kIds; i++) {
          const bool bad = i == position || (i > position && i % 97 == 0);
          ids.push_back(i == position ? double(value) : bad ? 1000 : double(i % (kRows - 1)));
          stand_for.push_back(bad ? double(kRows - 1) : ids.back());
          for (int64_t c = 0; c < width; c++) dy.push_back(double((i * 5 + c) % 7) - 3), counted.push_back(bad ? 0 : dy.back());
        }
        for (int64_t i = 0; i < kRows * width; i++) table.push_back(i < (kRows - 1) * width ? double(i % 11) - 5 : 0);
        DeviceCase c{std::string(dtype_name(t)) + " bad id " + std::to_string(value) + " at " + std::to_string(position) + ", rows of " + std::to_string(width),
                     "embedding",
                     {},
                     {given(t, {kRows, width}, table), bad(DType::i32, {kIds}, ids, stand_for)},
                     {tensor(t, {kIds, width})}};
        c.fault = {{value, int32_t(kRows)}};
        c.exact = true;
        cases.push_back(c);
        c.op = "embedding_vjp", c.inputs[0] = bad(t, {kIds, width}, dy, counted), c.outputs = {tensor(t, {kRows, width})};
        cases.push_back(c);
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
