// Every load and store of a kernel comes by here: which memory it is, alignment, bounds, then that memory's shadow.
#include <algorithm>

#include "block.h"

namespace attune {
namespace simt {

namespace {

/// Cuts an access into the aligned powers of two, 16 bytes at most, that shadow memory knows.
template <typename F>
void pieces(const void* p, size_t bytes, F&& each) {
  const char* at = static_cast<const char*>(p);
  if ((bytes & (bytes - 1)) == 0 && bytes <= 16) return each(at, bytes);
  while (bytes > 0) {
    size_t piece = 16;
    while (piece > bytes || reinterpret_cast<uintptr_t>(at) % piece) piece /= 2;
    each(at, piece);
    at += piece, bytes -= piece;
  }
}

void check_alignment(Block& block, const void* p, size_t bytes, Place place, bool writes) {
  const size_t alignment = std::min<size_t>(bytes & -bytes, 16);  // float3 of 12 bytes: 4
  if (reinterpret_cast<uintptr_t>(p) % alignment == 0) return;
  block.self().at = place;
  fail("misaligned", "%s of %zu bytes at %p, which is no multiple of %zu", writes ? "write" : "read", bytes, p, alignment);
}

}  // namespace

void check_shared_memory(Block& block, const void* p, size_t bytes, const Access& access) {
  check_alignment(block, p, bytes, access.place, access.writes);
  const int64_t offset = static_cast<const unsigned char*>(p) - block.view.shared, limit = int64_t(block.view.shared_bytes);
  if (offset < 0 || offset + int64_t(bytes) > limit) {
    block.self().at = access.place;
    const std::string where =
        offset < 0 ? std::to_string(-offset) + " bytes before" : std::to_string(offset + int64_t(bytes) - limit) + " bytes past the end of";
    fail("out of bounds", "%s of %zu bytes %s %lld bytes of shared memory", access.writes ? "write" : "read", bytes, where.c_str(),
         static_cast<long long>(limit));
  }
  block.shadow.check(block, size_t(offset), bytes, access);
}

void check_global(const void* p, size_t bytes, bool write, const char* file, int line) {
  if (!checked) return;
  Block& block = *running;
  const Place place{file, line};
  check_alignment(block, p, bytes, place, write);
  if (opt.profile) block.profile.global(place, p, bytes, write);
  const Access access = access_of(block, write, false, place);
  pieces(p, bytes, [&](const void* at, size_t piece) { check_global_memory(block, at, piece, access); });
}

void check_shared(const void* p, size_t bytes, bool write, const char* file, int line) {
  if (!checked) return;
  Block& block = *running;
  const Access access = access_of(block, write, false, {file, line});
  pieces(p, bytes, [&](const void* at, size_t piece) { check_shared_memory(block, at, piece, access); });
}

void check_access(const void* p, size_t bytes, bool write, bool atomic, const char* file, int line) {
  Block& block = *running;
  const Place place{file, line};
  const Access access = access_of(block, write, atomic, place);
  check_alignment(block, p, bytes, place, write);
  if (block.in_arena(p)) {
    if (opt.profile) block.profile.shared(place, p, bytes, write);
    pieces(p, bytes, [&](const void* at, size_t piece) { check_shared_memory(block, at, piece, access); });
  } else {
    if (opt.profile) block.profile.global(place, p, bytes, write);
    pieces(p, bytes, [&](const void* at, size_t piece) { check_global_memory(block, at, piece, access); });
  }
}

}  // namespace simt
}  // namespace attune
