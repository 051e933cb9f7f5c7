#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "../core/error.h"

#if !ATTUNE_SIMT_UCONTEXT
extern "C" void attune_simt_switch(void** save, void* to);
#if defined(__x86_64__)
// System V: rbx, rbp and r12..r15 belong to the caller. A new fiber's stack holds six zeros and its entry.
asm(R"(
.text
.globl attune_simt_switch
.hidden attune_simt_switch
.type attune_simt_switch,@function
attune_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size attune_simt_switch, .-attune_simt_switch
)");
constexpr int kSaved = 6;  // words below the return address
#else
// AAPCS64: x19..x30 and the low halves of v8..v15 belong to the caller.
asm(R"(
.text
.globl attune_simt_switch
.hidden attune_simt_switch
.type attune_simt_switch,%function
attune_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size attune_simt_switch, .-attune_simt_switch
)");
#endif
#endif

namespace attune {
namespace simt {

namespace {

// Frames of instrumented code are several times as large.
constexpr size_t kStackBytes = ATTUNE_SIMT_ASAN || ATTUNE_SIMT_TSAN ? 256 << 10 : 128 << 10;
constexpr size_t kGuardBytes = 16 << 10;  // a whole page wherever pages are 16 KiB at most
constexpr int kStacks = 1024;             // of the largest block

#if ATTUNE_SIMT_ASAN
__thread Fiber* left;  // the fiber of the last switch: ASan tells its successor where that stack lies
#endif

}  // namespace

void prepare(Fiber& fiber, void (*entry)()) {
#if ATTUNE_SIMT_ASAN
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);  // frames that never returned
  fiber.fake_stack = nullptr;
#endif
#if ATTUNE_SIMT_TSAN
  if (!fiber.thread) fiber.thread = __tsan_create_fiber(0);
#endif
#if ATTUNE_SIMT_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack, fiber.context.uc_stack.ss_size = fiber.stack_bytes, fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  uint64_t* top = reinterpret_cast<uint64_t*>(static_cast<unsigned char*>(fiber.stack) + fiber.stack_bytes);
#if defined(__x86_64__)
  top -= 2;  // the return address's place is 16-byte aligned: entry finds the stack as after a call
  top[0] = reinterpret_cast<uint64_t>(entry), top[1] = 0;
  uint64_t* saved = top - kSaved;
  std::memset(saved, 0, kSaved * sizeof(uint64_t));
#else
  uint64_t* saved = top - 20;
  std::memset(saved, 0, 20 * sizeof(uint64_t));
  saved[11] = reinterpret_cast<uint64_t>(entry);  // x30
#endif
  fiber.stack_pointer = saved;
#endif
}

void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
#if ATTUNE_SIMT_ASAN
  left = &from;
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#endif
#if ATTUNE_SIMT_TSAN
  __tsan_switch_to_fiber(to.thread, 1);  // 1: orders nothing
#endif
#if ATTUNE_SIMT_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  attune_simt_switch(&from.stack_pointer, to.stack_pointer);
#endif
  entered(from);
}

void entered([[maybe_unused]] Fiber& self) {
#if ATTUNE_SIMT_ASAN
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(self.fake_stack, &stack, &bytes);
  if (!left->stack) left->stack = const_cast<void*>(stack), left->stack_bytes = bytes;  // the host
#endif
}

void adopt([[maybe_unused]] Fiber& host) {
#if ATTUNE_SIMT_TSAN
  host.thread = __tsan_get_current_fiber();
#endif
}

void dispose([[maybe_unused]] Fiber& fiber) {
#if ATTUNE_SIMT_TSAN
  if (fiber.thread) __tsan_destroy_fiber(fiber.thread);
  fiber.thread = nullptr;
#endif
}

Stacks::~Stacks() {
  if (memory_) munmap(memory_, kStacks * (kStackBytes + kGuardBytes));
}

void Stacks::prepare(int count, [[maybe_unused]] bool anew) {
  const auto map = [](void* at, size_t bytes, int fixed) {
    void* p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (p == MAP_FAILED) throw Error("ERR_DEVICE", "simt: no memory for stacks");
    return static_cast<unsigned char*>(p);
  };
  if (!memory_) memory_ = map(nullptr, kStacks * (kStackBytes + kGuardBytes), 0);
#if ATTUNE_SIMT_TSAN
  const Quiet quiet;  // so that the new mapping is nobody's write
  if (anew) map(memory_, size_t(count) * (kStackBytes + kGuardBytes), MAP_FIXED);
  guarded_ = count;  // guards that would have to be made anew for every block
#endif
  for (; guarded_ < count; guarded_++)
    if (mprotect(memory_ + size_t(guarded_) * (kStackBytes + kGuardBytes), kGuardBytes, PROT_NONE) != 0)
      throw Error("ERR_DEVICE", "simt: a stack cannot be guarded");
}

void Stacks::give(Fiber& fiber, int index) const {
  fiber.stack = memory_ + size_t(index) * (kStackBytes + kGuardBytes) + kGuardBytes;
  // Tops at different distances from a page's end: else the same few cache sets would hold the busiest lines of all stacks.
  fiber.stack_bytes = kStackBytes - size_t(index % 32) * 128;
}

}  // namespace simt
}  // namespace attune
