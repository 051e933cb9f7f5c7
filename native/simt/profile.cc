#include "profile.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "block.h"

namespace attune {
namespace simt {

namespace {

std::mutex table_mutex;
std::map<std::string, std::map<std::pair<std::string, Profile::Kind>, Profile::Line>> table;  // by kernel, by line

}  // namespace

void Profile::note(Place place, const void* p, size_t bytes, Kind kind) {
  const Quiet quiet;
  const uint64_t key = place.packed();
  const uint32_t turn = turns_[key][cur->lin]++;
  Request& r = requests_[{key, uint64_t(cur->warp) << 32 | turn}];
  r.kind = kind, r.bytes = uint16_t(bytes);
  r.lanes |= 1u << cur->lane;
  r.address[cur->lane] = reinterpret_cast<uintptr_t>(p);
}

void Profile::matrices(Place place, const void* row, int) { note(place, row, 16, shared_matrices); }

void Profile::count(uint64_t place, const Request& r) {
  Line& line = lines_[{place, r.kind}];
  line.requests++;
  line.bytes += uint64_t(__builtin_popcount(r.lanes)) * r.bytes;
  if (r.kind >= global_read) {
    std::set<uintptr_t> sectors, bytes;
    for (unsigned lane = 0; lane < 32; lane++)
      if (r.lanes >> lane & 1)
        for (unsigned b = 0; b < r.bytes; b++) bytes.insert(r.address[lane] + b), sectors.insert((r.address[lane] + b) / 32);
    line.cost += sectors.size(), line.least += (bytes.size() + 31) / 32;
    return;
  }
  // A wavefront serves 128 bytes: 32 lanes of 4 bytes or less, 16 of 8, 8 of 16. Each of the 32 banks gives one word.
  const unsigned group = r.bytes <= 4 ? 32 : r.bytes <= 8 ? 16 : 8;
  for (unsigned first = 0; first < 32; first += group) {
    std::set<uintptr_t> words[32];
    bool any = false;
    for (unsigned lane = first; lane < first + group; lane++)
      if (r.lanes >> lane & 1)
        for (unsigned b = 0; b < r.bytes; b += 4) any = true, words[(r.address[lane] + b) / 4 % 32].insert((r.address[lane] + b) / 4);
    size_t busiest = 0;
    for (const auto& bank : words) busiest = std::max(busiest, bank.size());
    line.cost += busiest, line.least += any;
  }
}

void Profile::end_epoch() {
  for (const auto& [key, request] : requests_) count(key.first, request);
  requests_.clear(), turns_.clear();
}

void Profile::end_launch(const std::string& kernel) {
  const std::lock_guard<std::mutex> lock(table_mutex);
  for (const auto& [key, line] : lines_) {
    Line& all = table[kernel][{to_string(Place::unpacked(key.first)), key.second}];
    all.requests += line.requests, all.bytes += line.bytes, all.cost += line.cost, all.least += line.least;
  }
  lines_.clear();
}

std::string profile_text() {
  static const char* const kinds[] = {"shared read", "shared write", "ldmatrix", "global read", "global write"};
  const std::lock_guard<std::mutex> lock(table_mutex);
  std::string text;
  for (const auto& [kernel, lines] : table) {
    text += kernel + "\n";
    for (const auto& [key, line] : lines)
      text += format("  %-40s %-12s %10llu requests, %.1f bytes each, %llu %s, least %llu (x %.2f)\n", key.first.c_str(), kinds[key.second],
                     static_cast<unsigned long long>(line.requests), double(line.bytes) / double(line.requests), static_cast<unsigned long long>(line.cost),
                     key.second >= Profile::global_read ? "sectors" : "wavefronts", static_cast<unsigned long long>(line.least),
                     double(line.cost) / double(std::max<uint64_t>(1, line.least)));
  }
  return text;
}

}  // namespace simt
}  // namespace attune
