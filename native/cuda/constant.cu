// Tensors that are numbers: the step's scalars, inlined values, one value everywhere. What changes per step is read from device memory, so that a captured
// graph sees this step's number; inlined values are kernel parameters where they fit, and else go to scratch from the attributes, which live as long as the
// program.
#include <algorithm>
#include <cstring>

#include "vectorised.cuh"

namespace attune {
namespace cuda {

constexpr int kConstantThreads = 256, kInlined = 256;

ATTUNE_DEVICE void put_number(DType t, void* y, int64_t i, double v) {
  if (t == DType::bf16) store(static_cast<bf16*>(y) + i, from_float<bf16>(float(v)));
  else if (t == DType::f32) store(static_cast<float*>(y) + i, float(v));
  else if (t == DType::f64) store(static_cast<double*>(y) + i, v);
  else store(static_cast<int32_t*>(y) + i, int32_t(v));
}

static void check_type(const OpArgs& args, const char* op) {
  const DType t = args.out[0].dtype;
  if (t == DType::f16 || t == DType::u8) throw Error("ERR_PROGRAM", std::string(op) + ": expected bf16, f32, f64 or i32, received " + dtype_name(t));
}

__global__ void scalar_kernel(const double* __restrict__ slot, DType t, void* y) { put_number(t, y, 0, load(slot)); }

void scalar_op(const OpArgs& args) {
  check_type(args, "scalar");
  launch(args, scalar_kernel, dim3(1), dim3(1), 0, args.scalars + args.attrs.integer("slot"), args.out[0].dtype, args.out[0].data);
}

struct Inlined {
  double values[kInlined];
};

/// `uploaded`: the values, where they are too many for `inlined`.
__global__ void __launch_bounds__(kConstantThreads)
    constant_kernel(const __grid_constant__ Inlined inlined, const double* __restrict__ uploaded, DType t, void* y, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kConstantThreads + threadIdx.x;
  if (i < n) put_number(t, y, i, uploaded ? load(uploaded + i) : inlined.values[i]);
}

void constant_op(const OpArgs& args) {
  check_type(args, "constant");
  const auto& values = args.attrs.list("values");
  const int64_t n = args.out[0].numel();
  if (int64_t(values.size()) != n) throw Error("ERR_PROGRAM", "constant: expected " + std::to_string(n) + " values, received " + std::to_string(values.size()));
  Inlined inlined{};
  double* uploaded = nullptr;
  if (n <= kInlined) {
    std::copy(values.begin(), values.end(), inlined.values);
  } else {
    uploaded = args.scratch<double>(n);
    if (!args.dry) args.launcher.upload(uploaded, values.data(), n * int64_t(sizeof(double)));
  }
  launch(args, constant_kernel, dim3(unsigned(ceil_div(n, kConstantThreads))), dim3(kConstantThreads), 0, inlined, uploaded, args.out[0].dtype,
         args.out[0].data, n);
}

/// `pattern`: 16 bytes of the value; U: its bits. Bytes moved: the output once, the least.
template <typename U>
__global__ void __launch_bounds__(kConstantThreads) full_kernel(uint4 pattern, U value, U* __restrict__ y, int64_t n) {
  constexpr int N = 16 / int(sizeof(U));
  const int64_t threads = int64_t(gridDim.x) * kConstantThreads, first = int64_t(blockIdx.x) * kConstantThreads + threadIdx.x, vectors = aligned(y) ? n / N : 0;
  for (int64_t i = first; i < vectors; i += threads) store(reinterpret_cast<uint4*>(y) + i, pattern);
  for (int64_t i = vectors * N + first; i < n; i += threads) store(y + i, value);
}

/// The number as T, rounded as put_number does; on the host.
static uint16_t bf16_bits(float v) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

void full_op(const OpArgs& args) {
  check_type(args, "full");
  const TensorRef& y = args.out[0];
  const double value = args.attrs.number("value");
  const int64_t n = y.numel();
  const auto start = [&](auto number) {
    using U = std::conditional_t<sizeof(number) == 8, uint64_t, std::conditional_t<sizeof(number) == 4, uint32_t, uint16_t>>;
    U bits, repeated[16 / sizeof(U)];
    uint4 pattern;
    std::memcpy(&bits, &number, sizeof bits);
    std::fill_n(repeated, 16 / sizeof(U), bits);
    std::memcpy(&pattern, repeated, sizeof pattern);
    launch(args, full_kernel<U>, grid_of(args, ceil_div(n, kConstantThreads * int64_t(16 / sizeof(U)))), dim3(kConstantThreads), 0, pattern, bits, y.as<U>(),
           n);
  };
  switch (y.dtype) {
    case DType::bf16: return start(bf16_bits(float(value)));
    case DType::f32: return start(float(value));
    case DType::f64: return start(value);
    default: return start(int32_t(value));
  }
}

REGISTER_CUDA(scalar, scalar_op)
REGISTER_CUDA(constant, constant_op)
REGISTER_CUDA(full, full_op)

}  // namespace cuda
}  // namespace attune
