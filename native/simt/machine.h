// What the twins of CUDA's instructions ask of the host machine: who runs, checked memory, collectives, asynchronous copies, barriers of sm_90. Kernels come
// here through simt.h and native/cuda/*.cuh; the machine itself is behind block.h.
//
// A call that passes a place (file, line) names the kernel's source line in reports. `report` notes an error and lets the kernel go on; `fail` gives the block
// up. Both end in an attune::Error out of the launch, never in an exit of the process.
#pragma once
#include <cstddef>
#include <cstdint>

#include "types.h"

namespace attune {
namespace simt {

enum class Order { RoundRobin, Reverse, Random };  // which runnable thread goes next
enum class Async { Late, Early, Random };          // when an asynchronous copy lands between its issue and its wait
enum class Checks { Off, On, Full };               // Full: also races on global memory, between blocks and within one

struct Options {
  Order order = Order::RoundRobin;
  Async async_copy = Async::Late;
  Checks checks = Checks::On;
  uint64_t seed = 1;
  int threads = 1;       // operating system threads that run blocks
  bool profile = false;  // count bank conflicts and memory sectors per source line
};
extern Options opt;  // of the launches to come

/// What a thread of a kernel knows about itself.
struct Thread {
  uint3 index;               // threadIdx
  uint16_t lin, lane, warp;  // number within the block (x runs fastest), within the warp, of the warp
};
struct BlockView {
  uint3 index;         // blockIdx
  dim3 threads, grid;  // blockDim, gridDim
  unsigned char* shared;
  size_t shared_bytes;
};

// Of the thread that runs on this operating system thread. __thread, not thread_local: kernels need no initialisation check.
#define ATTUNE_SIMT_THREAD __thread __attribute__((tls_model("initial-exec")))
extern ATTUNE_SIMT_THREAD Thread* cur;
extern ATTUNE_SIMT_THREAD BlockView* view;
extern ATTUNE_SIMT_THREAD bool checked;

inline unsigned char* shared_memory() { return view->shared; }
inline size_t shared_bytes() { return view->shared_bytes; }

// ---- reports

void report(const char* kind, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void fail(const char* kind, const char* format, ...) __attribute__((format(printf, 2, 3)));

// ---- memory

void check_access(const void* p, size_t bytes, bool write, bool atomic, const char* file, int line);

/// Before a thread reads or writes shared or global memory: bounds, alignment, races, copies in flight, memory that nobody wrote.
inline void check(const void* p, size_t bytes, bool write, const char* file, int line) {
  if (checked) check_access(p, bytes, write, false, file, line);
}
inline void check_atomic(const void* p, size_t bytes, const char* file, int line) {
  if (checked) check_access(p, bytes, true, true, file, line);
}
/// Either kind of memory where the caller knows which.
void check_global(const void* p, size_t bytes, bool write, const char* file, int line);
void check_shared(const void* p, size_t bytes, bool write, const char* file, int line);

// ---- cp.async

/// Copies `valid` of `bytes` bytes, zeros after them, some time before the wait for its group returns.
void cp_async(void* to, const void* from, uint32_t bytes, uint32_t valid, const char* file, int line);
void cp_commit();
void cp_wait(int groups_in_flight);

// ---- warps

/// Runs once all lanes of `mask` have arrived, on the last one's stack; args[lane] is what each brought. It must not wait.
using LeaderFn = void (*)(void** args, uint32_t mask);
void collective(uint32_t mask, uint32_t line, void* arg, LeaderFn fn, const char* file = __builtin_FILE());
/// The same for the 128 threads of a warpgroup; args[128]. It orders no memory accesses between them.
void collective_wg(uint32_t line, void* arg, LeaderFn fn, const char* file = __builtin_FILE());
/// Lanes of the mask see each other's earlier writes.
void sync_warp(uint32_t mask, const char* file, int line);

enum class Shuffle { Index, Up, Down, Xor };
uint64_t shuffle(uint32_t mask, Shuffle kind, uint64_t value, int operand, int width, const char* file, int line);
uint32_t ballot(uint32_t mask, bool predicate, const char* file, int line);
enum class Reduce { Add, MinSigned, MaxSigned, MinUnsigned, MaxUnsigned, And, Or, Xor };
uint32_t reduce(uint32_t mask, Reduce kind, uint32_t value, const char* file, int line);

/// ldmatrix .x1, .x2, .x4: matrices of 8 rows of 16 bytes, whose addresses lanes 0 .. 8 * matrices - 1 bring.
void load_matrices(uint32_t* registers, const void* row, int matrices, bool transposed, const char* file, int line);

/// A warp tile of mma.sync m16n8k16 (depth 16) or m16n8k8 (depth 8), bf16 into f32, as many instructions at once as the kernel issues in a row. Fragments per
/// instruction and lane: a has depth / 4 registers, b depth / 8, the accumulator four floats at (m * step_m + n * step_n).
struct MmaTile {
  float* accumulators;
  const uint32_t *a, *b;
  int rows, columns, depth;  // instructions down, instructions across, k
  int step_m, step_n;
};
void multiply(const MmaTile& tile, const char* file, int line);

// ---- blocks

enum class Vote { None, Count, And, Or };
int sync_block(Vote vote, bool predicate, const char* file, int line);
/// bar.sync / bar.arrive id, threads: named barrier 1..15.
void sync_named(int id, int threads, const char* file, int line);
void arrive_named(int id, int threads, const char* file, int line);
/// Writes before it, of this thread and of those it has synchronised with, may be published by an atomic after it.
void fence();

// ---- sm_90: mbarriers, bulk copies, warpgroup operands

void mbar_init(uint64_t* barrier, uint32_t arrivals, const char* file = __builtin_FILE(), int line = __builtin_LINE());
/// Arrives, and expects `bytes` more of bulk copies in this phase.
void mbar_arrive(uint64_t* barrier, uint32_t bytes, const char* file = __builtin_FILE(), int line = __builtin_LINE());
void mbar_wait(uint64_t* barrier, uint32_t parity, int line, const char* file = __builtin_FILE());

struct BulkArg {  // plain data: it outlives the frame that issues the copy
  uint64_t w[12];
};
/// Starts a copy into `bytes` bytes of shared memory at `to`: op(arg) writes them when the copy engine gets its turn, then they count at the barrier. Whoever
/// touches them before it has waited for that phase, or was not done with them before the issue, is reported. Without `to` there is no such check.
void bulk_issue(void (*op)(const BulkArg&), const BulkArg& arg, uint64_t* barrier, uint32_t bytes, void* to = nullptr, const char* file = __builtin_FILE(),
                int line = __builtin_LINE());

/// Operands of wgmma in shared memory, read by a warp some time between issue and wait. All lanes call these, lane 0 counts: read at issue, commit a group,
/// wait until at most `left` groups are in flight.
void async_read(const void* p, size_t bytes, const char* file = __builtin_FILE(), int line = __builtin_LINE());
void async_read_commit();
void async_read_wait(int left);

}  // namespace simt
}  // namespace attune
