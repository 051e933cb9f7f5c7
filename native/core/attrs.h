// An op's attributes: a small bag of numbers, booleans, strings and number lists, filled from the program.
// Lookups are linear and by name; a kernel reads each attribute once per run.
#pragma once
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "error.h"

namespace attune {

class Attrs {
 public:
  using Value = std::variant<double, bool, std::string, std::vector<double>>;

  void set(std::string key, Value value) { items_.emplace_back(std::move(key), std::move(value)); }
  bool has(const char* key) const { return find(key) != nullptr; }

  double number(const char* key) const { return get<double>(key, "a number"); }
  double number(const char* key, double fallback) const { return has(key) ? number(key) : fallback; }
  int64_t integer(const char* key) const { return int64_t(number(key)); }
  int64_t integer(const char* key, int64_t fallback) const { return has(key) ? integer(key) : fallback; }
  bool flag(const char* key) const { return get<bool>(key, "a boolean"); }
  bool flag(const char* key, bool fallback) const { return has(key) ? flag(key) : fallback; }
  const std::string& text(const char* key) const { return get<std::string>(key, "a string"); }
  const std::vector<double>& list(const char* key) const { return get<std::vector<double>>(key, "a list of numbers"); }

 private:
  const Value* find(const char* key) const {
    for (const auto& item : items_)
      if (item.first == key) return &item.second;
    return nullptr;
  }
  template <typename T>
  const T& get(const char* key, const char* expected) const {
    const Value* v = find(key);
    if (!v) throw Error("ERR_PROGRAM", std::string("attribute \"") + key + "\" is missing, expected " + expected);
    const T* t = std::get_if<T>(v);
    if (!t) throw Error("ERR_PROGRAM", std::string("attribute \"") + key + "\": expected " + expected);
    return *t;
  }
  std::vector<std::pair<std::string, Value>> items_;
};

}  // namespace attune
