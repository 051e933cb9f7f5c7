// simt.h - throwaway prototype: run CUDA-style kernels under g++ (threads = fibers).
// Kernel-facing part. The scheduler lives in simt_rt.cpp (compiled WITHOUT sanitizer
// instrumentation so that ASan/TSan only look at kernel code).
#pragma once
#include <cstdint>
#include <cstring>
#include <cmath>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <functional>

#ifndef SIMT_CHECK
#define SIMT_CHECK 1          // 1: checked+race-tracked smem/gmem wrappers
#endif

#define __global__
#define __restrict__ __restrict
#define __expf expf
#define __logf logf
#define __fdividef(a,b) ((a)/(b))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3_ { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8)  uint2 { unsigned x, y; };
struct alignas(8)  float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
inline float2 make_float2(float a, float b) { return {a, b}; }

namespace simt {
struct Block;
struct Warp;
struct Thread {
  uint3_ tid;            // threadIdx
  uint16_t lin, lane, warp;
  Warp* w;
  Block* blk;
  void* sp;              // saved stack pointer
  void* tsan;            // TSan fiber handle
  void* fake;            // ASan fake stack
  void* stack; 
  uint32_t site;         // last collective site (diagnostics)
  bool done;
};
extern thread_local Thread* cur __attribute__((tls_model("initial-exec")));
struct BlockView { uint3_ bid; dim3 bdim, gdim; uint8_t* smem; size_t smem_bytes; };
BlockView& bv();          // current block

enum class Order { RoundRobin, Reverse, Random };
enum class Async { Late, Early, Random };
struct Options {
  Order order = Order::RoundRobin;
  Async async_copy = Async::Late;
  uint64_t seed = 1;
  int os_threads = 1;
  bool shuffle_blocks = false;
  bool abort_on_error = false;
  int max_reports = 3;
};
extern Options opt;
struct Stats { uint64_t switches, collectives, barriers, errors, ldsm, ldsm_extra, threads, blocks; };
extern Stats stats;

// ---- scheduler primitives
void syncthreads(uint32_t site);
void syncwarp(uint32_t mask, uint32_t site);
// every lane in mask deposits arg; the last to arrive runs fn once for the whole warp
typedef void (*LeaderFn)(void** args, uint32_t mask);
void collective(uint32_t mask, uint32_t site, void* arg, LeaderFn fn);
void report(const char* kind, const char* fmt, ...);

// ---- checked memory
void* dev_alloc(size_t bytes, const char* name);      // poisoned with NaN bytes, exact size, registered
void dev_free_all();
void dev_free(void*);
void check_global(const void* p, size_t n, bool write, const char* file, int line);
void check_shared(const void* p, size_t n, bool write, const char* file, int line, int as_lane = -1);

// ---- async copies
void cp_async(void* dst, const void* src, uint32_t bytes, uint32_t valid, const char* f, int l);
void cp_commit();
void cp_wait(int n);

// ---- Hopper twins: mbarrier, bulk async copies, warpgroup collectives
void mbar_init(uint64_t* b, uint32_t count);
void mbar_arrive(uint64_t* b, uint32_t tx);           // tx>0: arrive.expect_tx
void mbar_wait(uint64_t* b, uint32_t parity, int line);
struct BulkArg { uint64_t w[12]; };                   // plain data: no heap object crosses fibers
void bulk_issue(void (*op)(const BulkArg&), const BulkArg& arg, uint64_t* bar, uint32_t bytes);   // runs when the copy engine is scheduled, then complete_tx
void collective_wg(uint32_t site, void* arg, LeaderFn fn);                   // 4 warps, args[128]

unsigned char* shared_memory();
void check(const void* p, size_t n, bool write, const char* file, int line);
// ---- launch
void run(dim3 grid, dim3 block, size_t smem, const std::function<void()>& body, const char* name);

inline uint32_t site_hash(const char*, int line) { return (uint32_t)line; }
} // namespace simt

#define threadIdx (simt::cur->tid)
#define blockIdx  (simt::bv().bid)
#define blockDim  (simt::bv().bdim)
#define gridDim   (simt::bv().gdim)
#define SIMT_LOC  const char* f_ = __builtin_FILE(), int l_ = __builtin_LINE()

inline void __syncthreads(int l_ = __builtin_LINE()) { simt::syncthreads(l_); }
inline void __syncwarp(unsigned m = 0xffffffffu, int l_ = __builtin_LINE()) { simt::syncwarp(m, l_); }

namespace simt {
struct ShflArg { uint64_t v; uint64_t out; int k; };
template <int MODE> __attribute__((no_sanitize("thread"))) inline void shfl_leader(void** a, uint32_t mask) {
  for (int i = 0; i < 32; i++) if (mask >> i & 1) {
    auto* s = (ShflArg*)a[i];
    int src = MODE == 0 ? (s->k & 31) : MODE == 1 ? (i ^ s->k) : MODE == 2 ? (i + s->k) : (i - s->k);
    if (src < 0 || src > 31) src = i;
    if (!(mask >> src & 1)) { report("shfl", "lane %d reads inactive lane %d", i, src); s->out = ~0ull; continue; }
    s->out = ((ShflArg*)a[src])->v;
  }
}
template <int MODE, class T> inline T shfl(uint32_t mask, T v, int k, int site) {
  static_assert(sizeof(T) <= 8);
  ShflArg s{0, 0, k}; memcpy(&s.v, &v, sizeof(T));
  collective(mask, site, &s, &shfl_leader<MODE>);
  T r; memcpy(&r, &s.out, sizeof(T)); return r;
}
} // namespace simt
template <class T> inline T __shfl_sync(unsigned m, T v, int k, int w = 32, int l_ = __builtin_LINE()) { (void)w; return simt::shfl<0>(m, v, k, l_); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int k, int w = 32, int l_ = __builtin_LINE()) { (void)w; return simt::shfl<1>(m, v, k, l_); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, int k, int w = 32, int l_ = __builtin_LINE()) { (void)w; return simt::shfl<2>(m, v, k, l_); }
inline float atomicAdd(float* p, float v) {
  uint32_t o = __atomic_load_n((uint32_t*)p, __ATOMIC_RELAXED), n; float f;
  do { memcpy(&f, &o, 4); f += v; memcpy(&n, &f, 4); } while (!__atomic_compare_exchange_n((uint32_t*)p, &o, n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  memcpy(&f, &o, 4); return f;
}
template <class T> inline T __ldg(const T* p) { return *p; }
