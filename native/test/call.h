// Calling one kernel with tensors of any dtypes, attributes and scalar slots, outputs in memory of their own or in an input's.
#pragma once
#include "kernel_test.h"

namespace attune {
namespace test {

/// An owned tensor; elements are read and written as double whatever the dtype (16-bit types: as their bits).
struct Tensor {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<double> memory;  // double: aligned for every dtype

  Tensor(DType dtype, std::vector<int64_t> shape, double value = std::nan("")) : dtype(dtype), shape(std::move(shape)), memory(size_t(ref().bytes() + 7) / 8) {
    for (int64_t i = 0; i < numel(); i++) set(i, value);
  }
  Tensor(DType dtype, std::vector<int64_t> shape, const std::vector<double>& values) : Tensor(dtype, std::move(shape), 0.0) {
    for (int64_t i = 0; i < numel(); i++) set(i, values[size_t(i)]);
  }

  TensorRef ref() {
    TensorRef t;
    t.data = memory.data(), t.dtype = dtype, t.rank = int(shape.size());
    for (size_t i = 0; i < shape.size(); i++) t.dims[i] = shape[i];
    return t;
  }
  int64_t numel() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
  double get(int64_t i) const {
    const void* p = memory.data();
    switch (dtype) {
      case DType::f64: return static_cast<const double*>(p)[i];
      case DType::f32: return double(static_cast<const float*>(p)[i]);
      case DType::i32: return double(static_cast<const int32_t*>(p)[i]);
      case DType::u8: return double(static_cast<const uint8_t*>(p)[i]);
      default: return double(static_cast<const uint16_t*>(p)[i]);
    }
  }
  void set(int64_t i, double v) {
    void* p = memory.data();
    switch (dtype) {
      case DType::f64: static_cast<double*>(p)[i] = v; break;
      case DType::f32: static_cast<float*>(p)[i] = float(v); break;
      case DType::i32: static_cast<int32_t*>(p)[i] = std::isnan(v) ? -7777777 : int32_t(v); break;
      case DType::u8: static_cast<uint8_t*>(p)[i] = std::isnan(v) ? 0x5A : uint8_t(v); break;
      default: static_cast<uint16_t*>(p)[i] = std::isnan(v) ? 0x5A5A : uint16_t(v); break;
    }
  }
  std::vector<double> values() const {
    std::vector<double> v(static_cast<size_t>(numel()));
    for (int64_t i = 0; i < numel(); i++) v[size_t(i)] = get(i);
    return v;
  }
  bool same_bits(const Tensor& other) const { return std::memcmp(memory.data(), other.memory.data(), size_t(numel()) * dtype_size(dtype)) == 0; }
};

/// Numbers with a standard deviation near 1, representable in f32.
inline std::vector<double> gaussian(int64_t count, uint64_t seed) {
  const auto a = random_values(count, seed), b = random_values(count, seed + 1000), c = random_values(count, seed + 2000);
  std::vector<double> v(a.size());
  for (size_t i = 0; i < v.size(); i++) v[i] = double(float(a[i] + b[i] + c[i]));
  return v;
}

inline Attrs attributes(std::initializer_list<std::pair<const char*, Attrs::Value>> items) {
  Attrs attrs;
  for (const auto& [key, value] : items) attrs.set(key, value);
  return attrs;
}

using Tensors = std::vector<Tensor*>;

/// Runs a kernel. Scratch memory starts as NaN.
inline void run(KernelFn fn, const Attrs& attrs, const Tensors& in, const Tensors& out, const std::vector<double>& scalars = {}, int threads = 1) {
  static ThreadPool pools[] = {ThreadPool(1), ThreadPool(2), ThreadPool(3)};
  std::vector<TensorRef> inputs, outputs;
  for (Tensor* t : in) inputs.push_back(t ? t->ref() : TensorRef{});
  for (Tensor* t : out) outputs.push_back(t->ref());
  Workspace workspace;
  std::memset(workspace.get(1 << 20), 0xFF, 1 << 20);
  fn(OpArgs{attrs, inputs.data(), int(inputs.size()), outputs.data(), int(outputs.size()), scalars.data(), pools[threads - 1], workspace});
}

inline void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAIL %s\n", what.c_str());
  failures++;
}

/// Runs the kernel on 1, 2 and 3 threads into copies of `out`: all the same bits. The result stays in `out`.
inline void run_on_threads(const std::string& what, KernelFn fn, const Attrs& attrs, const Tensors& in, const Tensors& out,
                           const std::vector<double>& scalars = {}) {
  for (const int threads : {3, 2}) {
    std::vector<Tensor> copies;
    for (const Tensor* t : out) copies.push_back(*t);
    Tensors to;
    for (Tensor& t : copies) to.push_back(&t);
    run(fn, attrs, in, to, scalars, threads);
    if (threads == 3) { run(fn, attrs, in, out, scalars, 1); }
    for (size_t i = 0; i < out.size(); i++)
      expect(copies[i].same_bits(*out[i]), what + ": output " + std::to_string(i) + " differs between 1 and " + std::to_string(threads) + " threads");
  }
}

}  // namespace test
}  // namespace attune
