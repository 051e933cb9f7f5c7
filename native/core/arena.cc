#include "arena.h"

#include <sys/mman.h>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)0)
#endif

namespace attune {

namespace {
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t(2) << 20;
// The last page is never handed out: under AddressSanitizer an access past the end is reported, elsewhere it hurts nobody.
size_t pages_for(int64_t bytes) { return (size_t(bytes) + kPage - 1) / kPage * kPage + kPage; }
}  // namespace

Arena::~Arena() {
  if (!data_) return;
  ASAN_UNPOISON_MEMORY_REGION(data_, mapped_);
  munmap(data_, mapped_);
}

void Arena::grow(int64_t bytes) {
  if (bytes <= bytes_) return;
  const size_t wanted = pages_for(bytes);
  if (data_) ASAN_UNPOISON_MEMORY_REGION(data_, mapped_);
  void* at = data_ ? mremap(data_, mapped_, wanted, MREMAP_MAYMOVE)
                   : mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw Error("ERR_MEMORY", "the system refused an arena of " + std::to_string(bytes) + " bytes");
  if (wanted >= kHugePage) madvise(at, wanted, MADV_HUGEPAGE);  // fewer TLB misses; without it only slower
  data_ = static_cast<char*>(at), bytes_ = bytes, mapped_ = wanted;
  ASAN_POISON_MEMORY_REGION(data_ + bytes_, mapped_ - size_t(bytes_));
}

}  // namespace attune
