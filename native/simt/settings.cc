#include "settings.h"

#include <cstdlib>
#include <initializer_list>
#include <sstream>
#include <utility>

#include "../core/error.h"

namespace attune {
namespace simt {

namespace {

template <typename T>
T one_of(const std::string& key, const std::string& value, std::initializer_list<std::pair<const char*, T>> choices) {
  std::string expected;
  for (const auto& [name, choice] : choices) {
    if (value == name) return choice;
    expected += (expected.empty() ? "" : ", ") + std::string(name);
  }
  throw Error("ERR_CONFIG", "ATTUNE_SIMT: " + key + ": expected one of " + expected + ", received \"" + value + "\"");
}

int64_t number(const std::string& key, const std::string& value, int64_t low, int64_t high) {
  char* end = nullptr;
  const long long n = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end || n < low || n > high)
    throw Error("ERR_CONFIG",
                "ATTUNE_SIMT: " + key + ": expected a number from " + std::to_string(low) + " to " + std::to_string(high) + ", received \"" + value + "\"");
  return n;
}

Settings current;

}  // namespace

const Settings& settings() { return current; }

void use(const Settings& s) { current = s, opt = s.options; }

Settings parse_settings(const char* text) {
  Settings s;
  std::stringstream items(text ? text : "");
  for (std::string item; std::getline(items, item, ',');) {
    if (item.empty()) continue;
    const size_t at = item.find('=');
    const std::string key = item.substr(0, at), value = at == std::string::npos ? "" : item.substr(at + 1);
    if (key == "arch") s.arch = one_of<int>(key, value, {{"80", 80}, {"86", 86}, {"89", 89}, {"90", 90}});
    else if (key == "order")
      s.options.order = one_of<Order>(key, value, {{"roundrobin", Order::RoundRobin}, {"reverse", Order::Reverse}, {"random", Order::Random}});
    else if (key == "copies") s.options.async_copy = one_of<Async>(key, value, {{"late", Async::Late}, {"early", Async::Early}, {"random", Async::Random}});
    else if (key == "checks") s.options.checks = one_of<Checks>(key, value, {{"on", Checks::On}, {"off", Checks::Off}, {"full", Checks::Full}});
    else if (key == "profile") s.options.profile = one_of<bool>(key, value, {{"on", true}, {"off", false}});
    else if (key == "seed") s.options.seed = uint64_t(number(key, value, 0, INT64_MAX));
    else if (key == "threads") s.options.threads = int(number(key, value, 1, 64));
    else if (key == "memory") s.memory = number(key, value, 1, 1 << 20) << 20;
    else if (key == "multiprocessors") s.multiprocessors = int(number(key, value, 1, 1024));
    else if (key == "kernels") s.kernels = one_of<bool>(key, value, {{"on", true}, {"off", false}});
    else if (key == "blocks") s.ordered = one_of<bool>(key, value, {{"apart", false}, {"ordered", true}});
    else if (key == "launches") s.launches = value;
    else if (key == "ptx") s.ptx = value;
    else
      throw Error(
          "ERR_CONFIG",
          "ATTUNE_SIMT: expected arch, order, seed, copies, checks, threads, memory, multiprocessors, blocks, launches, kernels, profile or ptx, received \"" +
              key + "\"");
  }
  return s;
}

}  // namespace simt
}  // namespace attune
