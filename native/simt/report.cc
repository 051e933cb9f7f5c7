#include "report.h"

#include <cstdarg>
#include <cstdio>

#include "../core/error.h"
#include "block.h"

namespace attune {
namespace simt {

namespace {

constexpr size_t kTexts = 4;         // told in full; then the launch ends
constexpr int64_t kErrors = 100000;  // or so many of one kind

std::string format(const char* pattern, va_list args) {
  char text[1024];
  std::vsnprintf(text, sizeof text, pattern, args);
  return text;
}

std::string to_string(const uint3& v) { return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")"; }

}  // namespace

std::string format(const char* pattern, ...) {
  va_list args;
  va_start(args, pattern);
  const std::string text = format(pattern, args);
  va_end(args);
  return text;
}

std::string to_string(Place place) {
  if (!place.file) return "an unknown line";
  const std::string file = place.file;
  const size_t start = file.rfind("native/");
  return (start == std::string::npos ? file : file.substr(start)) + ":" + std::to_string(place.line);
}

bool Reports::add(const char* kind, Place place, Place other, const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  count_++;
  if (seen_.insert(std::string(kind) + to_string(place) + to_string(other)).second) texts_.push_back(text);
  return texts_.size() < kTexts && count_ < kErrors;
}

std::string Reports::text() const {
  std::string all;
  for (const std::string& t : texts_) all += (all.empty() ? "" : "\n  ") + t;
  if (count_ > int64_t(texts_.size())) all += "\n  (" + std::to_string(count_) + " in all)";
  return all;
}

void report_at(const char* kind, Place place, Place other, const std::string& text) {
  const Quiet quiet;
  if (!running) throw Error("ERR_DEVICE", "simt: " + std::string(kind) + ": " + text);
  Block& block = *running;
  const std::string full =
      std::string(kind) + " at " + to_string(place) + ", block " + to_string(block.view.index) + (cur ? ", thread " + to_string(cur->index) : "") + ": " + text;
  if (!block.launch->reports->add(kind, place, other, full) && cur) block.abandon();
}

void report(const char* kind, const char* pattern, ...) {
  va_list args;
  va_start(args, pattern);
  const std::string text = format(pattern, args);
  va_end(args);
  report_at(kind, cur ? static_cast<Lane*>(cur)->at : Place{}, {}, text);
}

void fail(const char* kind, const char* pattern, ...) {
  {
    va_list args;
    va_start(args, pattern);
    const std::string text = format(pattern, args);
    va_end(args);
    report_at(kind, cur ? static_cast<Lane*>(cur)->at : Place{}, {}, text);
  }
  running->abandon();
}

}  // namespace simt
}  // namespace attune
