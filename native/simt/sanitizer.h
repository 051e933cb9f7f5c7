// What the runtime tells the sanitizers. It is compiled without their instrumentation (CMakeLists.txt), kernels with it: they must see kernel code alone, in
// which every CUDA thread is a thread. Without a sanitizer all of this is empty.
#pragma once
#include <cstddef>

#ifndef ATTUNE_SIMT_ASAN
#ifdef __SANITIZE_ADDRESS__
#define ATTUNE_SIMT_ASAN 1
#else
#define ATTUNE_SIMT_ASAN 0
#endif
#endif
#ifndef ATTUNE_SIMT_TSAN
#ifdef __SANITIZE_THREAD__
#define ATTUNE_SIMT_TSAN 1
#else
#define ATTUNE_SIMT_TSAN 0
#endif
#endif

#if ATTUNE_SIMT_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* stack, size_t bytes);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_stack, size_t* old_bytes);
void __asan_poison_memory_region(const volatile void* p, size_t bytes);
void __asan_unpoison_memory_region(const volatile void* p, size_t bytes);
}
#endif
#if ATTUNE_SIMT_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* p);
void __tsan_release(void* p);
void __tsan_read_range(void* p, unsigned long bytes);
void __tsan_write_range(void* p, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace attune {
namespace simt {

/// What happened before released(p) is seen after acquired(p).
inline void released([[maybe_unused]] const void* p) {
#if ATTUNE_SIMT_TSAN
  __tsan_release(const_cast<void*>(p));
#endif
}
inline void acquired([[maybe_unused]] const void* p) {
#if ATTUNE_SIMT_TSAN
  __tsan_acquire(const_cast<void*>(p));
#endif
}
/// An asynchronous copy reads or writes some time in an interval: said at both its ends.
inline void was_read([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if ATTUNE_SIMT_TSAN
  if (bytes) __tsan_read_range(const_cast<void*>(p), bytes);
#endif
}
inline void was_written([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if ATTUNE_SIMT_TSAN
  if (bytes) __tsan_write_range(const_cast<void*>(p), bytes);
#endif
}

/// ThreadSanitizer's interceptors (malloc, free, memcpy) fire in code without instrumentation too: the runtime's bookkeeping, which all fibers share, is not
/// for it.
struct Quiet {
#if ATTUNE_SIMT_TSAN
  static inline __thread int depth;
  Quiet() { depth++, AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Quiet() { leave(); }
  static void leave() { depth--, AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
  /// Before a fiber is left for good with such scopes open.
  static void leave_all() {
    while (depth > 0) leave();
  }
#else
  Quiet() {}
  ~Quiet() {}
  static void leave_all() {}
#endif
};

}  // namespace simt
}  // namespace attune
