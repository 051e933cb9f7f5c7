// Instructions of sm_90a: mbarriers, bulk tensor copies (TMA), warpgroup matrix multiplies (wgmma), setmaxnreg; each once as PTX and once as its twin for the
// host machines. Code for an older target is empty: kernels ask kHopper, and ops ask caps().arch, before they come here.
//
// Read against public sources, as no machine here can run them: the descriptor and the canonical layouts against the PTX ISA (9.7.15.5.1, "Shared Memory Matrix
// Layout") and NVIDIA/cutlass include/cute/arch/mma_sm90_desc.hpp and include/cute/atom/mma_traits_sm90_gmma.hpp (make_gmma_desc); fragments of A and D against
// CLayout_64xN and ALayout_64x16 there; descriptor steps along k against HazyResearch/ThunderKittens include/types/shared/st_descriptor.cuh; the copies against
// cutlass include/cute/arch/copy_sm90_tma.hpp and copy_sm90_desc.hpp; map rules and zero fill against cuTensorMapEncodeTiled in cuda.h.
#pragma once
#include "async_copy.cuh"
#include "tensor_map.h"

#ifndef __CUDACC__
#include "../simt/hopper.h"
#endif

namespace attune {
namespace cuda {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ATTUNE_SM90A 1
constexpr bool kHopper = true;
#else
#define ATTUNE_SM90A 0
constexpr bool kHopper = false;
#endif

#if defined(__CUDACC__) && ATTUNE_SM90A
#define ATTUNE_PTX90(...) asm volatile(__VA_ARGS__)
#else
#define ATTUNE_PTX90(...)
#endif

#ifdef __CUDACC__
#define ATTUNE_HERE_ONLY
#define ATTUNE_LOOP _Pragma("unroll 1")  // keep it a loop: its body is long
#else
#define ATTUNE_HERE_ONLY const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()  // ATTUNE_HERE of a function without other parameters
#define ATTUNE_LOOP
#endif

// ---- mbarriers: 8 bytes of shared memory, 8-byte aligned ---------------------------------------------------------------------------------------------------

/// A phase of the barrier ends when `arrivals` threads have arrived and the bytes they announced have landed; then the next one begins.
ATTUNE_DEVICE void barrier_init(uint64_t* barrier, int arrivals ATTUNE_HERE) {
#ifdef __CUDACC__
  ATTUNE_PTX90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#else
  simt::mbar_init(barrier, uint32_t(arrivals) ATTUNE_HERE_ARGS);
#endif
}

/// After the inits, by the thread that made them, before the block's __syncthreads(): the copy engine must see them too.
ATTUNE_DEVICE void barrier_init_fence() {
  ATTUNE_PTX90("fence.mbarrier_init.release.cluster;" :: : "memory");
  ATTUNE_PTX90("fence.proxy.async.shared::cta;" :: : "memory");
}

ATTUNE_DEVICE void barrier_arrive(uint64_t* barrier ATTUNE_HERE) {
#ifdef __CUDACC__
  ATTUNE_PTX90("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#else
  simt::mbar_arrive(barrier, 0 ATTUNE_HERE_ARGS);
#endif
}

/// Arrives, and holds the phase until `bytes` more have landed. Boxes count in full, also where they leave the tensor.
ATTUNE_DEVICE void barrier_expect(uint64_t* barrier, uint32_t bytes ATTUNE_HERE) {
#ifdef __CUDACC__
  ATTUNE_PTX90("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
#else
  simt::mbar_arrive(barrier, bytes ATTUNE_HERE_ARGS);
#endif
}

/// Waits for the end of the phase with this parity: 0 for the first, 1 for the second, 0 for the third ...; a fresh barrier's "phase before the first" has
/// parity 1.
ATTUNE_DEVICE void barrier_wait(uint64_t* barrier, uint32_t parity ATTUNE_HERE) {
#ifdef __CUDACC__
  ATTUNE_PTX90(
      "{\n.reg .pred done;\nwait_%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni end_%=;\nbra.uni wait_%=;\nend_%=:\n}" ::"r"(
          shared_address(barrier)),
      "r"(parity) : "memory");
#else
  simt::mbar_wait(barrier, parity, line_, file_);
#endif
}

/// __syncthreads() for the `threads` threads that name barrier `id` (1 to 15; 0 is __syncthreads' own); whole warps.
ATTUNE_DEVICE void sync_named(int id, int threads ATTUNE_HERE) {
#ifdef __CUDACC__
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  simt::sync_named(id, threads ATTUNE_HERE_ARGS);
#endif
}

/// Where a thread stands in a ring of slots, each with barriers of its own; parity is that of a phase which begins with the ring.
template <int kSlots>
struct HopperRing {
  int slot = 0;
  uint32_t parity = 0;
  ATTUNE_DEVICE void next() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

/// Orders this thread's writes to shared memory before what the copy engine and wgmma do there; a barrier must follow if others start them.
ATTUNE_DEVICE void async_proxy_fence() { ATTUNE_PTX90("fence.proxy.async.shared::cta;" :: : "memory"); }

// ---- bulk tensor copies ------------------------------------------------------------------------------------------------------------------------------------

/// Asks for the box of `map` whose first element has these coordinates (innermost first, may be negative); zeros outside the tensor. Its bytes count at
/// `barrier` when they have landed. One thread issues it; `to` is aligned to 8 spans of the map's swizzle.
template <typename... C>
ATTUNE_DEVICE void load_box(void* to, const TensorMap* map, uint64_t* barrier, C... coordinates) {
#ifdef __CUDACC__
  const int at[] = {coordinates...};
  const uint32_t address = shared_address(to), signal = shared_address(barrier);
  if constexpr (sizeof...(C) == 2)
    ATTUNE_PTX90("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(address), "l"(map),
                 "r"(signal), "r"(at[0]), "r"(at[1]) : "memory");
  if constexpr (sizeof...(C) == 3)
    ATTUNE_PTX90("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(address), "l"(map),
                 "r"(signal), "r"(at[0]), "r"(at[1]), "r"(at[2]) : "memory");
  if constexpr (sizeof...(C) == 4)
    ATTUNE_PTX90("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(address), "l"(map),
                 "r"(signal), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]) : "memory");
  if constexpr (sizeof...(C) == 5)
    ATTUNE_PTX90("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(address), "l"(map),
                 "r"(signal), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]) : "memory");
  (void)at, (void)address, (void)signal;
#else
  simt::load_box(to, map, barrier, {coordinates...}, __FILE__, __LINE__);
#endif
}

/// Has the map in the cache before its first use.
ATTUNE_DEVICE void prefetch_map(const TensorMap* map) {
  (void)map;
  ATTUNE_PTX90("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- operand descriptors of wgmma --------------------------------------------------------------------------------------------------------------------------

template <Swizzle kSwizzle>
constexpr int kSpan = swizzle_span(kSwizzle);  // bytes

template <Swizzle kSwizzle>
ATTUNE_DEVICE uint64_t operand(const void* tile, int leading, int stride) {
  static_assert(kSwizzle != Swizzle::none, "the layouts without swizzle are not used");
  constexpr uint64_t layout = 4 - uint64_t(kSwizzle);  // 1: 128 bytes, 2: 64, 3: 32
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 | layout << 62;
}

/// K-major operand: rows of one span (span128: 64 bf16 of k), groups of 8 rows 8 spans apart. A k16 step is 32 bytes. The leading offset is not used.
template <Swizzle kSwizzle = Swizzle::span128>
ATTUNE_DEVICE uint64_t k_major(const void* tile) {
  return operand<kSwizzle>(tile, 16, 8 * kSpan<kSwizzle>);
}

/// M- or N-major operand, as boxes of [k][one span of m or n], `box_bytes` apart; groups of 8 k are 8 spans apart. A k16 step is 16 spans.
template <Swizzle kSwizzle = Swizzle::span128>
ATTUNE_DEVICE uint64_t mn_major(const void* tile, int box_bytes) {
  return operand<kSwizzle>(tile, box_bytes, 8 * kSpan<kSwizzle>);
}

/// The same operand `bytes` further on.
ATTUNE_DEVICE uint64_t descriptor_step(uint64_t descriptor, int bytes) { return descriptor + uint64_t(bytes >> 4); }

// ---- wgmma -------------------------------------------------------------------------------------------------------------------------------------------------

/// Before the first multiply, and whenever a thread has touched accumulators or A registers since the last one.
ATTUNE_DEVICE void wgmma_fence() { ATTUNE_PTX90("wgmma.fence.sync.aligned;" :: : "memory"); }

/// Closes the group of multiplies issued since the last one.
ATTUNE_DEVICE void wgmma_commit(ATTUNE_HERE_ONLY) {
  ATTUNE_PTX90("wgmma.commit_group.sync.aligned;" :: : "memory");
#ifndef __CUDACC__
  simt::commit_multiplies(file_, line_);
#endif
}

/// Waits until at most N of the warpgroup's groups are in flight: their operands have been read, their accumulators are written.
template <int N>
ATTUNE_DEVICE void wgmma_wait(ATTUNE_HERE_ONLY) {
  ATTUNE_PTX90("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#ifndef __CUDACC__
  simt::wait_multiplies(N, file_, line_);
#endif
}

/// Settles these registers here, before a wgmma_fence() that orders them: the compiler knows neither that wgmma works on them until the wait nor that it must
/// not move them about after the fence.
template <int N>
ATTUNE_DEVICE void pin_registers(float (&d)[N]) {
  ATTUNE_UNROLL
  for (int i = 0; i < N; i++) {
    (void)d[i];
    ATTUNE_PTX90("" : "+f"(d[i])::"memory");
  }
}
template <int N>
ATTUNE_DEVICE void pin_registers(uint32_t (&a)[N][4]) {
  ATTUNE_UNROLL
  for (int i = 0; i < N * 4; i++) {
    (void)a[i / 4][i % 4];
    ATTUNE_PTX90("" : "+r"(a[i / 4][i % 4])::"memory");
  }
}

/// wgmma.mma_async m64nNk16, bf16 -> f32, by the 128 threads of a warpgroup. Thread t, with g = t % 32 / 4 and q = t % 4, holds of D [64, N]: d[4 j + 2 h + i]
/// is row 16 (t / 32) + g + 8 h, column 8 j + 2 q + i; and as A registers [64, 16] the same places of two n8 blocks, packed in pairs: a[2 j + h]. d = A B, or d
/// += A B if `accumulate`.
template <int N>
struct Wgmma;

#ifdef __CUDACC__
#define ATTUNE_D8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define ATTUNE_D16(d, i) ATTUNE_D8(d, i), ATTUNE_D8(d, i + 8)
#define ATTUNE_D32(d, i) ATTUNE_D16(d, i), ATTUNE_D16(d, i + 16)
#define ATTUNE_D64(d, i) ATTUNE_D32(d, i), ATTUNE_D32(d, i + 32)
#define ATTUNE_R16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define ATTUNE_R24 ATTUNE_R16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define ATTUNE_R32 ATTUNE_R24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ATTUNE_R40 ATTUNE_R32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define ATTUNE_R64 ATTUNE_R40 ", %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ATTUNE_R80 ATTUNE_R64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define ATTUNE_R128                                                                                                                                        \
  ATTUNE_R80                                                                                                                                               \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, " \
  "%108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define ATTUNE_D24(d, i) ATTUNE_D16(d, i), ATTUNE_D8(d, i + 16)
#define ATTUNE_D40(d, i) ATTUNE_D32(d, i), ATTUNE_D8(d, i + 32)
#define ATTUNE_D80(d, i) ATTUNE_D64(d, i), ATTUNE_D16(d, i + 64)
#define ATTUNE_D128(d, i) ATTUNE_D64(d, i), ATTUNE_D64(d, i + 64)

// R: accumulators of a thread (N / 2); o0 .. o5: the operand numbers that follow them.
#define ATTUNE_WGMMA(N, R, o0, o1, o2, o3, o4, o5, o6)                                                                                    \
  template <>                                                                                                                             \
  struct Wgmma<N> {                                                                                                                       \
    template <bool kMajorA, bool kMajorB>                                                                                                 \
    static ATTUNE_DEVICE void shared(float (&d)[R], uint64_t a, uint64_t b, int accumulate) {                                             \
      ATTUNE_PTX90("{\n.reg .pred p;\nsetp.ne.b32 p, %" o2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" ATTUNE_R##R \
                   "}, %" o0 ", %" o1 ", p, 1, 1, %" o3 ", %" o4 ";\n}" : ATTUNE_D##R(d, 0) : "l"(a),                                     \
                   "l"(b), "r"(accumulate), "n"(int(kMajorA)), "n"(int(kMajorB)));                                                        \
    }                                                                                                                                     \
    template <bool kMajorB>                                                                                                               \
    static ATTUNE_DEVICE void registers(float (&d)[R], const uint32_t (&a)[4], uint64_t b, int accumulate) {                              \
      ATTUNE_PTX90("{\n.reg .pred p;\nsetp.ne.b32 p, %" o5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" ATTUNE_R##R \
                   "}, {%" o0 ", %" o1 ", %" o2 ", %" o3 "}, %" o4 ", p, 1, 1, %" o6 ";\n}" : ATTUNE_D##R(d, 0) : "r"(a[0]),              \
                   "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(kMajorB)));                                          \
    }                                                                                                                                     \
  };
ATTUNE_WGMMA(32, 16, "16", "17", "18", "19", "20", "21", "22")
ATTUNE_WGMMA(48, 24, "24", "25", "26", "27", "28", "29", "30")
ATTUNE_WGMMA(64, 32, "32", "33", "34", "35", "36", "37", "38")
ATTUNE_WGMMA(80, 40, "40", "41", "42", "43", "44", "45", "46")
ATTUNE_WGMMA(128, 64, "64", "65", "66", "67", "68", "69", "70")
ATTUNE_WGMMA(160, 80, "80", "81", "82", "83", "84", "85", "86")
ATTUNE_WGMMA(256, 128, "128", "129", "130", "131", "132", "133", "134")
#else
template <int N>
struct Wgmma {
  template <bool kMajorA, bool kMajorB>
  static void shared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate ATTUNE_HERE) {
    simt::issue_multiply({d, N, a, b, nullptr, kMajorA, kMajorB, accumulate != 0} ATTUNE_HERE_ARGS);
  }
  template <bool kMajorB>
  static void registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate ATTUNE_HERE) {
    simt::issue_multiply({d, N, 0, b, a, false, kMajorB, accumulate != 0} ATTUNE_HERE_ARGS);
  }
};
#endif

// ---- registers between roles -------------------------------------------------------------------------------------------------------------------------------

/// All four warps of a warpgroup: give registers back down to N a thread, or take up to N; N a multiple of 8. The kernel is bound to one block per
/// multiprocessor.
template <int N>
ATTUNE_DEVICE void shrink_registers() {
  ATTUNE_PTX90("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
ATTUNE_DEVICE void grow_registers() {
  ATTUNE_PTX90("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// ---- host side ---------------------------------------------------------------------------------------------------------------------------------------------

/// Whether a kernel of this kind can run: on sm_90, if its code for sm_90a is in this object. For every other target, and so for what a driver makes of PTX on
/// a newer GPU, the kernel is empty, and an empty kernel takes few registers. The first call must not be inside a capture: a dry call is not.
inline bool hopper_serves(const DeviceCaps& caps, [[maybe_unused]] const void* kernel) {
  if (caps.arch != 90 || caps.shared_bytes < 227 * 1024) return false;
#ifdef __CUDACC__
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.numRegs > 32;
#else
  return true;
#endif
}

}  // namespace cuda
}  // namespace attune
