// Fibers: stacks that a thread of the operating system changes between by hand. On x86-64 and arm64 a switch saves the registers that a call must keep and
// swaps stack pointers (some nanoseconds); elsewhere it is ucontext's.
//
// AddressSanitizer and ThreadSanitizer are told of every switch. For ThreadSanitizer each fiber is a thread of its own, and a switch orders nothing: only what
// synchronises in CUDA is told to it (sanitizer.h).
#pragma once
#include <cstddef>

#include "sanitizer.h"

#if defined(ATTUNE_SIMT_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#undef ATTUNE_SIMT_UCONTEXT
#define ATTUNE_SIMT_UCONTEXT 1
#include <ucontext.h>
#else
#define ATTUNE_SIMT_UCONTEXT 0
#endif

namespace attune {
namespace simt {

struct Fiber {
  void* stack_pointer = nullptr;  // of a fiber that does not run
  void* stack = nullptr;          // lowest address; of the host's own stack only under ASan, who asks for it
  size_t stack_bytes = 0;
#if ATTUNE_SIMT_UCONTEXT
  ucontext_t context;
#endif
#if ATTUNE_SIMT_ASAN
  void* fake_stack = nullptr;
#endif
#if ATTUNE_SIMT_TSAN
  void* thread = nullptr;
#endif
};

/// Makes `fiber`, whose stack is set, begin at `entry` when it is switched to; entry never returns. ThreadSanitizer's thread stays what it was until dispose().
void prepare(Fiber& fiber, void (*entry)());
/// Goes on in `to`; returns when somebody switches back to `from`. `last`: nobody will.
void switch_fiber(Fiber& from, Fiber& to, bool last = false);
/// What `entry` calls first.
void entered(Fiber& self);
/// The caller's own stack as a fiber, to come back to.
void adopt(Fiber& host);
/// After the last switch from it, by another fiber.
void dispose(Fiber& fiber);

/// Stacks of one operating system thread, each above a page that faults: an overflow is a crash at once, not another fiber's nonsense (but under
/// ThreadSanitizer).
class Stacks {
 public:
  ~Stacks();
  /// Makes at least `count` stacks. `anew`: new to ThreadSanitizer, for which a stack's earlier owner has nothing to do with its next.
  void prepare(int count, bool anew);
  void give(Fiber& fiber, int index) const;

 private:
  unsigned char* memory_ = nullptr;
  int guarded_ = 0;
};

}  // namespace simt
}  // namespace attune
