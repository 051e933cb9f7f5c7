// The host machine of the device kernels tests itself: kernels with planted bugs (native/test/simt), each in a right and a wrong form. The right one must pass
// and the wrong one must be reported under every schedule and every timing of asynchronous copies; one line a bug, exit 1 if one was missed. Then laws of the
// device object and of the CUDA functions it offers.
//
//   simt_test [text]     only bugs whose name contains the text
//   simt_test --speed    GFLOP/s of a small matrix product
//
// With sanitizers (the runtime itself stays without them, kernels have them):
//   cmake -S . -B build/asan -DATTUNE_SANITIZE=address,undefined && cmake --build build/asan --target simt_test && build/asan/native-tests/simt_test
//   cmake -S . -B build/tsan -DATTUNE_SANITIZE=thread && cmake --build build/tsan --target simt_test && build/tsan/native-tests/simt_test
// Under ThreadSanitizer, where a CUDA thread is a thread, races are looked for by it alone too. A target simt_race_test builds that program in any build
// folder.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "simt/bench.h"

#ifdef __SANITIZE_THREAD__
static volatile int races = 0;
extern "C" __attribute__((no_sanitize("thread"))) void __tsan_on_report(void*) { races = races + 1; }
// Half of the kernels here are wrong: their reports are counted, not printed, and end nothing.
// A short history for each of the thousands of threads that blocks have: a long one takes gigabytes.
extern "C" const char* __tsan_default_options() { return "exitcode=0:log_path=/dev/null:history_size=0"; }
#endif
#ifdef __SANITIZE_ADDRESS__
// A kernel that is given up leaves its fibers' frames as they stand.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace attune {
namespace test {
namespace {

[[maybe_unused]] bool unsetenv_if_set(const char* name) { return std::getenv(name) && unsetenv(name) == 0; }

std::vector<Bug> bugs;

void start_bug(const cuda::OpArgs& args) {
  bugs[size_t(args.attrs.integer("bug"))].start(args, args.in[0].as<const float>(), args.out[0].as<float>(), args.attrs.flag("mistake"));
}

REGISTER_CUDA(simt_test, start_bug)

/// Small numbers of both signs, as floats, and as pairs of bf16.
float number(int i) {
  const int v = i * 37 % 61 - 30;
  const uint32_t half = __builtin_bit_cast(uint32_t, float(v) / 8) >> 16;
  return __builtin_bit_cast(float, half << 16 | half);
}

std::vector<std::string> schedules(bool full) {
  std::vector<std::string> all;
#ifdef __SANITIZE_THREAD__  // a hundred times slower: the schedules are the plain build's business
  for (const char* settings : {"order=roundrobin,copies=late", "order=reverse,copies=early", "order=random,copies=random"})
    all.push_back(std::string(settings) + (full ? ",checks=full" : ""));
  return all;
#endif
  for (const char* order : {"roundrobin", "reverse", "random,seed=1", "random,seed=2", "random,seed=3"})
    for (const char* copies : {"late", "early", "random"}) all.push_back(std::string("order=") + order + ",copies=" + copies + (full ? ",checks=full" : ""));
  return all;
}

bool is_of_kind(const std::string& report, const std::string& kinds) {
  const size_t bar = kinds.find('|');
  return report.find(kinds.substr(0, bar)) != std::string::npos || (bar != std::string::npos && report.find(kinds.substr(bar + 1)) != std::string::npos);
}

/// The wrong form must be reported in so many schedules, with the kind of its bug and the kernel's line.
int hunt(const Bug& bug) {
  int runs = 0, found = 0;
  std::string first, miss;
  for (const std::string& settings : schedules(bug.full)) {
    runs++;
    if (const std::string right = run_bug(bug, false, settings); !right.empty())
      return std::printf("FAIL   %s: the right form, %s: %s\n", bug.name.c_str(), settings.c_str(), right.c_str()), 1;
    const std::string wrong = run_bug(bug, true, settings);
    const bool refused = bug.kind == "cudaErrorInvalidConfiguration";  // has no line
    if (is_of_kind(wrong, bug.kind) && wrong.find("simt_test_") != std::string::npos && (refused || wrong.find("native/test/simt/") != std::string::npos))
      found++;
    else miss = settings + ": " + (wrong.empty() ? "passed" : wrong);
    if (first.empty()) first = wrong.substr(0, wrong.find('\n'));
  }
  if (found == runs) return std::printf("found  %s\n         %s\n", bug.name.c_str(), first.c_str()), 0;
  return std::printf("MISSED %s: under %d of %d schedules; %s\n", bug.name.c_str(), runs - found, runs, miss.c_str()), 1;
}

#ifdef __SANITIZE_THREAD__
/// Whether ThreadSanitizer alone reports a race. In a process of its own: it tells the same two lines once only.
bool races_in(const Bug& bug, bool mistake, const char* settings) {
  const pid_t child = fork();
  if (child == 0) {
    const std::string error = run_bug(bug, mistake, settings);
    _exit(races > 0 || (bug.kind.find('|') != std::string::npos && is_of_kind(error, bug.kind)));  // such a bug may end the kernel before it races
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}

int hunt_races(const Bug& bug) {
  if (!bug.race) return 0;
  for (const char* settings :
       {"checks=off", "checks=off,order=reverse,copies=early", "checks=off,order=random,copies=random", "checks=off,order=random,blocks=ordered"}) {
    if (bug.full && std::strstr(settings, "ordered")) continue;  // it may lie between blocks
    if (races_in(bug, false, settings)) return std::printf("FAIL   ThreadSanitizer reports the right form of %s, %s\n", bug.name.c_str(), settings), 1;
    if (!races_in(bug, true, settings)) return std::printf("MISSED by ThreadSanitizer: %s, %s\n", bug.name.c_str(), settings), 1;
  }
  return std::printf("found by ThreadSanitizer: %s\n", bug.name.c_str()), 0;
}
#else
int hunt_races(const Bug&) { return 0; }
#endif

}  // namespace

std::string run_bug(const Bug& bug, bool mistake, const std::string& settings) {
  const auto device = open_device(settings);
  const int64_t bytes = int64_t(bug.numbers) * 4;
  Numbers x(size_t(bug.numbers)), y(x.size());
  for (int i = 0; i < bug.numbers; i++) x[size_t(i)] = number(i), y[size_t(i)] = number(i + 5);
  TensorRef in, out;
  in.rank = out.rank = 1, in.dims[0] = out.dims[0] = bug.numbers;
  in.data = device->allocate(bytes), out.data = device->allocate(bytes);
  device->upload(in.data, x.data(), bytes), device->upload(out.data, y.data(), bytes);
  device->synchronize();
  Attrs attrs;
  for (size_t i = 0; i < bugs.size(); i++)
    if (&bugs[i] == &bug) attrs.set("bug", double(i));
  attrs.set("mistake", mistake);
  DeviceCall call{attrs, &in, 1, &out, 1};
  call.dry = true;
  call.workspace_bytes = device->run("simt_test", call);
  call.dry = false;
  call.workspace = call.workspace_bytes ? device->allocate(call.workspace_bytes) : nullptr;
  std::string error;
  try {
    device->run("simt_test", call);
    Numbers result(x.size());
    device->download(result.data(), out.data, bytes);
    device->synchronize();
    const Numbers expected = bug.expected(x, y);
    for (size_t i = 0; i < x.size() && error.empty(); i++)
      if (std::memcmp(&result[i], &expected[i], 4) != 0)
        error = "result " + std::to_string(i) + ": expected " + std::to_string(expected[i]) + ", received " + std::to_string(result[i]);
  } catch (const Error& e) { error = e.code == "ERR_DEVICE" ? e.what() : e.code + ": " + e.what(); }
  for (void* p : {in.data, out.data, call.workspace}) device->release(p);
  return error;
}

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
#ifdef __SANITIZE_THREAD__
  if (unsetenv_if_set("TSAN_OPTIONS")) execv("/proc/self/exe", argv);  // other programs' options: they may end the process at the first report
#endif
  const std::string filter = argc > 1 ? argv[1] : "";
  if (filter == "--speed") return measure_speed(), 0;
  add_planted(bugs), add_gemms(bugs), add_rings(bugs);
  int failed = 0, hunted = 0;
  const auto chosen = [&](const Bug& bug) { return bug.name.find(filter) != std::string::npos; };
  for (const Bug& bug : bugs)  // before this process has reported anything
    if (chosen(bug)) failed += hunt_races(bug);
  for (const Bug& bug : bugs)
    if (chosen(bug)) failed += hunt(bug), hunted++;
  if (filter.empty()) failed += check_device() + check_intrinsics();
  if (failed) return std::printf("simt_test: %d failed\n", failed), 1;
  return std::printf("simt_test: all %d planted bugs found\n", hunted), 0;
}

}  // namespace test
}  // namespace attune

int main(int argc, char** argv) { return attune::test::main(argc, argv); }
