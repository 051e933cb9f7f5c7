// What every kernel file includes: the CUDA dialect that runs on three machines. nvcc compiles it for a GPU; g++ compiles the same file over native/simt, where
// threads are fibers; native/ptxi interprets the PTX that nvcc emits from it.
//
// The dialect: kernels live in namespace attune::cuda, never static or in an anonymous namespace (their mangled name is how the PTX is found), names unique in
// native/cuda. Memory, global and shared, is touched through load(p) and store(p, v), which the host machines check; a kernel is started by launch(); PTX
// stands only in mma.cuh, async_copy.cuh and hopper.cuh. Dynamic shared memory only: ATTUNE_SHARED(name). No fast-math flags: approximations are called by
// name.
#pragma once
#include <cstdint>
#include <tuple>
#include <utility>

#include "../core/device.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define ATTUNE_UNROLL _Pragma("unroll")
#define ATTUNE_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define ATTUNE_HERE
#define ATTUNE_HERE_ARGS
#define ATTUNE_DEVICE __device__ __forceinline__
#define ATTUNE_BOTH __host__ __device__ __forceinline__
#else
#include "../simt/simt.h"
#define ATTUNE_UNROLL
#define ATTUNE_SHARED(name) unsigned char* name = simt::shared_memory()
// The place of a load or store in the source, for reports.
#define ATTUNE_HERE , const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define ATTUNE_HERE_ARGS , file_, line_
#define ATTUNE_DEVICE inline __attribute__((always_inline))
#define ATTUNE_BOTH inline __attribute__((always_inline))
#endif

namespace attune {
namespace cuda {

// ---- element types -------------------------------------------------------------------------------------------------------------------------------------

struct alignas(2) bf16 {
  uint16_t bits;
};
struct alignas(2) f16 {
  uint16_t bits;
};

ATTUNE_DEVICE float bits_to_float(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  return __builtin_bit_cast(float, bits);
#endif
}
ATTUNE_DEVICE uint32_t float_to_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  return __builtin_bit_cast(uint32_t, value);
#endif
}

/// Two floats to bf16, to nearest even; lo lands in bits 0..15.
ATTUNE_DEVICE uint32_t pack_bf16(float lo, float hi) {
#ifdef __CUDACC__
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
#else
  const auto round = [](float value) -> uint32_t {
    const uint32_t u = float_to_bits(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // cvt's canonical NaN
    return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  };
  return round(lo) | round(hi) << 16;
#endif
}

ATTUNE_DEVICE float to_float(bf16 v) { return bits_to_float(uint32_t(v.bits) << 16); }
ATTUNE_DEVICE float to_float(float v) { return v; }
ATTUNE_DEVICE double to_float(double v) { return v; }  // f64 kernels compute in f64

template <typename T>
struct Compute {  // what a kernel over T computes in
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <typename T>
using compute_t = typename Compute<T>::type;

/// Rounds a computed value to its element type.
template <typename T>
ATTUNE_DEVICE T from_float(compute_t<T> v) {
  if constexpr (std::is_same_v<T, bf16>) return bf16{uint16_t(pack_bf16(v, 0.f) & 0xffffu)};
  else return T(v);
}

// ---- memory --------------------------------------------------------------------------------------------------------------------------------------------

/// Reads through a pointer to global or shared memory. Wider than an element: load<uint4>(p), p aligned to it.
template <typename T>
ATTUNE_DEVICE T load(const T* p ATTUNE_HERE) {
#ifndef __CUDACC__
  simt::check(p, sizeof(T), false ATTUNE_HERE_ARGS);
#endif
  return *p;
}
template <typename T>
ATTUNE_DEVICE void store(T* p, T v ATTUNE_HERE) {
#ifndef __CUDACC__
  simt::check(p, sizeof(T), true ATTUNE_HERE_ARGS);
#endif
  *p = v;
}

/// A [C] parameter (bias, gamma, beta) is f32 or the element type of its op: one place decides at run time, so that no kernel is compiled twice for it.
struct Parameter {
  const void* data;
  bool narrow;  // bf16
  ATTUNE_DEVICE float at(int64_t i ATTUNE_HERE) const {
    return narrow ? to_float(load(static_cast<const bf16*>(data) + i ATTUNE_HERE_ARGS)) : load(static_cast<const float*>(data) + i ATTUNE_HERE_ARGS);
  }
  ATTUNE_DEVICE explicit operator bool() const { return data != nullptr; }
};

// ---- starting kernels ----------------------------------------------------------------------------------------------------------------------------------

/// One kernel on its way: `params` are addresses of the arguments, as the kernel declares them.
struct Launch {
  const void* kernel;
  dim3 grid, block;
  int shared;  // bytes of dynamic shared memory
  void* const* params;
  const int* sizes;
  const int* alignments;
  int count;
};

/// Where an op starts its kernels: the stream of a device. Made by the machine, used by ops.
class Launcher {
 public:
  explicit Launcher(const DeviceCaps& caps) : caps(caps) {}
  virtual ~Launcher() = default;
  const DeviceCaps& caps;
#ifdef __CUDACC__
  virtual void start(const Launch& launch) = 0;
#else
  virtual void start(const Launch& launch, const std::function<void()>& body) = 0;
#endif
  virtual void clear(void* memory, int64_t bytes) = 0;                 // zeroes, in stream order
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;    // device to device
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;  // from host memory that lives as long as the program (attributes)
};

struct OpArgs {
  const Attrs& attrs;
  const TensorRef* in;
  int n_in;
  const TensorRef* out;
  int n_out;
  const double* scalars;  // device memory
  int32_t* fault;         // device memory: [kind, instruction, value, limit]
  int32_t instruction;
  Launcher& launcher;
  char* workspace;
  int64_t workspace_bytes;
  bool dry;
  int64_t* used;  // workspace handed out so far

  bool has(int i) const { return i < n_in && (dry ? in[i].rank > 0 : in[i].data != nullptr); }
  const DeviceCaps& caps() const { return launcher.caps; }
  Parameter parameter(int i) const { return has(i) ? Parameter{in[i].data, in[i].dtype == DType::bf16} : Parameter{nullptr, false}; }

  /// Device scratch for this instruction, 256-byte aligned; ask again for more. Null in a dry call, where it only counts.
  template <typename T = char>
  T* scratch(int64_t count) const {
    char* at = dry ? nullptr : workspace + *used;
    *used += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
    if (!dry && *used > workspace_bytes) throw Error("ERR_DEVICE", "a kernel asks for more workspace than its dry call did");
    return reinterpret_cast<T*>(at);
  }
  /// Zeroes scratch, in stream order.
  void clear(void* memory, int64_t bytes) const {
    if (!dry) launcher.clear(memory, bytes);
  }
};

using OpFn = void (*)(const OpArgs&);

/// Starts kernel<<<grid, block, shared>>>(args...), converted to the kernel's own parameter types; nothing in a dry call.
template <typename... P, typename... A>
void launch(const OpArgs& to, void (*kernel)(P...), dim3 grid, dim3 block, int shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its parameters");
  if (to.dry) return;
  std::tuple<std::remove_const_t<P>...> values(std::forward<A>(args)...);
  constexpr int count = int(sizeof...(P));
  const int sizes[] = {int(sizeof(P))...}, alignments[] = {int(alignof(P))...};
  std::apply(
      [&](auto&... v) {
        void* const params[] = {const_cast<void*>(static_cast<const void*>(&v))...};
        const Launch l{reinterpret_cast<const void*>(kernel), grid, block, shared, params, sizes, alignments, count};
#ifdef __CUDACC__
        to.launcher.start(l);
#else
        to.launcher.start(l, [kernel, values] { std::apply(kernel, values); });  // a copy: a captured launch runs later
#endif
      },
      values);
}

/// Adds an op; called by static initialisers.
bool register_op(const char* op, OpFn fn);
/// nullptr if there is none.
OpFn find_op(const std::string& op);
std::vector<std::string> op_names();

/// REGISTER_CUDA(group_norm, group_norm_op): once per op, at namespace scope.
#define REGISTER_CUDA(op, fn) [[maybe_unused]] static const bool registered_##op = ::attune::cuda::register_op(#op, fn);

/// Runs body with a tag of the element type: dispatch(dtype, [&](auto tag) { using T = decltype(tag); ... }); bf16 and f32, with kF64 also double.
template <bool kF64 = false, typename Body>
void dispatch(DType t, Body&& body) {
  if (t == DType::bf16) body(bf16{});
  else if (t == DType::f32) body(float{});
  else if (kF64 && t == DType::f64) {
    if constexpr (kF64) body(double{});
  } else throw Error("ERR_PROGRAM", std::string("a CUDA kernel computes in ") + (kF64 ? "bf16, f32 or f64" : "bf16 or f32") + ", received " + dtype_name(t));
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace attune
