// Turns one run of native/gpu-check.sh into a page: each row of native/bench/device.cc beside its ceiling and beside PyTorch in the same run, whole steps
// beside what is the least that the arithmetic and the memory of the device allow, and which of the goals each class of kernels meets.
//   report --bench bench.json [--peers torch.json] [--steps steps.jsonl] > table.md
// Rows meet by name. A peer that has no such row, or could not run it, is a dash: a missing number is not a good one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "json.h"

namespace attune {
namespace bench {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": expected a readable file");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Json read_json(const std::string& path) {
  const std::string text = contents(path);
  try {
    return JsonReader(text).read();
  } catch (const std::runtime_error& e) { throw std::runtime_error(path + ": " + e.what()); }
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

const Json* member(const Json& object, const char* key) {
  const auto found = object.members.find(key);
  return found == object.members.end() ? nullptr : &found->second;
}

struct Peer {
  double microseconds = 0, bytes = 0;
};
using Peers = std::map<std::string, Peer>;

Peers peers_of(const Json& torch) {
  Peers peers;
  for (const Json& row : torch.at("rows").items)
    if (const Json* us = member(row, "microseconds")) peers[row.at("name").string] = {us->value, member(row, "bytes") ? row.at("bytes").value : 0};
  return peers;
}

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// What a class of kernels should reach, as a share of the peer's rate or of the copy bandwidth.
struct Goal {
  const char* name;
  double share;
  bool of_peer;
  std::vector<double> reached;
};

/// The goal that a row counts for; null: none.
Goal* goal_of(std::vector<Goal>& goals, const std::string& name, bool memory_bound) {
  const bool backward = has(name, "backward");
  if (has(name, "linear")) return &goals[0];
  if (has(name, "conv")) return &goals[1];
  if (has(name, "attention")) return &goals[backward ? 3 : 2];
  return memory_bound ? &goals[4] : nullptr;
}

void print_rows(const Json& bench, const Peers& peers, std::vector<Goal>& goals) {
  std::printf("| kernel | us | TFLOP/s | GB/s | share of ceiling | PyTorch us | PyTorch / ours |\n|---|---|---|---|---|---|---|\n");
  for (const Json& row : bench.at("rows").items) {
    const std::string& name = row.at("name").string;
    const double us = row.at("microseconds").value, flops = row.at("flops").value, share = row.at("share").value;
    const auto peer = peers.find(name);
    const double ratio = peer == peers.end() ? NAN : peer->second.microseconds / us;
    std::printf("| %s | %.1f | %s | %.0f | %.0f %% | %s | %s |\n", name.c_str(), us, flops > 0 ? number("%.1f", flops / us * 1e-6).c_str() : "",
                row.at("bytes").value / us * 1e-3, 100 * share, std::isnan(ratio) ? "-" : number("%.1f", peer->second.microseconds).c_str(),
                std::isnan(ratio) ? "-" : number("%.2f", ratio).c_str());
    Goal* goal = goal_of(goals, name, flops == 0);
    if (!goal) continue;
    const double reached = goal->of_peer ? ratio : share;
    if (!std::isnan(reached)) goal->reached.push_back(reached);
  }
}

/// The fused loss is two kernels here, and forward and backward of one function there.
void print_loss(const Json& bench, const Peers& peers) {
  double ours = 0;
  for (const Json& row : bench.at("rows").items)
    if (has(row.at("name").string, "preference")) ours += row.at("microseconds").value;
  if (ours == 0) return;
  for (const auto& [name, peer] : peers)
    if (has(name, "preference loss"))
      std::printf("\n%s: PyTorch %.1f us, both passes here %.1f us: %.1fx.\n", name.c_str(), peer.microseconds, ours, peer.microseconds / ours);
}

void print_goals(const std::vector<Goal>& goals) {
  std::printf("\n## Goals\n\n| kernels | goal | median reached | least | rows that meet it |\n|---|---|---|---|---|\n");
  for (Goal goal : goals) {
    std::sort(goal.reached.begin(), goal.reached.end());
    const auto met = std::count_if(goal.reached.begin(), goal.reached.end(), [&](double r) { return r >= goal.share; });
    const std::string of = goal.of_peer ? "of PyTorch's rate" : "of copy bandwidth";
    if (goal.reached.empty()) std::printf("| %s | %.0f %% %s | not measured | | |\n", goal.name, 100 * goal.share, of.c_str());
    else
      std::printf("| %s | %.0f %% %s | %.0f %% | %.0f %% | %td of %zu |\n", goal.name, 100 * goal.share, of.c_str(),
                  100 * goal.reached[goal.reached.size() / 2], 100 * goal.reached.front(), met, goal.reached.size());
  }
}

void print_steps(const std::string& path, const Peers& peers) {
  std::istringstream lines(contents(path));
  std::string line;
  std::printf("\n## Whole steps\n\n| step | ms (median) | best | instructions | GiB |\n|---|---|---|---|---|\n");
  while (std::getline(lines, line)) {
    if (line.empty()) continue;
    const Json step = JsonReader(line).read();
    const std::string& file = step.at("step").string;
    std::printf("| %s | %.2f | %.2f | %.0f | %.2f |\n", file.substr(file.find_last_of('/') + 1).c_str(), step.at("milliseconds").value, step.at("best").value,
                step.at("instructions").value, step.at("bytes").value / double(int64_t(1) << 30));
  }
  for (const auto& [name, peer] : peers)
    if (has(name, "step")) std::printf("| PyTorch: %s | %.2f | | | %.2f |\n", name.c_str(), peer.microseconds * 1e-3, peer.bytes / double(int64_t(1) << 30));
}

int main(int argc, char** argv) {
  std::map<std::string, std::string> paths;
  for (int i = 1; i + 1 < argc; i += 2) paths[argv[i]] = argv[i + 1];
  if (argc % 2 == 0 || paths.count("--bench") == 0)
    return std::fprintf(stderr, "usage: report --bench bench.json [--peers torch.json] [--steps steps.jsonl] > table.md\n"), 2;
  const Json bench = read_json(paths["--bench"]);
  Peers peers;
  std::printf("# %s\n\n%.0f multiprocessors; measured in this run: copy %.2f TB/s, mma.sync %.0f TFLOP/s, f32 multiply-add %.0f TFLOP/s. ",
              bench.at("device").string.c_str(), bench.at("multiprocessors").value, bench.at("copyBytesPerSecond").value * 1e-12,
              bench.at("mmaFlopsPerSecond").value * 1e-12, bench.at("fmaFlopsPerSecond").value * 1e-12);
  if (paths.count("--peers")) {
    const Json torch = read_json(paths["--peers"]);
    peers = peers_of(torch);
    std::printf("PyTorch %s on the same device in the same run.\n\n", torch.at("torch").string.c_str());
  } else std::printf("No PyTorch was there to compare with.\n\n");
  std::vector<Goal> goals = {{"products", 0.80, true, {}},
                             {"convolutions", 0.75, true, {}},
                             {"attention, forward", 0.75, true, {}},
                             {"attention, backward", 0.65, true, {}},
                             {"bound by memory", 0.88, false, {}}};
  print_rows(bench, peers, goals);
  print_loss(bench, peers);
  print_goals(goals);
  if (paths.count("--steps")) print_steps(paths["--steps"], peers);
  return 0;
}

}  // namespace
}  // namespace bench
}  // namespace attune

int main(int argc, char** argv) {
  try {
    return attune::bench::main(argc, argv);
  } catch (const std::exception& e) { return std::fprintf(stderr, "report: %s\n", e.what()), 1; }
}
