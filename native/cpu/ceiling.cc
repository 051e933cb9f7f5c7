// What this machine can do at most, measured by the same executor and threads that run the kernels: fused multiply-adds that never leave the registers.
// Benchmarks divide by it; no model uses it.
#include "simd_vec.h"

ATTUNE_CPU_BEGIN

constexpr int kChains = 12;  // independent, to hide a latency of 4 cycles at 2 or 3 issues a cycle

template <typename T>
static T fma_chains(int64_t iterations) {
  using V = Vec<T>;
  V acc[kChains];
  for (int c = 0; c < kChains; c++) acc[c] = V{} + T(c);
  const V a = V{} + T(0.999), b = V{} + T(0.001);
  for (int64_t i = 0; i < iterations; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; c++) acc[c] = acc[c] * a + b;
  }
  V sum{};
  for (int c = 0; c < kChains; c++) sum += acc[c];
  return sum[0];
}

// {tasks, iterations} -> [1] T: tasks * iterations * 12 fused multiply-adds of one vector each, shared out to all threads.
static void fma_ceiling_kernel(const OpArgs& args) {
  const int64_t tasks = args.attrs.integer("tasks"), iterations = args.attrs.integer("iterations");
  dispatch(args.out[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    T* out = args.out[0].as<T>();
    out[0] = T(kVectorBytes / int(sizeof(T)) * kChains * 2);  // floating-point operations of one iteration
    args.pool.run(tasks, [&](int64_t task, int) {
      const T value = fma_chains<T>(iterations + (task < 0));
      if (value < 0) out[0] = value;  // never: keeps the loop
    });
  });
}

REGISTER_CPU(fma_ceiling, fma_ceiling_kernel)

ATTUNE_CPU_END
