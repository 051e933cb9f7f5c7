// A reader for the JSON that our own tools write (program files): a value tree, strict grammar, no limits but memory. Not for hostile input.
#pragma once
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace attune {
namespace bench {

struct Json {
  enum Kind { null, boolean, number, text, list, object } kind = null;
  bool truth = false;
  double value = 0;
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& at(const char* key) const {
    const auto found = members.find(key);
    if (found == members.end()) throw std::runtime_error(std::string("expected a member \"") + key + "\"");
    return found->second;
  }
  int64_t integer() const { return int64_t(value); }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : at_(text.c_str()), end_(at_ + text.size()) {}
  Json read() {
    Json value = any();
    space();
    if (at_ != end_) fail("the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    throw std::runtime_error(std::string("expected ") + expected + ", received \"" + std::string(at_, std::min<size_t>(20, size_t(end_ - at_))) + "\"");
  }
  void space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) at_++;
  }
  bool take(char c) {
    space();
    if (at_ == end_ || *at_ != c) return false;
    at_++;
    return true;
  }
  bool word(const char* w) {
    const size_t n = std::char_traits<char>::length(w);
    if (size_t(end_ - at_) < n || std::string(at_, n) != w) return false;
    at_ += n;
    return true;
  }
  std::string quoted() {
    if (!take('"')) fail("a string");
    std::string s;
    while (at_ < end_ && *at_ != '"') {
      if (*at_ == '\\') {
        if (++at_ == end_) fail("an escaped character");
        if (*at_ == 'u') fail("no \\u escape");
        s += *at_ == 'n' ? '\n' : *at_ == 't' ? '\t' : *at_;
        at_++;
      } else s += *at_++;
    }
    if (!take('"')) fail("a closing quote");
    return s;
  }
  Json any() {
    space();
    Json j;
    if (take('{')) {
      j.kind = Json::object;
      while (!take('}')) {
        if (!j.members.empty() && !take(',')) fail("a comma");
        std::string key = quoted();
        if (!take(':')) fail("a colon");
        j.members[key] = any();
      }
    } else if (take('[')) {
      j.kind = Json::list;
      while (!take(']')) {
        if (!j.items.empty() && !take(',')) fail("a comma");
        j.items.push_back(any());
      }
    } else if (at_ < end_ && *at_ == '"') {
      j.kind = Json::text, j.string = quoted();
    } else if (word("true")) {
      j.kind = Json::boolean, j.truth = true;
    } else if (word("false")) {
      j.kind = Json::boolean;
    } else if (word("null")) {
    } else {
      char* stop = nullptr;
      j.kind = Json::number, j.value = std::strtod(at_, &stop);
      if (stop == at_) fail("a value");
      at_ = stop;
    }
    return j;
  }

  const char *at_, *end_;
};

}  // namespace bench
}  // namespace attune
