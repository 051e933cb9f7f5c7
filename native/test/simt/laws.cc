// Laws of the device object and of the CUDA functions that the machine offers.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../simt/launch.h"
#include "../../simt/profile.h"
#include "bench.h"
#include "laws.cuh"

namespace attune {
namespace test {

using namespace cuda;

namespace {

int failed = 0;

void expect(bool holds, const char* law) {
  if (holds) return;
  std::printf("FAIL   %s\n", law);
  failed++;
}

/// The error that body ends with, "" if none.
template <typename F>
std::string error_of(F&& body) {
  try {
    body();
    return "";
  } catch (const Error& e) { return e.code + ": " + e.what(); }
}
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

constexpr int kNumbers = 100;

void start_axpy(const OpArgs& args) {
  launch(args, simt_test_axpy, dim3(2), dim3(64), 0, args.in[0].as<const float>(), args.out[0].as<float>(), float(args.attrs.number("factor")), kNumbers);
}
REGISTER_CUDA(simt_test_axpy, start_axpy)

void axpy(Device& device, const void* x, void* y, double factor) {
  TensorRef in, out;
  in.data = const_cast<void*>(x), out.data = y;
  Attrs attrs;
  attrs.set("factor", factor);
  device.run("simt_test_axpy", DeviceCall{attrs, &in, 1, &out, 1});
}

Numbers downloaded(Device& device, const void* from) {
  Numbers to(kNumbers);
  device.download(to.data(), from, kNumbers * 4);
  device.synchronize();
  return to;
}

/// Launches without an op.
template <typename... P, typename... A>
void run_kernel(void (*kernel)(P...), dim3 grid, dim3 threads, int shared, A... args) {
  simt::Request request;
  request.kernel = reinterpret_cast<const void*>(kernel);
  request.grid = grid, request.threads = threads, request.shared_bytes = shared;
  simt::run(request, [=] { kernel(args...); });
}

void check_memory() {
  const auto device = open_device("memory=1");
  void* p = device->allocate(kNumbers * 4);
  expect(reinterpret_cast<uintptr_t>(p) % 256 == 0, "an allocation is 256-byte aligned");
  expect(downloaded(*device, p) == Numbers(kNumbers, 0.f), "an allocation is zero");
  expect(contains(error_of([&] { device->allocate(2 << 20); }), "ERR_MEMORY"), "more memory than the device has is refused");
  const Numbers x(kNumbers, 1.f);
  expect(contains(error_of([&] { device->upload(p, x.data(), kNumbers * 4 + 1); }), "1 bytes past the end"), "an upload past the end is refused");
  expect(contains(error_of([&] { device->clear(static_cast<char*>(p) - 4, 4); }), "4 bytes before"), "a clear before the beginning is refused");
  void* y = device->allocate(kNumbers * 4);
  // Where the host's memory lies decides whether it is outside of everything or past the end of something.
  expect(contains(error_of([&] { axpy(*device, x.data(), y, 1); }), "simt_test_axpy"), "a kernel that reads the host's memory is reported");
  device->release(p);
  const std::string late = error_of([&] { axpy(*device, p, y, 1); });
  expect(contains(late, "that were released") && contains(late, "laws.cuh:") && contains(late, "simt_test_axpy"),
         "a kernel that reads released memory is reported");
  expect(error_of([&] { axpy(*device, y, y, 1); }).empty(), "the device goes on after an error");
  expect(contains(error_of([&] { device->release(p); }), "released before"), "a second release is refused");
  expect(contains(error_of([&] { device->release(static_cast<char*>(y) + 256); }), "no allocation"), "a release of something else is refused");
  device->release(y);
  expect(error_of([&] { device->release(device->allocate(1 << 20)); }).empty(), "released memory can be had again");
}

void check_stream() {
  const auto device = open_device("");
  void* p = device->allocate(kNumbers * 4);
  Numbers x(kNumbers, 2.f), y(kNumbers, 7.f);
  device->upload(p, x.data(), kNumbers * 4);
  device->download(y.data(), p, kNumbers * 4);
  expect(y != x, "a download has not arrived before synchronize()");
  device->synchronize();
  expect(y == x, "a download has arrived after synchronize()");
  device->upload(p, x.data(), kNumbers * 4);
  x[3] = 5;
  expect(contains(error_of([&] { device->synchronize(); }), "changed between upload() and synchronize()"),
         "an upload whose source changes too early is reported");
  device->mark(0);
  device->mark(1);
  expect(contains(error_of([&] { device->seconds(0, 1); }), "cudaErrorNotReady"), "time is not known before synchronize()");
  device->synchronize();
  expect(device->seconds(0, 1) >= 0, "time is known after synchronize()");
  device->release(p);
}

void check_graphs() {
  const auto device = open_device("");
  void *x = device->allocate(kNumbers * 4), *y = device->allocate(kNumbers * 4);
  Numbers from(kNumbers, 1.f);
  const auto graph = device->capture([&] {
    double factor = 3;
    device->upload(x, from.data(), kNumbers * 4);
    axpy(*device, x, y, factor);
    factor = 0;  // a captured launch keeps its parameters
    device->copy(x, y, kNumbers * 4);
  });
  expect(downloaded(*device, y) == Numbers(kNumbers, 0.f), "capturing runs nothing");
  graph->launch();
  expect(downloaded(*device, x) == Numbers(kNumbers, 3.f), "a graph runs what was captured, in order");
  std::fill(from.begin(), from.end(), 2.f);
  graph->launch();
  expect(downloaded(*device, x) == Numbers(kNumbers, 9.f), "a graph reads memory anew");
  expect(contains(error_of([&] { device->capture([&] { device->synchronize(); }); }), "cudaErrorStreamCaptureUnsupported"), "synchronize() cannot be captured");
  expect(contains(error_of([&] { device->capture([&] { device->allocate(8); }); }), "cudaErrorStreamCaptureUnsupported"), "allocate() cannot be captured");
  axpy(*device, x, y, 1);
  expect(downloaded(*device, y) == Numbers(kNumbers, 18.f), "a failed capture leaves the stream as it was");
  device->release(x);
  expect(contains(error_of([&] { graph->launch(); }), "that were released"), "a graph that uses released memory is reported");
  device->release(y);
}

void check_settings() {
  expect(contains(error_of([] { open_device("ordre=random"); }), "ERR_CONFIG"), "an unknown setting is refused");
  expect(contains(error_of([] { open_device("order=ranodm"); }), "roundrobin, reverse, random"), "an unknown value is refused");
  expect(contains(error_of([] { open_device("threads=0"); }), "from 1 to 64"), "a number out of range is refused");
  expect(open_device("arch=90")->caps().shared_bytes == 227 * 1024 && open_device("arch=86")->caps().shared_bytes == 99 * 1024,
         "shared memory is the architecture's");
  const auto device = open_device("threads=2,order=random");
  void *x = device->allocate(kNumbers * 4), *y = device->allocate(kNumbers * 4);
  const Numbers from(kNumbers, 1.f);
  device->upload(x, from.data(), kNumbers * 4);
  axpy(*device, x, y, 4);
  expect(downloaded(*device, y) == Numbers(kNumbers, 4.f), "two threads run a grid's blocks");
  expect(contains(error_of([&] { axpy(*device, x, static_cast<char*>(y) + 4, 1); }), "out of bounds"), "two threads find what one finds");
  device->release(x), device->release(y);
}

/// Its process dies instead of writing into another thread's stack.
void check_overflow() {
#ifndef __SANITIZE_THREAD__
  const pid_t child = fork();
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(0);
    const auto device = open_device("");
    float* y = static_cast<float*>(device->allocate(4));
    run_kernel(simt_test_overflow, dim3(1), dim3(64), 0, y, 1000);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  expect(status != 0, "a stack that overflows ends the process");
#endif
}

void check_profile() {
  const auto device = open_device("profile=on");
  float* y = static_cast<float*>(device->allocate(128));
  run_kernel(simt_test_banks, dim3(1), dim3(32), 32 * 32 * 4, y);
  const std::string text = simt::profile_text();
  expect(contains(text, "1 requests, 128.0 bytes each, 32 wavefronts, least 1 (x 32.00)"), "a column of 32 floats takes 32 wavefronts");
  expect(contains(text, "32 requests, 128.0 bytes each, 32 wavefronts, least 32"), "a row takes one");
  expect(contains(text, "4 sectors, least 4 (x 1.00)"), "32 floats in a row are four sectors");
  device->release(y);
  open_device("");
}

/// Kernels that do not run are told of all the same, each kind of launch once for a device.
void check_launch_log() {
  char path[] = "/tmp/attune-launches-XXXXXX";
  close(mkstemp(path));
  {
    const auto device = open_device("kernels=off,multiprocessors=132,launches=" + std::string(path));
    expect(device->caps().multiprocessors == 132, "a device has as many multiprocessors as it is said to have");
    for (int i = 0; i < 3; i++) axpy(*device, nullptr, nullptr, 1);
    device->synchronize();
  }
  char line[256] = "", symbol[200] = "", rest[8] = "";
  int numbers[6] = {};
  std::FILE* file = std::fopen(path, "r");
  if (file && std::fgets(line, sizeof line, file))
    std::sscanf(line, "%199s %d %d %d %d %d %d", symbol, numbers, numbers + 1, numbers + 2, numbers + 3, numbers + 4, numbers + 5);
  const int expected[6] = {64, 0, 2, 1, 1, 3};  // threads, shared memory, grid, count
  expect(contains(symbol, "simt_test_axpy") && std::memcmp(numbers, expected, sizeof expected) == 0, "the log says what was started, and how often");
  expect(file && !std::fgets(rest, sizeof rest, file), "launches of one kind are one line");
  if (file) std::fclose(file);
  unlink(path);
  open_device("");
}

void check_together() {
  for (const char* settings : {"", "order=reverse", "order=random,checks=full", "checks=off"}) {
    const auto device = open_device(settings);
    int* wrong = static_cast<int*>(device->allocate(64 * 4));
    run_kernel(simt_test_together, dim3(1), dim3(64), 512, wrong);
    int bad = 0;
    for (int i = 0; i < 64; i++) bad += wrong[i];
    expect(bad == 0, "warp and block functions are what CUDA says they are");
    unsigned* cells = static_cast<unsigned*>(device->allocate(28));
    const unsigned start[7] = {0, 5, 5, 7, 0, 0, 3};
    device->upload(cells, start, 28);
    run_kernel(simt_test_atomics, dim3(1), dim3(1), 0, cells, wrong);
    expect(wrong[0] == 0, "atomics return what was there, and leave what CUDA says");
    device->synchronize();
    device->release(wrong), device->release(cells);
  }
}

}  // namespace

int check_device() {
  failed = 0;
  check_memory(), check_stream(), check_graphs(), check_settings(), check_overflow(), check_profile(), check_launch_log(), check_together();
  return failed;
}

int check_intrinsics() {
  failed = 0;
  expect(__brev(1u) == 0x80000000u && __brev(0x12345678u) == 0x1e6a2c48u && __brevll(1ull) == 1ull << 63, "__brev turns bits round");
  expect(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(1) == 63, "__clz counts zeros from above");
  expect(__ffs(0) == 0 && __ffs(8) == 4 && __popc(0xf0f0u) == 8 && __popcll(~0ull) == 64, "__ffs, __popc");
  expect(__byte_perm(0x33221100u, 0x77665544u, 0x7250u) == 0x77225500u && __byte_perm(0x00000080u, 0, 0x8888u) == 0xffffffffu,
         "__byte_perm picks bytes, and spreads signs");
  expect(__funnelshift_l(0x80000000u, 1u, 1) == 3u && __funnelshift_r(0x80000000u, 1u, 1) == 0xc0000000u, "__funnelshift");
  expect(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu && __mulhi(-1, 1) == -1 && __umul64hi(~0ull, ~0ull) == ~0ull - 1, "__umulhi is the upper half");
  expect(__float2int_rn(2.5f) == 2 && __float2int_rn(3.5f) == 4 && __float2int_rz(-2.7f) == -2 && __float2int_rd(-2.1f) == -3 && __float2int_ru(2.1f) == 3,
         "conversions round as they say");
  expect(__float2int_rn(1e20f) == 0x7fffffff && __float2int_rn(-1e20f) == -0x7fffffff - 1 && __float2int_rn(NAN) == 0 && __float2uint_rn(-1.f) == 0u,
         "conversions saturate");
  expect(__saturatef(NAN) == 0.f && __saturatef(2.f) == 1.f && __saturatef(-1.f) == 0.f, "__saturatef");
  expect(rsqrtf(4.f) == 0.5f && __frcp_rn(4.f) == 0.25f && fabsf(normcdff(0.f) - 0.5f) < 1e-7f, "reciprocals and the normal distribution");
  expect(max(-1, 1u) == 0xffffffffu && min(NAN, 1.f) == 1.f && max(2.f, 3.0) == 3.0, "min and max convert as CUDA's do");
  expect(exp(1.f) == expf(1.f), "exp of a float is the float function");
  return failed;
}

}  // namespace test
}  // namespace attune
