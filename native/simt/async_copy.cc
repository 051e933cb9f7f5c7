#include "async_copy.h"

#include <cstring>

#include "block.h"

namespace attune {
namespace simt {

namespace {

// By hand: no call that a sanitizer would intercept.
void copy_bytes(unsigned char* to, const unsigned char* from, size_t bytes) {
  if (bytes == 16) __builtin_memcpy(to, from, 16);
  else
    for (size_t i = 0; i < bytes; i++) static_cast<volatile unsigned char*>(to)[i] = from[i];
}
void fill_bytes(unsigned char* to, unsigned char value, size_t bytes) {
  if (bytes == 16) __builtin_memset(to, value, 16);
  else
    for (size_t i = 0; i < bytes; i++) static_cast<volatile unsigned char*>(to)[i] = value;
}

void land(const PendingCopy& copy) {
  copy_bytes(copy.to, copy.from, copy.valid);
  fill_bytes(copy.to + copy.valid, 0, copy.bytes - copy.valid);
}

/// Its thread has waited: from now on it is a write like any other.
void retire(Block& block, PendingCopy& copy) {
  if (!copy.landed) land(copy);
  was_read(copy.from, copy.valid), was_written(copy.to, copy.bytes);
  if (checked) block.shadow.stamp(size_t(copy.to - block.view.shared), copy.bytes, access_of(block, true, false, copy.place));
}

}  // namespace

void cp_async(void* to, const void* from, uint32_t bytes, uint32_t valid, const char* file, int line) {
  Block& block = *running;
  Lane& self = block.self();
  self.at = {file, line};
  if ((bytes != 4 && bytes != 8 && bytes != 16) || valid > bytes) fail("cp.async", "%u of %u bytes", valid, bytes);
  PendingCopy copy{static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), uint16_t(bytes), uint16_t(valid), true, {file, line}};
  if (checked) {
    if (reinterpret_cast<uintptr_t>(from) % bytes) fail("misaligned", "cp.async of %u bytes from %p", bytes, from);
    if (opt.profile && valid) block.profile.global(copy.place, copy.from, valid, false);
    for (uint32_t at = 0; at < valid;) {  // pieces of powers of two, as shadow memory takes them
      const uint32_t piece = 1u << (31 - __builtin_clz(valid - at));
      check_global_memory(block, copy.from + at, piece, access_of(block, false, false, copy.place));
      at += piece;
    }
    Access access = access_of(block, true, false, copy.place);
    access.write.state = Write::copying;
    check_shared_memory(block, to, bytes, access);
  }
  was_read(from, valid), was_written(to, bytes);
  if (opt.async_copy == Async::Late || (opt.async_copy == Async::Random && block.draw() & 1)) copy.landed = false, fill_bytes(copy.to, 0xFF, bytes);
  else land(copy);
  const Quiet quiet;
  self.copies.copies.push_back(copy);
}

void cp_commit() {
  CopyQueue& queue = running->self().copies;
  const Quiet quiet;
  queue.ends.push_back(uint32_t(queue.copies.size()));
}

void cp_wait(int groups_in_flight) {
  Block& block = *running;
  CopyQueue& queue = block.self().copies;
  while (int(queue.ends.size() - queue.first_end) > groups_in_flight)
    for (const uint32_t end = queue.ends[queue.first_end++]; queue.first < end; queue.first++) retire(block, queue.copies[queue.first]);
  if (queue.first >= 64 || queue.first_end >= 64) queue.drop_waited();
}

void CopyQueue::drop_waited() {
  const Quiet quiet;
  copies.erase(copies.begin(), copies.begin() + first), ends.erase(ends.begin(), ends.begin() + first_end);
  for (uint32_t& end : ends) end -= first;
  first = first_end = 0;
}

}  // namespace simt
}  // namespace attune
