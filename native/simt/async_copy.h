// cp.async: copies of a thread from global to shared memory. One is a write over its whole interval, issue to wait, wherever in it the bytes land: at once
// (copies=early), at the wait (late; until then the place holds NaN), or by chance.
#pragma once
#include <cstdint>
#include <vector>

#include "report.h"

namespace attune {
namespace simt {

struct PendingCopy {
  unsigned char* to;
  const unsigned char* from;
  uint16_t bytes, valid;
  bool landed;
  Place place;
};

/// A thread's copies: first[0 .. ends[0]) is the oldest group in flight, and so on; behind the last end, copies that no group holds yet.
struct CopyQueue {
  std::vector<PendingCopy> copies;
  std::vector<uint32_t> ends;
  uint32_t first = 0, first_end = 0;  // before them: what has been waited for
  bool in_flight() const { return first < copies.size(); }
  void drop_waited();
  void clear() { copies.clear(), ends.clear(), first = first_end = 0; }
};

}  // namespace simt
}  // namespace attune
