// Replays the programs of a training step from a file (`npm run export-step`), on any backend, with random weights: time per step, memory against the plan,
// where the time goes, and the outputs' values.
//   replay <step.json> [--backend cpu|cuda|simt] [--steps N] [--trace] [--json] [--compare cpu]
// `--compare cpu`: the same step on the cpu backend, outputs and every persistent arena side by side; exits 1 where one differs by more than the dtype allows.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "../core/session.h"
#include "program_file.h"

namespace attune {
namespace bench {
namespace {

/// Waits for one request of a session.
class Waiter {
 public:
  Session::Done done() {
    return [this](const Error* e) {
      const std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
      if (e) error_ = std::make_unique<Error>(*e);
      changed_.notify_all();
    };
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return over_; });
    if (error_) throw *error_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::unique_ptr<Error> error_;
};

struct Random {
  uint64_t state;
  double next() {  // mean 0, variance 1
    double sum = 0;
    for (int i = 0; i < 3; i++) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      sum += double(int64_t(state >> 11) - (int64_t(1) << 52)) / double(int64_t(1) << 52);
    }
    return sum;
  }
};

uint16_t to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

bool ends_with(const std::string& s, const char* end) {
  const size_t n = std::strlen(end);
  return s.size() >= n && s.compare(s.size() - n, n, end) == 0;
}

/// What an arena holds, by the tensors that programs place in it: weights are random, gradients and moments begin at zero.
void fill_arena(Session& session, const std::string& name, int64_t bytes, DType dtype) {
  if (ends_with(name, "gradient") || ends_with(name, "gradients") || ends_with(name, "/m") || ends_with(name, "/v")) return;
  const int64_t width = int64_t(dtype_size(dtype)), piece = int64_t(16) << 20;
  Random random{std::hash<std::string>()("weights")};  // mirrors of one store begin alike
  std::vector<char> buffer(size_t(std::min(bytes, piece)));
  for (int64_t at = 0; at < bytes; at += piece) {
    const int64_t n = std::min(piece, bytes - at) / width;
    for (int64_t i = 0; i < n; i++) {
      const float v = 0.02f * float(random.next());
      if (dtype == DType::bf16) reinterpret_cast<uint16_t*>(buffer.data())[i] = to_bf16(v);
      else if (dtype == DType::f64) reinterpret_cast<double*>(buffer.data())[i] = double(v);
      else reinterpret_cast<float*>(buffer.data())[i] = v;
    }
    session.write(name, at, buffer.data(), n * width);
  }
}

struct Step {
  Session session;
  std::vector<int> programs;
  std::vector<std::vector<std::vector<char>>> inputs, outputs;  // per program, per port
  std::map<std::string, std::pair<int64_t, DType>> arenas;      // persistent ones

  Step(const std::string& backend, const std::vector<Program>& from) : session(options(backend)) {
    for (const Program& p : from) {
      programs.push_back(session.compile(p));
      for (const ArenaSpec& a : p.arenas)
        if (a.name != "scratch") arenas[a.name].first = std::max(arenas[a.name].first, a.bytes);
      for (const ProgramTensor& t : p.tensors)
        if (t.arena > 0) arenas[p.arenas[size_t(t.arena)].name].second = t.ref.dtype;
      inputs.emplace_back(), outputs.emplace_back();
      for (const Port& port : p.inputs) inputs.back().push_back(random_input(p.tensors[size_t(port.tensor)].ref, port.name));
      for (const Port& port : p.outputs) outputs.back().emplace_back(size_t(p.tensors[size_t(port.tensor)].ref.bytes()));
    }
    for (const auto& [name, arena] : arenas) fill_arena(session, name, arena.first, arena.second);
  }

  static Session::Options options(const std::string& backend) {
    Session::Options o;
    o.backend = backend, o.threads = 2;
    return o;
  }

  static std::vector<char> random_input(const TensorRef& t, const std::string& name) {
    std::vector<char> memory(size_t(t.bytes()));
    Random random{std::hash<std::string>()(name)};
    for (int64_t i = 0; i < t.numel(); i++) {
      const double v = random.next();
      switch (t.dtype) {
        case DType::f64: reinterpret_cast<double*>(memory.data())[i] = v; break;
        case DType::f32: reinterpret_cast<float*>(memory.data())[i] = float(v); break;
        case DType::bf16: reinterpret_cast<uint16_t*>(memory.data())[i] = to_bf16(float(v)); break;
        case DType::i32: reinterpret_cast<int32_t*>(memory.data())[i] = int32_t(i * 37 % 8); break;
        default: break;
      }
    }
    return memory;
  }

  /// Numbers that every slot can take: a seed, the step, small rates.
  static double scalar(const std::string& name, int step) {
    if (name == "seed") return 1;
    if (name == "step") return step;
    if (name == "sampleOffset") return 0;
    if (name == "emaDecay") return 0.999;
    if (name.find("orrection1") != std::string::npos) return 1 - std::pow(0.9, step);
    if (name.find("orrection2") != std::string::npos) return 1 - std::pow(0.999, step);
    return 1e-5;
  }

  void run(int step) {
    for (size_t i = 0; i < programs.size(); i++) {
      const Program& p = session.program(programs[i]);
      RunRequest request;
      for (auto& memory : inputs[i]) request.inputs.push_back(memory.data());
      for (auto& memory : outputs[i]) request.outputs.push_back(memory.data());
      for (const std::string& name : p.scalars) request.scalars.push_back(scalar(name, step));
      Waiter waiter;
      session.run(programs[i], std::move(request), std::make_shared<std::atomic<bool>>(false), waiter.done());
      waiter.wait();
    }
  }

  std::vector<char> arena(const std::string& name) {
    std::vector<char> memory(size_t(arenas.at(name).first));
    Waiter waiter;
    session.read(name, 0, int64_t(memory.size()), memory.data(), waiter.done());
    waiter.wait();
    return memory;
  }
};

double element(const char* at, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f64: return reinterpret_cast<const double*>(at)[i];
    case DType::f32: return double(reinterpret_cast<const float*>(at)[i]);
    case DType::i32: return double(reinterpret_cast<const int32_t*>(at)[i]);
    case DType::bf16: {
      const uint32_t u = uint32_t(reinterpret_cast<const uint16_t*>(at)[i]) << 16;
      float f;
      std::memcpy(&f, &u, 4);
      return double(f);
    }
    default: return 0;
  }
}

double relative(const std::vector<char>& a, const std::vector<char>& b, DType dtype) {
  double distance = 0, size = 0;
  for (int64_t i = 0; i < int64_t(a.size() / dtype_size(dtype)); i++) {
    const double x = element(a.data(), dtype, i), y = element(b.data(), dtype, i);
    distance += (x - y) * (x - y), size += y * y;
  }
  return std::sqrt(distance / std::max(size, 1e-300));
}

bool compare(Step& step, Step& reference) {
  bool good = true;
  const auto judge = [&](const std::string& what, double error, DType dtype) {
    const double bound = dtype == DType::bf16 ? 0.05 : 2e-3;  // a whole step: rounding of every layer, amplified by it
    if (!(error <= bound)) good = false;
    std::printf("  %s %-40s relative L2 %.2e\n", error <= bound ? "ok  " : "FAIL", what.c_str(), error);
  };
  for (size_t i = 0; i < step.programs.size(); i++) {
    const Program& p = step.session.program(step.programs[i]);
    for (size_t k = 0; k < p.outputs.size(); k++) {
      const DType dtype = p.tensors[size_t(p.outputs[k].tensor)].ref.dtype;
      judge(p.name + " " + p.outputs[k].name, relative(step.outputs[i][k], reference.outputs[i][k], dtype), dtype);
    }
  }
  for (const auto& [name, arena] : step.arenas) judge("arena " + name, relative(step.arena(name), reference.arena(name), arena.second), arena.second);
  return good;
}

double gib(int64_t bytes) { return double(bytes) / double(int64_t(1) << 30); }

void print_trace(Step& step) {
  for (const int program : step.programs) {
    const Program& p = step.session.program(program);
    const Session::Trace t = step.session.trace(program, TraceMode::off);
    std::map<std::string, std::pair<double, int>> ops;
    double total = 0;
    for (size_t i = 0; i < t.nanoseconds.size(); i++) {
      auto& [ns, count] = ops[p.instructions[i].op];
      ns += t.nanoseconds[i] / double(t.runs), count++, total += t.nanoseconds[i] / double(t.runs);
    }
    std::vector<std::pair<double, std::string>> rows;
    for (const auto& [op, cost] : ops) rows.emplace_back(cost.first, op);
    std::sort(rows.rbegin(), rows.rend());
    std::printf("%s: %.3f ms one by one\n", p.name.c_str(), total * 1e-6);
    for (const auto& [ns, op] : rows) std::printf("  %-26s %5d x %10.3f ms %5.1f %%\n", op.c_str(), ops[op].second, ns * 1e-6, 100 * ns / total);
  }
}

int main(int argc, char** argv) {
  std::string path, backend = "cpu", against;
  int steps = 10;
  bool trace = false, json = false;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--backend" && i + 1 < argc) backend = argv[++i];
    else if (arg == "--steps" && i + 1 < argc) steps = std::atoi(argv[++i]);
    else if (arg == "--compare" && i + 1 < argc) against = argv[++i];
    else if (arg == "--trace") trace = true;
    else if (arg == "--json") json = true;
    else path = arg;
  }
  if (path.empty() || steps < 1)
    return std::fprintf(stderr, "usage: replay <step.json> [--backend cpu|cuda|simt] [--steps N] [--trace] [--json] [--compare cpu]\n"), 2;
  const std::vector<Program> programs = read_programs(path);
  Step step(backend, programs);
  const Session::Memory memory = step.session.memory();
  int64_t planned = memory.workspace;
  for (const auto& [name, bytes] : memory.arenas) planned += bytes;
  if (!against.empty()) {
    Step reference(against, programs);
    step.run(1), reference.run(1);
    const bool good = compare(step, reference);
    if (!good || steps == 1) return good ? 0 : 1;
  }
  std::vector<double> seconds;
  for (int i = 1; i <= steps + 2; i++) {  // the first runs kernels one by one, the second captures
    const auto start = std::chrono::steady_clock::now();
    step.run(i);
    if (i > 2) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  size_t instructions = 0;
  for (const Program& p : programs) instructions += p.instructions.size();
  if (json) {
    std::printf(
        "{\"step\": \"%s\", \"backend\": \"%s\", \"milliseconds\": %.4f, \"best\": %.4f, \"instructions\": %zu, \"bytes\": %lld, \"workspace\": %lld}\n",
        path.c_str(), backend.c_str(), median * 1e3, seconds[0] * 1e3, instructions, static_cast<long long>(planned), static_cast<long long>(memory.workspace));
  } else {
    std::printf("%s on %s: %.3f ms a step (median of %d, best %.3f), %zu instructions, %.2f GiB in arenas, %.2f GiB of it kernel workspace\n", path.c_str(),
                backend.c_str(), median * 1e3, steps, seconds[0] * 1e3, instructions, gib(planned), gib(memory.workspace));
  }
  for (size_t i = 0; i < programs.size(); i++)
    for (size_t k = 0; k < step.outputs[i].size(); k++) {
      const TensorRef& t = programs[i].tensors[size_t(programs[i].outputs[k].tensor)].ref;
      const double v = element(step.outputs[i][k].data(), t.dtype, 0);
      if (!json) std::printf("  %s %s: %.6g\n", programs[i].name.c_str(), programs[i].outputs[k].name.c_str(), v);
      if (!std::isfinite(v)) return std::fprintf(stderr, "replay: output %s is not finite\n", programs[i].outputs[k].name.c_str()), 1;
    }
  if (trace) {
    for (const int p : step.programs) step.session.trace(p, TraceMode::time);
    for (int i = 0; i < 3; i++) step.run(steps + 3 + i);
    print_trace(step);
  }
  return 0;
}

}  // namespace
}  // namespace bench
}  // namespace attune

int main(int argc, char** argv) {
  try {
    return attune::bench::main(argc, argv);
  } catch (const attune::Error& e) { return std::fprintf(stderr, "replay: %s: %s\n", e.code.c_str(), e.what()), 1; } catch (const std::exception& e) {
    return std::fprintf(stderr, "replay: %s\n", e.what()), 1;
  }
}
