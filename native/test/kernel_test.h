// What the kernel tests share: calling a registered kernel on host arrays, for every instruction set that this machine has, and comparing results
// with a plain double reference. A failed check prints where and how far off, and the program ends with 1.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "../core/op.h"

namespace attune {
namespace test {

inline int failures = 0;

/// Values in [-1, 1), the same on every run.
inline std::vector<double> random_values(int64_t count, uint64_t seed) {
  std::vector<double> v(static_cast<size_t>(count));
  uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
  for (double& x : v) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    x = double(int64_t(state >> 11) - (int64_t(1) << 52)) / double(int64_t(1) << 52);
    x = double(float(x));  // so that f32 and f64 runs see the same numbers
  }
  return v;
}

struct Array {
  std::vector<int64_t> shape;
  std::vector<double> values;
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};
inline Array random_array(std::vector<int64_t> shape, uint64_t seed) {
  Array a{std::move(shape), {}};
  a.values = random_values(a.numel(), seed);
  return a;
}

/// Runs one kernel: inputs converted to dtype, outputs returned as doubles. Outputs start as NaN, so that an element never written is seen; bytes
/// after each output are watched.
inline std::vector<std::vector<double>> run_kernel(KernelFn fn, const Attrs& attrs, DType dtype, const std::vector<const Array*>& inputs,
                                                   const std::vector<std::vector<int64_t>>& output_shapes, ThreadPool& pool) {
  const size_t size = dtype_size(dtype), guard = 256;
  std::vector<std::vector<char>> memory;
  std::vector<TensorRef> in, out;
  const auto tensor = [&](const std::vector<int64_t>& shape, const double* values) {
    TensorRef t;
    t.dtype = dtype, t.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) t.dims[i] = shape[i];
    memory.emplace_back(size_t(t.numel()) * size + 64 + guard, char(0x5A));
    char* base = memory.back().data();
    t.data = base + (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    for (int64_t i = 0; i < t.numel(); i++) {
      const double v = values ? values[i] : std::nan("");
      if (dtype == DType::f32) t.as<float>()[i] = float(v);
      else t.as<double>()[i] = v;
    }
    return t;
  };
  for (const Array* a : inputs) in.push_back(a ? tensor(a->shape, a->values.data()) : TensorRef{});
  for (const auto& shape : output_shapes) out.push_back(tensor(shape, nullptr));
  Workspace workspace;
  std::memset(workspace.get(1 << 20), 0xFF, 1 << 20);  // scratch is NaN unless written
  fn(OpArgs{attrs, in.data(), int(in.size()), out.data(), int(out.size()), nullptr, pool, workspace});
  std::vector<std::vector<double>> results;
  for (const TensorRef& t : out) {
    std::vector<double> values(static_cast<size_t>(t.numel()));
    for (int64_t i = 0; i < t.numel(); i++) values[size_t(i)] = dtype == DType::f32 ? double(t.as<float>()[i]) : t.as<double>()[i];
    results.push_back(std::move(values));
    const char* end = static_cast<const char*>(t.data) + t.bytes();
    for (size_t i = 0; i < guard - 64; i++)
      if (end[i] != char(0x5A)) {
        std::printf("FAIL: %zu bytes past an output were written\n", i);
        failures++;
        break;
      }
  }
  return results;
}

/// abs(actual - expected) <= bound[i] everywhere; NaN fails.
inline void expect_within(const std::string& what, const std::vector<double>& actual, const std::vector<double>& expected, const std::vector<double>& bound) {
  for (size_t i = 0; i < expected.size(); i++) {
    if (std::fabs(actual[i] - expected[i]) <= bound[i] || actual[i] == expected[i]) continue;
    std::printf("FAIL %s: element %zu is %.17g, expected %.17g within %.3g\n", what.c_str(), i, actual[i], expected[i], bound[i]);
    failures++;
    return;
  }
}

/// Unit roundoff.
inline double roundoff(DType t) { return t == DType::f32 ? 0x1p-24 : 0x1p-53; }

/// Every (instruction set, kernel) of an op that this machine can run.
inline std::vector<std::pair<std::string, KernelFn>> kernels_of(const std::string& op) {
  std::vector<std::pair<std::string, KernelFn>> found;
  const std::string best = native_isa();
  for (const KernelEntry& e : all_kernels()) {
    const bool runs = std::string(e.isa) == "generic" || best == "avx512" || best == e.isa;
    if (op == e.op && std::string(e.backend) == "cpu" && runs) found.emplace_back(e.isa, e.fn);
  }
  if (found.empty()) std::printf("FAIL: no kernel for %s\n", op.c_str()), failures++;
  return found;
}

/// Runs op in f32 and f64 for every instruction set on 1, 2 and 3 threads: same bits for any number of threads, and every output within
/// factor * roundoff * magnitude of `expected`, where magnitude bounds the sum of absolute terms of that element.
inline void check_op(const std::string& label, const std::string& op, const Attrs& attrs, const std::vector<const Array*>& inputs,
                     const std::vector<std::vector<int64_t>>& shapes, const std::vector<std::vector<double>>& expected,
                     const std::vector<std::vector<double>>& magnitude, double factor) {
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3)};
  for (const auto& [isa, fn] : kernels_of(op))
    for (DType dtype : {DType::f32, DType::f64}) {
      const std::string what = op + " " + label + " " + isa + " " + dtype_name(dtype);
      const auto one = run_kernel(fn, attrs, dtype, inputs, shapes, pools[0]);
      for (size_t o = 0; o < expected.size(); o++) {
        std::vector<double> bound(magnitude[o].size());
        for (size_t i = 0; i < bound.size(); i++) bound[i] = factor * roundoff(dtype) * magnitude[o][i];
        expect_within(what + " output " + std::to_string(o), one[o], expected[o], bound);
      }
      for (int threads : {2, 3}) {
        const auto many = run_kernel(fn, attrs, dtype, inputs, shapes, pools[threads - 1]);
        for (size_t o = 0; o < one.size(); o++)
          if (std::memcmp(one[o].data(), many[o].data(), one[o].size() * sizeof(double)) != 0) {
            std::printf("FAIL %s: output %zu differs between 1 and %d threads\n", what.c_str(), o, threads);
            failures++;
          }
      }
    }
}

inline int finish(const char* name) {
  if (failures) std::printf("%s: %d failures\n", name, failures);
  else std::printf("%s: ok\n", name);
  return failures ? 1 : 0;
}

}  // namespace test
}  // namespace attune
