#include "shadow.h"

#include "machine.h"

namespace attune {
namespace ptxi {

void Shadow::begin(uint32_t bytes, uint32_t grain, int warps) {
  uint32_t shift = 0;
  while ((1u << shift) < grain) shift++;
  const size_t pieces = (bytes + grain - 1) >> shift;
  if (shift != shift_ || warps != warps_ || pieces > pieces_.size()) {
    pieces_.assign(pieces, Piece{});
    reads_.assign(pieces * size_t(warps), 0);
  } else {
    for (Piece& p : pieces_) p.copying = p.reading = 0, p.barrier = false;
  }
  bytes_ = bytes, shift_ = shift, warps_ = warps;
  begin_ = ++clock_;  // whatever is older belongs to another block
  now_.fill(begin_);
  heard_.fill(Clock{});
  fenced_ = Clock{};
}

void Shadow::race(const Instruction& i, int lane, uint32_t at, const char* what, const char* other, int warp, int its_lane, const Instruction* by) {
  const std::string who = its_lane < 32 ? "thread " + machine_.thread_name(warp, its_lane) : "warp " + std::to_string(warp);
  machine_.fail(i, lane < 32 ? lane : 0,
                std::string("race: ") + what + " shared byte " + std::to_string(at) + ", which " + who + " " + other + " at line " + std::to_string(by->line) +
                    " (`" + machine_.entry.text_of(*by) + "`) with no barrier between");
}

void Shadow::check_state(const Instruction& i, int lane, uint32_t at, const Piece& p, bool write) {
  const auto fail = [&](const std::string& what) { machine_.fail(i, lane < 32 ? lane : 0, what); };
  const std::string name = "shared byte " + std::to_string(at);
  if (p.copying)
    fail(name + " is used while the copy into it of line " + std::to_string(p.written_by->line) + " (`" + machine_.entry.text_of(*p.written_by) +
         "`) is in flight");
  if (p.barrier) fail(name + " is part of an mbarrier");
  if (write && p.reading) fail(name + " is written while the wgmma of line " + std::to_string(p.read_by->line) + " may still read it");
}

void Shadow::check_after_write(const Instruction& i, int lane, uint32_t at, const Piece& p, const char* what) {
  const int w = machine_.warp->index;
  if (p.write_time >= begin_ && !ordered(p.write_time, p.writer, p.write_lane, w, lane)) race(i, lane, at, what, "wrote", p.writer, p.write_lane, p.written_by);
}

void Shadow::check_after_reads(const Instruction& i, int lane, uint32_t at, const Piece& p) {
  const int w = machine_.warp->index;
  const uint32_t* times = reads_.data() + size_t(&p - pieces_.data()) * size_t(warps_);
  const Clock& heard = heard_[size_t(w)];
  for (int v = 0; v < warps_; v++) {
    if (times[v] < begin_) continue;
    const bool fine = v == w ? times[v] < now_[size_t(w)] || p.reader != w || p.read_lane == lane : times[v] <= heard.time[size_t(v)];
    if (!fine) race(i, lane, at, "writes", "read", v, p.reader == v ? p.read_lane : int(kWholeWarp), p.read_by);
  }
}

void Shadow::use(const Instruction& i, int lane, uint32_t offset, uint32_t bytes, Use use) {
  const int w = machine_.warp->index;
  const uint32_t now = now_[size_t(w)];
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) {
    Piece& p = pieces_[k];
    const uint32_t at = std::max(offset, k << shift_);
    if (p.copying | p.barrier | p.reading) check_state(i, lane, at, p, use != Use::read);
    if (use == Use::read) {
      if (p.write_time < begin_) machine_.fail(i, lane < 32 ? lane : 0, "reads shared byte " + std::to_string(at) + ", which nobody has written");
      check_after_write(i, lane, at, p, "reads");
      uint32_t& time = reads_[size_t(k) * size_t(warps_) + size_t(w)];
      p.read_lane = time == now && p.reader == w && p.read_lane != lane ? kSeveralLanes : uint8_t(lane);
      time = now;
      p.reader = uint8_t(w), p.read_by = &i;
      continue;
    }
    if (use == Use::atomic) {
      if (p.write_time < begin_) machine_.fail(i, lane, "updates shared byte " + std::to_string(at) + ", which nobody has written");
      if (!p.atomic) check_after_write(i, lane, at, p, "updates");
    } else check_after_write(i, lane, at, p, "writes");
    check_after_reads(i, lane, at, p);
    p.write_time = now, p.writer = uint8_t(w), p.write_lane = uint8_t(lane), p.written_by = &i;
    p.atomic = use == Use::atomic, p.async = false;
  }
}

void Shadow::begin_copy(const Instruction& i, int lane, uint32_t offset, uint32_t bytes) {
  use(i, lane, offset, bytes, Use::write);
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) pieces_[k].copying = 1;
}

void Shadow::end_copy(int warp, int lane, uint32_t offset, uint32_t bytes, uint32_t time) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) {
    Piece& p = pieces_[k];
    p.copying = 0, p.write_time = time, p.writer = uint8_t(warp), p.write_lane = uint8_t(lane);
  }
}

void Shadow::begin_read(const Instruction& i, uint32_t offset, uint32_t bytes) {
  use(i, kWholeWarp, offset, bytes, Use::read);
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) pieces_[k].reading++;
}

void Shadow::end_read(int warp, uint32_t offset, uint32_t bytes) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) {
    if (pieces_[k].reading) pieces_[k].reading--;
    reads_[size_t(k) * size_t(warps_) + size_t(warp)] = now_[size_t(warp)];
  }
}

void Shadow::set_barrier(uint32_t offset, uint32_t bytes, bool on) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) pieces_[k].barrier = on;
}

void Shadow::set_async(uint32_t offset, uint32_t bytes) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) pieces_[k].async = true;
}

void Shadow::follow(const Instruction& i, int lane, uint32_t offset, uint32_t bytes) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) check_after_write(i, lane, k << shift_, pieces_[k], "uses");
}

void Shadow::check_fenced(const Instruction& i, int lane, uint32_t offset, uint32_t bytes) {
  for (uint32_t k = offset >> shift_; k <= (offset + bytes - 1) >> shift_; k++) {
    const Piece& p = pieces_[k];
    if (p.write_time < begin_ || p.async || p.write_time <= fenced_.time[p.writer]) continue;
    machine_.fail(i, lane,
                  "reads shared byte " + std::to_string(std::max(offset, k << shift_)) + " through the async proxy; it was written at line " +
                      std::to_string(p.written_by->line) + " and no fence.proxy.async has followed");
  }
}

}  // namespace ptxi
}  // namespace attune
