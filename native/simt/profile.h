// Memory requests by source line, for who tunes a kernel without a GPU (profile=on): shared-memory wavefronts against the fewest possible (more: bank
// conflicts), and 32-byte sectors of global memory against the fewest that hold the bytes (more: accesses that do not coalesce).
//
// Fibers of a warp reach a line one after another; the n-th time of each lane since the last __syncthreads is taken for one request. Where lanes take different
// numbers of turns in a loop that is a guess.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "report.h"

namespace attune {
namespace simt {

class Profile {
 public:
  void shared(Place place, const void* p, size_t bytes, bool writes) { note(place, p, bytes, writes ? shared_write : shared_read); }
  void global(Place place, const void* p, size_t bytes, bool writes) { note(place, p, bytes, writes ? global_write : global_read); }
  void matrices(Place place, const void* row, int matrices);
  void end_epoch();
  void end_block() { end_epoch(); }
  /// Adds what was counted to the process's table under the kernel's name.
  void end_launch(const std::string& kernel);

  enum Kind : uint8_t { shared_read, shared_write, shared_matrices, global_read, global_write };
  struct Line {
    uint64_t requests = 0, bytes = 0, cost = 0, least = 0;  // cost: wavefronts or sectors
  };

 private:
  struct Request {
    Kind kind;
    uint16_t bytes;
    uint32_t lanes = 0;
    uintptr_t address[32];
  };
  void note(Place place, const void* p, size_t bytes, Kind kind);
  void count(uint64_t place, const Request& request);
  std::unordered_map<uint64_t, std::unordered_map<uint32_t, uint32_t>> turns_;  // by place, by thread
  std::map<std::pair<uint64_t, uint64_t>, Request> requests_;                   // by place, by warp and turn
  std::map<std::pair<uint64_t, Kind>, Line> lines_;
};

/// The table of all launches so far, a line each: kernel, place, requests, cost against the least.
std::string profile_text();

}  // namespace simt
}  // namespace attune
